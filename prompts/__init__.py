"""The agents and the prompts. One Markdown file is one agent: its name, its description, its permissions, its prompt.

An invalid file stops the start-up: importing this module raises ValueError, which names the file and the mistake.
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
"""Names of the graph's service nodes; no agent can have one of them."""


class Agent(BaseModel):
    """One agent: the front matter of its file, and the prompt below it."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str = Field(pattern=r"^[a-z][a-z0-9_]*$")
    title: str
    """The name that people read."""
    description: str = Field(min_length=20)
    """The requests that it should get. The classifier knows nothing else of it."""
    tools: tuple[str, ...] = Field(min_length=1)
    may_write: tuple[str, ...] = ("*",)
    """Globs of the files that it may write. One must match the whole path or the file's name; case does not matter."""
    read_only_commands: bool = False
    """True: a command that is not proven read-only needs approval, whatever else is configured."""
    model: str | None = Field(None, min_length=1)
    """Name of its model at the proxy, in place of LLM_MODEL."""
    temperature: float | None = Field(None, ge=0, le=2)
    prompt: str = Field(min_length=20)

    @property
    def display_name(self) -> str:
        """The name in the menu of an IDE: the title without its last word."""
        return self.title.removesuffix(" Agent")

    @property
    def parameters(self) -> dict[str, Any]:
        """The options of its model calls beyond the settings."""
        options = {"model": self.model, "temperature": self.temperature}
        return {name: value for name, value in options.items() if value is not None}


def load_agent(path: Path, name: str | None = None) -> Agent:
    """Return the agent of a file; its name is the file's, unless another one is passed. Raises ValueError."""
    try:
        if path.stem in RESERVED_NAMES | {ORCHESTRATOR}:
            raise ValueError("the graph has a node of this name; choose another")
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
    """Check that `$name` is the only placeholder of a text. Raises ValueError."""
    template = Template(text)
    if not template.is_valid() or template.get_identifiers() != [name]:
        raise ValueError(f"{path}: write ${name} where it belongs and no other placeholder; $$ is a dollar sign")


AGENTS = {path.stem: load_agent(path) for path in sorted((PROMPTS_DIR / "agents").glob("*.md"))}
"""The specialists by name."""
CLASSIFIER = load_agent(PROMPTS_DIR / "classifier.md", name=ORCHESTRATOR)
"""The orchestrator. Its prompt is the classifier's; `$agents` stands for the list of specialists."""
check_template(PROMPTS_DIR / "classifier.md", CLASSIFIER.prompt, "agents")
SUMMARY_PROMPT = (PROMPTS_DIR / "summary.md").read_text(encoding="utf-8").strip()
"""The prompt that summarises a conversation; `$words` stands for the length."""
check_template(PROMPTS_DIR / "summary.md", SUMMARY_PROMPT, "words")
TITLE_PROMPT = (PROMPTS_DIR / "title.md").read_text(encoding="utf-8").strip()
"""The prompt that names a session after its first message."""


def select_team(multi_agent: bool) -> dict[str, Agent]:
    """Return the specialists that can be chosen: universal alone, or all the others.

    Raises ValueError if there are none.
    """
    team = {name: agent for name, agent in AGENTS.items() if (name == UNIVERSAL) != multi_agent}
    if not team:
        raise ValueError(f"{PROMPTS_DIR / 'agents'} has no agent for MULTI_AGENT_MODE={str(multi_agent).lower()}")
    return team


def display_name_of(name: str) -> str:
    """Return the display name of a specialist or of the orchestrator."""
    return (CLASSIFIER if name == ORCHESTRATOR else AGENTS[name]).display_name


def _validate_agent_name(name: str) -> str:
    if name != ORCHESTRATOR and name not in AGENTS:
        raise ValueError(f"there is no such agent; there are {', '.join([ORCHESTRATOR, *AGENTS])}")
    return name


AgentName = Annotated[
    str, AfterValidator(_validate_agent_name), WithJsonSchema({"type": "string", "enum": [ORCHESTRATOR, *AGENTS]})
]
"""A specialist or the orchestrator."""
