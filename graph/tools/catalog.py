"""The tools that a model can call. A class is a tool: the model reads its docstring and its fields, nothing else."""

from enum import Enum
from functools import cache
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, WithJsonSchema

from prompts import ORCHESTRATOR, Agent, select_team


class ToolExecutor(Enum):
    """The part that executes a call."""

    IDE = "ide"
    """The client."""
    LOCAL = "local"
    """The service."""
    CONTROL = "control"
    """The service. The call changes the course of the turn, so it is the only one in its message."""


class Tool(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)

    @classmethod
    def get_executor(cls) -> ToolExecutor:
        return ToolExecutor.IDE


class Local(Tool):
    @classmethod
    def get_executor(cls) -> ToolExecutor:
        return ToolExecutor.LOCAL


class Control(Tool):
    @classmethod
    def get_executor(cls) -> ToolExecutor:
        return ToolExecutor.CONTROL


class read_file(Tool):
    """Read a text file of the workspace, whole or some of its lines."""

    path: str = Field(description="Relative to the workspace.")
    encoding: str = "utf-8"
    start_line: int = Field(1, ge=1, description="First line, counted from 1.")
    end_line: int | None = Field(None, ge=1, description="Last line, included; absent: to the end.")


class write_file(Tool):
    """Create a file, or replace all of its content. The user is asked first."""

    path: str = Field(description="Relative to the workspace.")
    content: str = Field(description="The whole new content.")
    encoding: str = "utf-8"
    create_dirs: bool = Field(False, description="Create missing parent folders.")
    backup: bool = Field(True, description="Keep the old content beside the file.")


class list_files(Tool):
    """List the files and folders of a folder."""

    path: str = Field(".", description="Relative to the workspace.")
    recursive: bool = False
    include_hidden: bool = False
    pattern: str | None = Field(None, description="A glob the names must match, such as *.py.")


class create_directory(Tool):
    """Create a folder. The user is asked first."""

    path: str = Field(description="Relative to the workspace.")
    recursive: bool = Field(True, description="Create missing parents.")


class execute_command(Tool):
    """Run a command in the workspace. The user is asked first, unless the command is known to only read."""

    command: str = Field(min_length=1)
    cwd: str | None = Field(None, description="Relative to the workspace; absent: the workspace.")
    timeout: int = Field(60, ge=1, le=300, description="Seconds.")  # limit and default of the wire contract
    shell: bool = Field(False, description="Run it through a shell.")


class search_in_code(Tool):
    """Search the files of the workspace for a text or a regular expression."""

    query: str = Field(min_length=1)
    path: str = Field(".", description="Relative to the workspace.")
    file_pattern: str | None = Field(None, description="A glob the names must match, such as *.py.")
    case_sensitive: bool = False
    regex: bool = False
    max_results: int = Field(100, ge=1, le=1000)  # the limit of the wire contract


class echo(Local):
    """Repeat a text."""

    text: str


class calculator(Local):
    """Evaluate arithmetic: numbers, + - * / // % **, parentheses."""

    expr: str = Field(min_length=1, max_length=200)  # chosen, not measured: bounds the parser's work


def _validate_mode(name: str) -> str:
    if name not in MODES:
        raise ValueError(f"there is no mode {name[:40]!r}; there are {', '.join(MODES)}")
    return name


MODES = [ORCHESTRATOR, *select_team(multi_agent=True)]


class switch_mode(Control):
    """Hand the conversation to another agent, which goes on from here; orchestrator chooses one anew."""

    mode: Annotated[str, AfterValidator(_validate_mode), WithJsonSchema({"type": "string", "enum": MODES})]
    reason: str = Field("", description="Why, for the user and for the agent that takes over.")


def _require_text(text: str) -> str:
    if not text.strip():
        raise ValueError("it must have a text")
    return text


TextForUser = Annotated[str, Field(min_length=1), AfterValidator(_require_text)]
"""A text for the user."""


