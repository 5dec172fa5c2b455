"""The tables. Timestamps are ISO 8601 text in UTC, so that they sort on every database."""

from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    Column,
    Float,
    Index,
    Integer,
    MetaData,
    String,
    Table,
    Text,
    UniqueConstraint,
    text,
)

metadata = MetaData()
UNFINISHED = text("status <> 'done'")
"""As text: an index on some of the rows is used only by a statement that names the same condition."""

sessions = Table(
    "sessions",
    metadata,
    Column("id", String(128), primary_key=True),
    Column("title", Text, nullable=False, default=""),
    Column("title_folded", Text, nullable=False, default=""),
    Column("titled_by", String(16), nullable=False, default="message", server_default="message"),
    Column("description", Text, nullable=False, default=""),
    Column("agent", String(64), nullable=False),
    Column("message_count", Integer, nullable=False, default=0),
    Column("pause", JSON(none_as_null=True)),
    Column("created_at", String(40), nullable=False),
    Column("last_activity", String(40), nullable=False),
    Column("deleted_at", String(40)),
    Column("lease_owner", String(64)),
    Column("lease_epoch", BigInteger, nullable=False, default=0, server_default="0"),
    Column("lease_expires_at", Float),
    Column("checkpoint_id", String(64)),
    Column("runs_since_prune", Integer, nullable=False, default=0, server_default="0"),
    Column("usage", JSON(none_as_null=True)),
    Index("sessions_by_activity", "deleted_at", "last_activity"),
    Index("sessions_by_owner", "lease_owner"),
)

runs = Table(
    "runs",
    metadata,
    Column("id", String(40), primary_key=True),
    Column("session_id", String(128), nullable=False),
    Column("idempotency_key", String(400)),
    Column("body_hash", String(64), nullable=False),
    Column("input", JSON, nullable=False),
    Column("options", JSON, nullable=False),
    Column("pause", JSON(none_as_null=True)),
    Column("status", String(16), nullable=False),
    Column("attempts", Integer, nullable=False, default=1),
    Column("events", JSON(none_as_null=True)),
    Column("created_at", String(40), nullable=False),
    Column("number", BigInteger, nullable=False),
    Column("lease_epoch", BigInteger, nullable=False, default=0, server_default="0"),
    Column("recovery_attempts", Integer, nullable=False, default=0, server_default="0"),
    Column("stop_requested", String(16)),
    Column("usage", JSON(none_as_null=True)),
    Column("finished_at", String(40)),
    UniqueConstraint("session_id", "idempotency_key"),
    UniqueConstraint("session_id", "number"),
    Index("runs_unfinished", "session_id", "number", postgresql_where=UNFINISHED, sqlite_where=UNFINISHED),
)

audit_log = Table(
    "audit_log",
    metadata,
    Column("session_id", String(128), primary_key=True),
    Column("seq", Integer, primary_key=True),
    Column("timestamp", String(40), nullable=False),
    Column("call_id", String(256), nullable=False),
    Column("tool_name", String(64), nullable=False),
    Column("agent", String(64), nullable=False),
    Column("original_arguments", JSON, nullable=False),
    Column("decision", String(16), nullable=False),
    Column("modified_arguments", JSON(none_as_null=True)),
    Column("feedback", Text),
    Column("decided_by", String(16), nullable=False),
    Column("rule", String(64), nullable=False),
    Column("hash", String(64), nullable=False),
)

audit_results = Table(
    "audit_results",
    metadata,
    Column("session_id", String(128), primary_key=True),
    Column("number", Integer, primary_key=True),
    Column("seq", Integer, nullable=False),
    Column("timestamp", String(40), nullable=False),
    Column("result_hash", String(64), nullable=False),
    Column("hash", String(64), nullable=False),
)
"""What came of the calls that the audit let pass: a chain of its own, so that no entry is ever changed."""

grants = Table(
    "grants",
    metadata,
    Column("id", String(40), primary_key=True),
    Column("session_id", String(128), nullable=False),
    Column("call_id", String(256), nullable=False),
    Column("agent", String(64), nullable=False),
    Column("tool_name", String(64), nullable=False),
    Column("pattern", Text, nullable=False),
    Column("is_exact", Boolean, nullable=False),
    Column("cwd", Text),
    Column("shell", Boolean, nullable=False),
    Column("scope", String(16), nullable=False),
    Column("uses_left", Integer),
    Column("expires_at", String(40)),
    Column("created_at", String(40), nullable=False),
    Column("ended_at", String(40)),
    Index("grants_by_session", "session_id", "ended_at"),
)

calls = Table(
    "calls",
    metadata,
    Column("session_id", String(128), primary_key=True),
    Column("call_id", String(128), primary_key=True),
    Column("tool_name", String(64), nullable=False),
    Column("agent", String(64), nullable=False),
    Column("arguments", JSON, nullable=False),
    Column("rule", String(64), nullable=False),
    Column("status", String(16), nullable=False),
    Column("proposed_at", String(40), nullable=False),
    Column("decision", String(16)),
    Column("decided_by", String(16)),
    Column("decided_at", String(40)),
    Column("sent_at", String(40)),
    Column("answered_at", String(40)),
    Index("calls_by_status", "status", "sent_at"),
)

routings = Table(
    "routings",
    metadata,
    Column("run_id", String(40), primary_key=True),
    Column("number", Integer, primary_key=True),
    Column("session_id", String(128), nullable=False),
    Column("text", Text, nullable=False),
    Column("agent", String(64), nullable=False),
    Column("confidence", String(16), nullable=False),
    Column("method", String(16), nullable=False),
    Column("expected", String(64), nullable=False),
    Column("override", String(64)),
    Column("created_at", String(40), nullable=False),
    Index("routings_by_session", "session_id", "created_at"),
)
"""Each classification of a request: `expected` is what its words alone say, `override` whom the user chose instead."""
