"""The tables, and how they are opened. Timestamps are ISO 8601 text in UTC, so that they sort on every database."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from sqlalchemy import JSON, Column, Index, Integer, MetaData, String, Table, Text, UniqueConstraint, event
from sqlalchemy.engine import URL, make_url
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine
from sqlalchemy.pool import AsyncAdaptedQueuePool

from sessions.owner import sole_owner

metadata = MetaData()

sessions = Table(
    "sessions",
    metadata,
    Column("id", String(128), primary_key=True),
    Column("title", Text, nullable=False, default=""),
    Column("description", Text, nullable=False, default=""),
    Column("agent", String(64), nullable=False),
    Column("message_count", Integer, nullable=False, default=0),
    Column("pause", JSON(none_as_null=True)),
    Column("created_at", String(40), nullable=False),
    Column("last_activity", String(40), nullable=False),
    Column("deleted_at", String(40)),
    Index("sessions_by_activity", "deleted_at", "last_activity"),
)

runs = Table(
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


@asynccontextmanager
async def open_database(url: str) -> AsyncIterator[AsyncEngine]:
    """The tables are there when it opens; a second process on the same database is refused with RuntimeError."""
    engine = _engine(make_url(url))
    try:
        async with sole_owner(engine):
            async with engine.begin() as connection:
                await connection.run_sync(metadata.create_all)
            yield engine
    finally:
        await engine.dispose()


def _engine(url: URL) -> AsyncEngine:
    if url.get_backend_name() != "sqlite":
        return create_async_engine(url.set(drivername="postgresql+psycopg"), pool_pre_ping=True)
    Path(url.database or "").parent.mkdir(parents=True, exist_ok=True)
    engine = create_async_engine(
        url.set(drivername="sqlite+aiosqlite"), poolclass=AsyncAdaptedQueuePool, pool_size=1, max_overflow=0
    )  # one writer: SQLite would make the others sleep
    event.listen(engine.sync_engine, "connect", _tune)
    return engine


def _tune(connection: Any, _: Any) -> None:
    cursor = connection.cursor()
    for pragma in ("journal_mode=WAL", "synchronous=NORMAL", "busy_timeout=10000"):
        cursor.execute(f"PRAGMA {pragma}")
    cursor.close()
