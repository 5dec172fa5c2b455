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
        """One line of ASCII JSON without nulls."""
        return self.model_dump_json(exclude_none=True, ensure_ascii=True)


class AssistantMessage(Outgoing):
    """A whole text of the model (`content`), or, for clients that opted in, the next piece of it (`token` alone)."""

    type: Literal["assistant_message"] = "assistant_message"
    content: str | None = None
    token: str | None = None
    metadata: dict[str, Any] | None = None
    is_final: bool = False


class ToolCall(Outgoing):
    """A tool for the IDE to run; with `requires_approval` its user has to agree first."""

    type: Literal["tool_call"] = "tool_call"
    call_id: str
    tool_name: str
    arguments: dict[str, Any]
    requires_approval: bool = False
    metadata: dict[str, Any] | None = None
    is_final: bool = True


class AgentSwitched(Outgoing):
    """Another agent holds the conversation now; metadata: from_agent, to_agent, reason, and how it was chosen."""

    type: Literal["agent_switched"] = "agent_switched"
    content: str
    metadata: dict[str, Any] | None = None
    is_final: bool = False


class Error(Outgoing):
    """Something failed or was refused; metadata: a stable `code`, and what it is about."""

    type: Literal["error"] = "error"
    error: str
    metadata: dict[str, Any] | None = None
    is_final: bool = True


class Usage(Outgoing):
    """The tokens of a run, for clients that opted in. Within the service: those of one model call."""

    type: Literal["usage"] = "usage"
    prompt_tokens: int = 0
    cached_tokens: int = 0
    """Those of the prompt that the model's service had at hand."""
    completion_tokens: int = 0
    total_tokens: int = 0
    model_calls: int = 0
    cost: float | None = None
    """Of the calls whose model has a price, in `currency`."""
    currency: str | None = None
    unpriced_calls: int | None = None
    """The others, if there are prices."""
    estimated_calls: int | None = None
    """Those of which the model's service did not say what they used."""
    metadata: dict[str, Any] | None = None
    is_final: bool = False


Chunk = Annotated[AssistantMessage | ToolCall | AgentSwitched | Error | Usage, Field(discriminator="type")]
"""What a client receives."""

CHUNK_ADAPTER: TypeAdapter[Chunk] = TypeAdapter(Chunk)


def error_chunk(error: AgentRuntimeError, **metadata: str) -> Error:
    return Error(error=str(error), metadata={"code": error.code, **metadata})


def assistant_chunk(
    text: str, options: StreamOptions, *, is_final: bool, metadata: dict[str, Any] | None = None
) -> AssistantMessage:
    """A whole text; `token` repeats it for clients that did not get it in pieces."""
    token = None if options.tokens else text
    return AssistantMessage(content=text, token=token, is_final=is_final, metadata=metadata)
