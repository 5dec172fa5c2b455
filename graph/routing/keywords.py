"""Read and check prompts/keywords.yaml, the words and forms of a request that speak for an agent."""

import re
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

import prompts
from prompts import AGENTS

RequestForm = Literal["trace", "question", "choice", "long", "statement"]
"""A property of the whole text; `scoring` has the check of each."""


class Clue(BaseModel):
    """A list of terms that speak for agents, or against them."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str = Field(min_length=1)
    points: dict[str, int] = Field(min_length=1)
    """Points by agent; points below zero speak against it."""
    terms: list[str] = Field(min_length=1)
    request: bool = False
    """True: the clue shows what the user wants."""
    alone: bool = False
    """True: the clue counts only if no other clue shows what the user wants."""

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
    """Return whether an alternative, or a word of a row, has no letters."""
    return not all(one.strip("*!") for one in re.split(r"[|_]", word))


def _require_known_agents(points: dict[str, int]) -> dict[str, int]:
    """Return the points. Raises ValueError for an agent that does not exist."""
    if unknown := sorted(points.keys() - AGENTS.keys()):
        raise ValueError(f"there is no agent {', '.join(unknown)}; there are {', '.join(AGENTS)}")
    return points


class Keywords(BaseModel):
    """The content of prompts/keywords.yaml."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    default: str
    """The agent of a request without points."""
    fillers: list[str] = Field(min_length=1)
    """Words before which a sentence is still at its opening."""
    forms: dict[RequestForm, dict[str, int]]
    """Points by agent for each form that a request has."""
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
    """Return the keywords of a file. Raises ValueError, which names the file and the mistake."""
    try:
        return Keywords.model_validate(yaml.safe_load(path.read_text(encoding="utf-8")))
    except (ValidationError, ValueError, yaml.YAMLError) as error:
        raise ValueError(f"{path}: {error}") from error


KEYWORDS = load_keywords(prompts.PROMPTS_DIR / "keywords.yaml")
