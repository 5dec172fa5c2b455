"""Create the tables of the time before migrations, where they are missing.

Revision ID: 0001
"""

from alembic import op
from sqlalchemy import JSON, Boolean, Column, Index, Integer, MetaData, String, Table, Text, UniqueConstraint

revision = "0001"
down_revision = None

metadata = MetaData()

Table(
    "sessions",
    metadata,
    Column("id", String(128), primary_key=True),
    Column("title", Text, nullable=False, default=""),
    Column("title_folded", Text, nullable=False, default=""),
    Column("description", Text, nullable=False, default=""),
    Column("agent", String(64), nullable=False),
    Column("message_count", Integer, nullable=False, default=0),
    Column("pause", JSON(none_as_null=True)),
    Column("created_at", String(40), nullable=False),
    Column("last_activity", String(40), nullable=False),
    Column("deleted_at", String(40)),
    Index("sessions_by_activity", "deleted_at", "last_activity"),
)

Table(
    "runs",
    metadata,
    Column("id", String(40), primary_key=True),
    Column("session_id", String(128), nullable=False),
    Column("key", String(400)),
    Column("body_hash", String(64), nullable=False),
    Column("input", JSON, nullable=False),
    Column("options", JSON, nullable=False),
    Column("pause", JSON(none_as_null=True)),
    Column("status", String(16), nullable=False),
    Column("attempts", Integer, nullable=False, default=1),
    Column("events", JSON(none_as_null=True)),
    Column("created_at", String(40), nullable=False),
    UniqueConstraint("session_id", "key"),
    Index("runs_by_status", "status"),
    Index("runs_by_session", "session_id", "created_at"),
)

Table(
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

Table(
    "audit_results",
    metadata,
    Column("session_id", String(128), primary_key=True),
    Column("number", Integer, primary_key=True),
    Column("seq", Integer, nullable=False),
    Column("timestamp", String(40), nullable=False),
    Column("result_hash", String(64), nullable=False),
    Column("hash", String(64), nullable=False),
)

Table(
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


def upgrade() -> None:
    metadata.create_all(op.get_bind())
