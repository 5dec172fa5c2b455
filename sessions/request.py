"""What a client asks of a session."""

import hashlib
from dataclasses import dataclass

from sqlalchemy import RowMapping

from graph import wire


@dataclass(frozen=True)
class RunRequest:
    """A well-formed message for a session."""

    session_id: str
    message: wire.Message
    options: wire.StreamOptions
    idempotency_key: str | None = None
    busy: wire.MultitaskStrategy | None = None
    """What it does if the session is at work; None: what the settings say."""

    @classmethod
    def from_row(cls, row: RowMapping) -> "RunRequest":
        """As it was taken in."""
        options = wire.StreamOptions.model_validate(row["options"])
        return cls(row["session_id"], wire.parse_message(row["input"], wire.MESSAGE_ADAPTER), options)

    @property
    def key(self) -> str | None:
        """Under what a retry of it is known."""
        if isinstance(self.message, wire.ToolResult | wire.HitlDecision):
            return f"{self.message.type}:{self.message.call_id}"
        given = self.idempotency_key or self.message.id
        return f"message:{given}" if given else None

    @property
    def body_hash(self) -> str:
        body = self.message.model_dump_json(exclude={"stream", "busy", "tool_name", "id"})
        return hashlib.sha256(body.encode()).hexdigest()
