"""The team. One markdown file is one agent: who it is, when it is called, what it may do, how it works.

A file that cannot work stops start-up: it raises ValueError, naming the file and what is wrong with it.
"""

from pathlib import Path
from string import Template
from typing import Annotated, Any

import yaml
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, WithJsonSchema

PROMPTS_DIR = Path(__file__).parent
ORCHESTRATOR = "orchestrator"
UNIVERSAL = "universal"
RESERVED_NAMES = {"permission", "approval", "ide", "local"}
"""Names of the graph that no agent can have."""


class Agent(BaseModel):
    """The front matter of an agent's file, and below it the prompt."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str = Field(pattern=r"^[a-z][a-z0-9_]*$")
    title: str
    """What people call it."""
    description: str = Field(min_length=20)
    """When it should be chosen: all that the classifier knows of it."""
    tools: tuple[str, ...] = Field(min_length=1)
    may_write: tuple[str, ...] = ("*",)
    """Globs, ignoring case, of which one must match the whole path or the file's name."""
    read_only_commands: bool = False
    """A command that is not proven read-only needs approval, whatever else is configured."""
    model: str | None = Field(None, min_length=1)
    """Its name at the proxy, in place of LLM_MODEL."""
    temperature: float | None = Field(None, ge=0, le=2)
    prompt: str = Field(min_length=20)

    @property
    def parameters(self) -> dict[str, Any]:
        """What its model calls ask for beyond the settings."""
        given = {"model": self.model, "temperature": self.temperature}
        return {name: value for name, value in given.items() if value is not None}


def load_agent(path: Path, name: str | None = None) -> Agent:
    try:
        if path.stem in RESERVED_NAMES | {ORCHESTRATOR}:
            raise ValueError("the graph has a box of this name; choose another")
        front_matter, prompt = _split_front_matter(path.read_text(encoding="utf-8"))
        return Agent(**front_matter, name=name or path.stem, prompt=prompt)
    except (ValidationError, ValueError, TypeError, yaml.YAMLError) as error:
        raise ValueError(f"{path}: {error}") from error


def _split_front_matter(text: str) -> tuple[dict[str, Any], str]:
    opening, *rest = text.split("---\n", maxsplit=2)
    if opening or len(rest) != 2:
        raise ValueError("the file must begin with front matter between two lines of '---'")
    return yaml.safe_load(rest[0]), rest[1].strip()


def check_template(path: Path, text: str, name: str) -> None:
    """Raises ValueError for a text whose one placeholder is another."""
    template = Template(text)
    if not template.is_valid() or template.get_identifiers() != [name]:
        raise ValueError(f"{path}: write ${name} where it belongs and no other placeholder; $$ is a dollar sign")


AGENTS = {path.stem: load_agent(path) for path in sorted((PROMPTS_DIR / "agents").glob("*.md"))}
"""The specialists, by name."""
CLASSIFIER = load_agent(PROMPTS_DIR / "classifier.md", name=ORCHESTRATOR)
"""The orchestrator; its prompt is the classifier's, `$agents` in it is the team."""
check_template(PROMPTS_DIR / "classifier.md", CLASSIFIER.prompt, "agents")
SUMMARY_PROMPT = (PROMPTS_DIR / "summary.md").read_text(encoding="utf-8").strip()
"""How a conversation is summarised; `$words` is how long."""
check_template(PROMPTS_DIR / "summary.md", SUMMARY_PROMPT, "words")
TITLE_PROMPT = (PROMPTS_DIR / "title.md").read_text(encoding="utf-8").strip()
"""How a session is named after its first message."""


def select_team(multi_agent: bool) -> dict[str, Agent]:
    """The specialists that can be chosen: universal alone, or all the others. Raises ValueError if there are none."""
    chosen = {name: agent for name, agent in AGENTS.items() if (name == UNIVERSAL) != multi_agent}
    if not chosen:
        raise ValueError(f"{PROMPTS_DIR / 'agents'} has no agent for MULTI_AGENT_MODE={str(multi_agent).lower()}")
    return chosen


def _validate_agent_name(name: str) -> str:
    if name != ORCHESTRATOR and name not in AGENTS:
        raise ValueError(f"there is no such agent; there are {', '.join([ORCHESTRATOR, *AGENTS])}")
    return name


AgentName = Annotated[
    str, AfterValidator(_validate_agent_name), WithJsonSchema({"type": "string", "enum": [ORCHESTRATOR, *AGENTS]})
]
"""A specialist or the orchestrator."""
