"""The messages that a client sends: one closed union. Explicit nulls and unknown fields are ignored."""

import json
from typing import Annotated, Any, Generic, Literal, TypeVar

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    JsonValue,
    TypeAdapter,
    ValidationInfo,
    field_validator,
    model_validator,
)

from policy.grants import MAX_PATTERN_LENGTH
from prompts import AgentName, display_name_of

ID_PATTERN = "[A-Za-z0-9._-]{1,128}"
"""The ids of sessions, calls and messages: safe in URLs, logs and file names. 128 characters hold a few UUIDs."""

SessionId = Annotated[str, Field(pattern=f"^{ID_PATTERN}$", examples=["s-1"])]

CallId = Annotated[str, Field(pattern=f"^{ID_PATTERN}$", examples=["call_1"])]

MessageId = Annotated[str, Field(pattern=f"^{ID_PATTERN}$", description="Makes a retry of the same message safe.")]

TEXT_LIMIT = 200_000
"""Bytes of UTF-8 of one text of a user. A longer text belongs in a file; at three bytes a token it is 67,000 tokens."""


def _check_length(text: str) -> str:
    if len(text.encode(errors="replace")) > TEXT_LIMIT:
        raise ValueError(f"it is longer than {TEXT_LIMIT} bytes")
    return text


UserText = Annotated[str, AfterValidator(_check_length)]


class Incoming(BaseModel):
    model_config = ConfigDict(extra="ignore", frozen=True, use_attribute_docstrings=True)

    @model_validator(mode="before")
    @classmethod
    def _drop_nulls(cls, data: Any) -> Any:
        return {k: v for k, v in data.items() if v is not None} if isinstance(data, dict) else data


class StreamOptions(Incoming):
    """The options of a client. The defaults are all that the shipped IDE understands."""

    tokens: bool = False
    """Send the model's text in pieces, as it comes."""
    parallel_tools: bool = False
    """Send several tool calls of one model message at once."""
    usage: bool = False
    """Send a usage chunk before the final one."""


MultitaskStrategy = Annotated[
    Literal["enqueue", "reject", "interrupt"],
    Field(
        description="The effect of the message on a busy session: it waits, it is refused, or it stops the run "
        "(results and decisions wait instead). Absent: the service's own setting."
    ),
]


class ClientMessage(Incoming):
    """The fields that every message of a client may have."""

    stream: StreamOptions = StreamOptions()
    busy: MultitaskStrategy | None = None


class UserMessage(ClientMessage):
    """The text that the user typed. Its `role` is ignored: it is always the user's."""

    type: Literal["user_message"] = "user_message"
    content: UserText = Field(min_length=1, examples=["Read README.md"])
    id: MessageId | None = None

    @field_validator("content")
    @classmethod
    def _require_content(cls, content: str) -> str:
        if not content.strip():
            raise ValueError("content is empty")
        return content


class SwitchAgent(ClientMessage):
    """The user chose an agent. With content, that agent answers it."""

    type: Literal["switch_agent"] = "switch_agent"
    agent_type: AgentName
    content: UserText = ""
    reason: UserText = ""
    id: MessageId | None = None

    @field_validator("content")
    @classmethod
    def _drop_menu_text(cls, content: str, info: ValidationInfo) -> str:
        """Return the user's own words. The agent menu of the shipped IDE sends a text with every choice."""
        agent = info.data.get("agent_type")
        return "" if agent and content == f"Switched to {display_name_of(agent)}" else content


class ToolResult(ClientMessage):
    """The IDE executed a tool, or failed to, or its user rejected the call."""

    type: Literal["tool_result"] = "tool_result"
    call_id: CallId
    tool_name: str = ""
    result: JsonValue = None
    """What the tool returned. For a call that needs approval it says that the user agreed."""
    error: str | None = None
    """The tool was not run, or failed. This approves nothing: a call that needs approval is audited as failed, or as
    rejected if the text is one of the IDE's for that."""

    @field_validator("error", mode="before")
    @classmethod
    def _normalize_error(cls, error: Any) -> str | None:
        """Return the error as text. An empty one means None: some clients always send the field."""
        return error if isinstance(error, str) and error else json.dumps(error, ensure_ascii=False) if error else None

    @property
    def is_rejected(self) -> bool:
        """Return whether the IDE's user rejected the call. The shipped IDE says so in one of these texts.

        An error of its own validation is none: it comes before the user is asked, and may quote anything.
        """
        error = self.error or ""
        if error.startswith("Ошибка валидации"):
            return False
        return error.startswith("User rejected") or "rejected by user" in error or "Операция отклонена" in error

    @property
    def implied_decision(self) -> Literal["approve", "reject", "failed"]:
        """Return the decision on a call that needed approval: its client has asked the user, or failed before that."""
        if self.is_rejected:
            return "reject"
        return "approve" if self.error is None else "failed"


class Remember(Incoming):
    """Auto-approve calls like the approved one: until the user's next message, or in the whole session."""

    scope: Literal["turn", "session"]
    pattern: str | None = Field(
        None,
        min_length=1,
        max_length=MAX_PATTERN_LENGTH,
        description="Absent: the narrowest one, from the call's metadata.",
    )
    # 10,000 calls and a year are far beyond any use; they keep the numbers sane.
    uses: int | None = Field(None, ge=1, le=10_000, description="The number of calls that it approves.")
    minutes: float | None = Field(None, gt=0, le=525_600, description="The time for which it approves calls.")


class HitlDecision(ClientMessage):
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
    def _require_approval(self) -> "HitlDecision":
        if self.remember and self.decision == "reject":
            raise ValueError("only an approval can be remembered")
        return self

    @model_validator(mode="after")
    def _require_edit_arguments(self) -> "HitlDecision":
        if self.decision == "edit" and not self.modified_arguments:
            raise ValueError("an edit needs modified_arguments")
        return self


Message = Annotated[UserMessage | SwitchAgent | ToolResult | HitlDecision, Field(discriminator="type")]
"""A message of a client."""

Start = Annotated[UserMessage | SwitchAgent, Field(discriminator="type")]
"""A message that starts a turn."""

Answer = Annotated[ToolResult | HitlDecision, Field(discriminator="type")]
"""A message that continues a paused turn."""


MessageT = TypeVar("MessageT")


class Envelope(Incoming, Generic[MessageT]):
    """A session and a message for it. A fault of the message can be sent as a chunk if the rest is valid."""

    session_id: SessionId
    message: MessageT
    stream: StreamOptions = StreamOptions()
    busy: MultitaskStrategy | None = None


class StreamRequest(Envelope[Message]):
    """The body of `POST /agent/message/stream`."""


MESSAGE_ADAPTER: TypeAdapter[Message] = TypeAdapter(Message)

START_ADAPTER: TypeAdapter[Start] = TypeAdapter(Start)

ANSWER_ADAPTER: TypeAdapter[Answer] = TypeAdapter(Answer)
