"""The chunks that a client receives: one closed union. Nulls are left out."""

from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    TypeAdapter,
)

from graph.errors import AgentRuntimeError
from graph.wire.messages import StreamOptions


class Outgoing(BaseModel):
    model_config = ConfigDict(extra="forbid")

    def to_json_line(self) -> str:
        """Return one line of ASCII JSON without nulls. Some clients break lines at U+2028 and the like."""
        return self.model_dump_json(exclude_none=True, ensure_ascii=True)


class AssistantMessage(Outgoing):
    """A text of the model. `content` is the whole text; `token` alone is its next piece, for clients that opted in."""

    type: Literal["assistant_message"] = "assistant_message"
    content: str | None = None
    token: str | None = None
    metadata: dict[str, Any] | None = None
    is_final: bool = False


class ToolCall(Outgoing):
    """A tool call for the IDE to execute. With `requires_approval` its user must approve it first."""

    type: Literal["tool_call"] = "tool_call"
    call_id: str
    tool_name: str
    arguments: dict[str, Any]
    requires_approval: bool = False
    metadata: dict[str, Any] | None = None
    is_final: bool = True


class AgentSwitched(Outgoing):
    """Another agent has the conversation now. The metadata hold from_agent, to_agent, reason and how it was chosen."""

    type: Literal["agent_switched"] = "agent_switched"
    content: str
    metadata: dict[str, Any] | None = None
    is_final: bool = False


class Error(Outgoing):
    """A failure or a refusal. The metadata hold a stable `code` and the subject."""

    type: Literal["error"] = "error"
    error: str
    metadata: dict[str, Any] | None = None
    is_final: bool = True


class Usage(Outgoing):
    """The usage of a run, for clients that opted in. Inside the service it is the usage of one model call."""

    type: Literal["usage"] = "usage"
    prompt_tokens: int = 0
    cached_tokens: int = 0
    """The prompt tokens that the model's service had cached."""
    completion_tokens: int = 0
    total_tokens: int = 0
    model_calls: int = 0
    cost: float | None = None
    """The cost of the calls whose model has a price, in `currency`."""
    currency: str | None = None
    unpriced_calls: int | None = None
    """The calls whose model has no price. Absent without any prices."""
    estimated_calls: int | None = None
    """The calls whose usage the model's service did not report."""
    metadata: dict[str, Any] | None = None
    is_final: bool = False


Chunk = Annotated[AssistantMessage | ToolCall | AgentSwitched | Error | Usage, Field(discriminator="type")]
"""A chunk that a client receives."""

CHUNK_ADAPTER: TypeAdapter[Chunk] = TypeAdapter(Chunk)


def error_chunk(error: AgentRuntimeError, **metadata: str) -> Error:
    return Error(error=str(error), metadata={"code": error.code, **metadata})


def assistant_chunk(
    text: str, options: StreamOptions, *, is_final: bool, metadata: dict[str, Any] | None = None
) -> AssistantMessage:
    """Return the chunk of a whole text. `token` repeats it for clients that did not get it in pieces."""
    token = None if options.tokens else text
    return AssistantMessage(content=text, token=token, is_final=is_final, metadata=metadata)
