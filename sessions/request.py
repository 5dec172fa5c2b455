"""A client's request: one message for one session."""

import hashlib
from dataclasses import dataclass

from sqlalchemy import RowMapping

from graph import wire


@dataclass(frozen=True)
class RunRequest:
    """A well-formed message for a session, with its options."""

    session_id: str
    message: wire.Message
    options: wire.StreamOptions
    idempotency_key: str | None = None
    busy: wire.MultitaskStrategy | None = None
    """The policy for a busy session; None: the setting decides."""

    @classmethod
    def from_row(cls, row: RowMapping) -> "RunRequest":
        """Return the request that the row of a run stores, without its key and policy."""
        options = wire.StreamOptions.model_validate(row["options"])
        return cls(row["session_id"], wire.parse_message(row["input"], wire.MESSAGE_ADAPTER), options)

    @property
    def key(self) -> str | None:
        """The key that a retry of the same message has; None: every sending is a new message."""
        if isinstance(self.message, wire.ToolResult | wire.HitlDecision):
            return f"{self.message.type}:{self.message.call_id}"
        key = self.idempotency_key or self.message.id
        return f"message:{key}" if key else None

    @property
    def body_hash(self) -> str:
        """SHA-256 of the message without what a retry may change."""
        body = self.message.model_dump_json(exclude={"stream", "busy", "tool_name", "id"})
        return hashlib.sha256(body.encode()).hexdigest()