class attempt_completion(Control):
    """Say that the work is done. Ends the turn."""

    result: TextForUser = Field(description="What was done, for the user.")


class ask_followup_question(Control):
    """Ask the user what only the user can answer. Ends the turn; the next message is the answer."""

    question: TextForUser
    suggestions: list[str] = Field([], description="Answers to choose from.")


BASES = (Tool, Local, Control)
TOOLS: dict[str, type[Tool]] = {
    tool.__name__: tool for base in BASES for tool in base.__subclasses__() if tool not in BASES
}


SENT_DEFAULTS = {"list_files": ("path",)}
"""Arguments that an IDE requires although the model may leave them out."""

CONTINUE_TOOL = "continue_work"
"""The tool of the service's own question: its call needs an approval like any other. No model can call it."""
TURN_ENDING_TOOLS = {"attempt_completion", "ask_followup_question"}

MAX_NAME_CHARS = 64
"""Characters of an unknown name that the model reads again. OpenAI-compatible services allow no longer names."""
MAX_FAULTS = 5
"""Faults of one call that the model reads. Chosen, not measured: more of them would not help it."""


def validation_error(name: str, arguments: dict[str, Any]) -> str | None:
    """Return the faults of a call as a sentence for its model; None for a valid call."""
    if name not in TOOLS:
        return f"There is no tool {name[:MAX_NAME_CHARS]!r}. There are: {', '.join(TOOLS)}."
    try:
        TOOLS[name].model_validate({k: v for k, v in arguments.items() if v is not None})
    except ValidationError as error:
        faults = error.errors(include_url=False, include_input=False, include_context=False)[:MAX_FAULTS]
        texts = [f"{_format_location(fault['loc'])}: {fault['msg'].removeprefix('Value error, ')}" for fault in faults]
        fields = ", ".join(TOOLS[name].model_fields)
        return f"The arguments of {name} are not valid: {'; '.join(texts)}. Its arguments are: {fields}."
    return None


def complete_arguments(name: str, arguments: dict[str, Any]) -> dict[str, Any]:
    """Return the arguments with the defaults that an IDE requires, in place of those that are absent, null or empty."""
    defaults = {field: TOOLS[name].model_fields[field].default for field in SENT_DEFAULTS.get(name, ())}
    return {**arguments, **{field: value for field, value in defaults.items() if arguments.get(field) in (None, "")}}


def _format_location(location: tuple[int | str, ...]) -> str:
    return str(location[0] if location else "a name")[:MAX_NAME_CHARS]


def validate_agent(agent: Agent) -> None:
    """Raise ValueError if the agent's file names an unknown tool."""
    if unknown := set(agent.tools) - TOOLS.keys():
        fault = f"there is no tool {', '.join(sorted(unknown))}; there are {', '.join(TOOLS)}"
        raise ValueError(f"prompts/agents/{agent.name}.md: {fault}")


def executor_of(name: str) -> ToolExecutor:
    """Return the part that executes a valid call of the tool."""
    return ToolExecutor.LOCAL if name == CONTINUE_TOOL else TOOLS[name].get_executor()


@cache
def specification(name: str) -> dict[str, Any]:
    """Return the tool in the format of the OpenAI API."""
    schema = _simplify_schema(TOOLS[name].model_json_schema())
    function = {"name": name, "description": schema.pop("description"), "parameters": schema}
    return {"type": "function", "function": function}


def _simplify_schema(schema: dict[str, Any]) -> dict[str, Any]:
    fields = {name: _simplify_field(field) for name, field in schema["properties"].items()}
    return {k: v for k, v in schema.items() if k != "title"} | {"properties": fields}


def _simplify_field(field: dict[str, Any]) -> dict[str, Any]:
    """Return the field without its title. An optional field gets the schema of its value."""
    present: dict[str, Any] = next((kind for kind in field.get("anyOf", ()) if kind.get("type") != "null"), {})
    return present | {k: v for k, v in field.items() if k not in ("title", "anyOf") and v is not None}
