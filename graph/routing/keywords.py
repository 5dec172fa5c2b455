"""prompts/keywords.yaml, read and checked: which words and forms of a request speak for whom."""

import re
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

import prompts
from prompts import AGENTS

RequestForm = Literal["trace", "question", "choice", "long", "statement"]


class Clue(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str = Field(min_length=1)
    points: dict[str, int] = Field(min_length=1)
    """For each agent it speaks for, or against."""
    terms: list[str] = Field(min_length=1)
    request: bool = False
    """Whether it says what is wanted."""
    alone: bool = False
    """Whether it counts only where no other clue says so."""

    @field_validator("points")
    @classmethod
    def _validate_points(cls, points: dict[str, int]) -> dict[str, int]:
        return _require_known_agents(points)

    @field_validator("terms", mode="before")
    @classmethod
    def _split_terms(cls, terms: Any) -> Any:
        return [each.strip() for each in terms.strip().rstrip(",").split(",")] if isinstance(terms, str) else terms

    @field_validator("terms")
    @classmethod
    def _validate_terms(cls, terms: list[str]) -> list[str]:
        if not all(set(term.split()) - {"^", "..."} for term in terms):
            raise ValueError("there is an empty term")
        if empty := [term for term in terms for word in {*term.split()} - {"^", "..."} if _has_empty_part(word)]:
            raise ValueError(f"a word is missing in {empty[0]!r}")
        if any(term.removeprefix("^ ").startswith("...") for term in terms):
            raise ValueError("a term begins with a gap")
        return terms


def _has_empty_part(word: str) -> bool:
    return not all(one.strip("*!") for one in re.split(r"[|_]", word))


def _require_known_agents(points: dict[str, int]) -> dict[str, int]:
    if unknown := sorted(points.keys() - AGENTS.keys()):
        raise ValueError(f"there is no agent {', '.join(unknown)}; there are {', '.join(AGENTS)}")
    return points


class Keywords(BaseModel):
    """prompts/keywords.yaml."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    default: str
    fillers: list[str] = Field(min_length=1)
    forms: dict[RequestForm, dict[str, int]]
    """What a request is by its form."""
    clues: list[Clue] = Field(min_length=1)

    @field_validator("default")
    @classmethod
    def _validate_default(cls, name: str) -> str:
        _require_known_agents({name: 0})
        return name

    @field_validator("forms")
    @classmethod
    def _validate_forms(cls, forms: dict[RequestForm, dict[str, int]]) -> dict[RequestForm, dict[str, int]]:
        for points in forms.values():
            _require_known_agents(points)
        return forms


def load_keywords(path: Path) -> Keywords:
    try:
        return Keywords.model_validate(yaml.safe_load(path.read_text(encoding="utf-8")))
    except (ValidationError, ValueError, yaml.YAMLError) as error:
        raise ValueError(f"{path}: {error}") from error


KEYWORDS = load_keywords(prompts.PROMPTS_DIR / "keywords.yaml")
