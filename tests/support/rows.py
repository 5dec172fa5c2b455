"""Rows of a session in the database of a running app."""

from fastapi import FastAPI
from sqlalchemy import Connection, MetaData, func, select


async def count_rows(app: FastAPI, session_id: str = "s-1") -> dict[str, int]:
    """Count the rows of a session by table, in the tables of LangGraph as well."""
    counts: dict[str, int] = await app.state.deps.database.transact(
        lambda connection: _count_rows_by_table(connection, session_id)
    )
    return counts


def _count_rows_by_table(connection: Connection, session_id: str) -> dict[str, int]:
    schema = MetaData()
    schema.reflect(connection)
    counts = {}
    for name, table in schema.tables.items():
        for column in ("session_id", "thread_id", "id" if name == "sessions" else ""):
            if column in table.columns:
                rows = select(func.count()).select_from(table).where(table.c[column] == session_id)
                counts[name] = connection.scalar(rows) or 0
    return counts
