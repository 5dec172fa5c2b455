"""The protocol: what enters and what leaves, as two closed unions.

The same models are the HTTP body, the graph's input, the value a pause shows, the value that resumes it, and the chunk
of the stream. Explicit nulls and unknown fields are ignored on the way in, nulls are left out on the way out.
"""

import json
import re
from typing import Annotated, Any, Literal, TypeVar

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    JsonValue,
    TypeAdapter,
    ValidationError,
    field_validator,
    model_validator,
)
from pydantic_core import ErrorDetails

from graph.errors import AgentRuntimeError, InvalidDecision, InvalidMessage
from prompts import AgentName

ID = "[A-Za-z0-9._-]{1,128}"
"""Of sessions, calls and messages."""
SessionId = Annotated[str, Field(pattern=f"^{ID}$", examples=["s-1"])]
CallId = Annotated[str, Field(pattern=f"^{ID}$", examples=["call_1"])]
MessageId = Annotated[str, Field(pattern=f"^{ID}$", description="Makes a retry of the same message safe.")]

TEXT_LIMIT = 200_000
"""Bytes of UTF-8 that a user writes in one piece."""


def _short_enough(text: str) -> str:
    if len(text.encode(errors="replace")) > TEXT_LIMIT:
        raise ValueError(f"it is longer than {TEXT_LIMIT} bytes")
    return text


UserText = Annotated[str, AfterValidator(_short_enough)]


class Incoming(BaseModel):
    model_config = ConfigDict(extra="ignore", frozen=True, use_attribute_docstrings=True)

    @model_validator(mode="before")
    @classmethod
    def _without_nulls(cls, data: Any) -> Any:
        return {k: v for k, v in data.items() if v is not None} if isinstance(data, dict) else data


class StreamOptions(Incoming):
    """What a client opts in to; the default is what today's IDE understands."""

    tokens: bool = False
    """Send the model's words as they come."""
    parallel_tools: bool = False
    """Send several tool calls of one model message at once."""
    usage: bool = False
    """Send a usage chunk before the final one."""


Busy = Annotated[
    Literal["enqueue", "reject", "interrupt"],
    Field(
        description="What the message does if its session is at work: it waits its turn, it is refused, or the run is "
        "stopped first (for results and decisions: they wait). Absent: what the service's settings say."
    ),
]


class Sent(Incoming):
    """What every message of a client may hold."""

    stream: StreamOptions = StreamOptions()
    busy: Busy | None = None


class UserMessage(Sent):
    """What the user typed. Its role is ignored: it is the user's."""

    type: Literal["user_message"] = "user_message"
    content: UserText = Field(min_length=1, examples=["Read README.md"])
    id: MessageId | None = None

    @field_validator("content")
    @classmethod
    def _says_something(cls, content: str) -> str:
        if not content.strip():
            raise ValueError("content is empty")
        return content


class SwitchAgent(Sent):
    """The user picked an agent; with content, that agent answers it."""

    type: Literal["switch_agent"] = "switch_agent"
    agent_type: AgentName
    content: UserText = ""
    reason: UserText = ""
    id: MessageId | None = None


class ToolResult(Sent):
    """The IDE ran a tool, or failed to, or its user refused it."""

    type: Literal["tool_result"] = "tool_result"
    call_id: CallId
    tool_name: str = ""
    result: JsonValue = None
    error: str | None = None

    @field_validator("error", mode="before")
    @classmethod
    def _as_text(cls, error: Any) -> str | None:
        """Clients that send every field send an empty one for none."""
        return error if isinstance(error, str) and error else json.dumps(error, ensure_ascii=False) if error else None

    @property
    def refused(self) -> bool:
        """Whether the IDE's user said no, in the words the shipped IDE uses."""
        error = self.error or ""
        return error.startswith("User rejected") or "rejected by user" in error or "Операция отклонена" in error


class Remember(Incoming):
    """Let calls like the approved one pass without asking: until the user's next message, or in the whole session."""

    scope: Literal["turn", "session"]
    pattern: str | None = Field(
        None, min_length=1, max_length=4096, description="Absent: the narrowest, as the call's metadata proposes it."
    )
    uses: int | None = Field(None, ge=1, le=10_000, description="How many calls it is good for.")
    minutes: float | None = Field(None, gt=0, le=525_600, description="How long it is good.")


class HitlDecision(Sent):
    """The user decided on a call that needs approval."""

    type: Literal["hitl_decision"] = "hitl_decision"
    call_id: CallId
    decision: Literal["approve", "edit", "reject"]
    modified_arguments: dict[str, JsonValue] = Field(
        {}, description="For edit: the arguments to replace; the others stay."
    )
    feedback: UserText = ""
    remember: Remember | None = None

    @model_validator(mode="after")
    def _remembers_an_approval(self) -> "HitlDecision":
        if self.remember and self.decision == "reject":
            raise ValueError("only an approval can be remembered")
        return self

    @model_validator(mode="after")
    def _edits_something(self) -> "HitlDecision":
        if self.decision == "edit" and not self.modified_arguments:
            raise ValueError("an edit needs modified_arguments")
        return self


Message = Annotated[UserMessage | SwitchAgent | ToolResult | HitlDecision, Field(discriminator="type")]
"""What a client sends."""
Start = Annotated[UserMessage | SwitchAgent, Field(discriminator="type")]
"""What starts a turn."""
Answer = Annotated[ToolResult | HitlDecision, Field(discriminator="type")]
"""What continues a paused one."""


class StreamRequest(Incoming):
    """The body of `POST /agent/message/stream`."""

    session_id: SessionId
    message: Message
    stream: StreamOptions = StreamOptions()
    busy: Busy | None = None


class Outgoing(BaseModel):
    model_config = ConfigDict(extra="forbid")

    def encoded(self) -> str:
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

MESSAGE: TypeAdapter[Message] = TypeAdapter(Message)
START: TypeAdapter[Start] = TypeAdapter(Start)
ANSWER: TypeAdapter[Answer] = TypeAdapter(Answer)
CHUNK: TypeAdapter[Chunk] = TypeAdapter(Chunk)

T = TypeVar("T")


def parse(data: Any, adapter: TypeAdapter[T]) -> T:
    """Raises InvalidMessage or InvalidDecision, whose sentence says what to change and repeats nothing of the input."""
    try:
        return adapter.validate_python(data)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        kind, field = (*first["loc"][:2], "", "")[:2]
        decision = kind == "hitl_decision" and field != "call_id"
        raise (InvalidDecision if decision else InvalidMessage)(_what_is_wrong(first)) from None


def _what_is_wrong(fault: ErrorDetails) -> str:
    if fault["type"] == "union_tag_invalid":
        return f"The message's type does not fit here; send {fault['ctx']['expected_tags'].replace(chr(39), '')}."
    if fault["type"] == "union_tag_not_found":
        return "The message has no type; send user_message, switch_agent, tool_result or hitl_decision."
    where = ".".join(str(part) for part in fault["loc"] if part in _FIELDS)
    said = fault["msg"].removeprefix("Value error, ")
    return f"The message is not valid: {where}: {said}." if where else f"The message is not valid: {said}."


_FIELDS = {
    name
    for model in (UserMessage, SwitchAgent, ToolResult, HitlDecision, Remember, StreamOptions)
    for name in model.model_fields
}
"""What else stands in the place of a fault is a key that the client chose."""


def checked_key(key: str) -> str | None:
    """An `Idempotency-Key`; None for none. Raises InvalidMessage."""
    if key and not re.fullmatch(ID, key):
        raise InvalidMessage(f"The message is not valid: Idempotency-Key should match {ID}.")
    return key or None


def failure(error: AgentRuntimeError, **about: str) -> Error:
    return Error(error=str(error), metadata={"code": error.code, **about})


def whole_text(
    text: str, options: StreamOptions, *, is_final: bool, metadata: dict[str, Any] | None = None
) -> AssistantMessage:
    """A whole text; `token` repeats it for clients that did not get it in pieces."""
    token = None if options.tokens else text
    return AssistantMessage(content=text, token=token, is_final=is_final, metadata=metadata)
