"""Let many processes share a database: leases of sessions, numbered runs, and a table of calls.

Revision ID: 0002
"""

from alembic import op
from sqlalchemy import JSON, BigInteger, Column, Float, Integer, String, text

revision = "0002"
down_revision = "0001"

NUMBER_RUNS = """
    update runs set number = (
        select place from (
            select id, row_number() over (partition by session_id order by created_at, id) as place from runs
        ) as numbered
        where numbered.id = runs.id
    )
"""


def upgrade() -> None:
    _lease_sessions()
    _number_runs()
    _make_calls()


def _lease_sessions() -> None:
    with op.batch_alter_table("sessions") as table:
        table.add_column(Column("owner", String(64)))
        table.add_column(Column("epoch", BigInteger, nullable=False, server_default="0"))
        table.add_column(Column("lease_until", Float))
        table.add_column(Column("head", String(64)))
        table.add_column(Column("unpruned", Integer, nullable=False, server_default="0"))
        table.add_column(Column("usage", JSON))
        table.create_index("sessions_by_owner", ["owner"])


def _number_runs() -> None:
    with op.batch_alter_table("runs") as table:
        table.add_column(Column("number", BigInteger))
        table.add_column(Column("epoch", BigInteger, nullable=False, server_default="0"))
        table.add_column(Column("losses", Integer, nullable=False, server_default="0"))
        table.add_column(Column("wanted", String(16)))
        table.add_column(Column("usage", JSON))
        table.add_column(Column("finished_at", String(40)))
    op.execute(NUMBER_RUNS)
    op.execute("update runs set finished_at = created_at where status = 'done'")
    op.drop_index("runs_by_session", "runs")
    op.drop_index("runs_by_status", "runs")
    with op.batch_alter_table("runs") as table:
        table.alter_column("number", nullable=False)
        table.create_unique_constraint("runs_session_id_number_key", ["session_id", "number"])
    unfinished = text("status <> 'done'")
    op.create_index(
        "runs_unfinished", "runs", ["session_id", "number"], postgresql_where=unfinished, sqlite_where=unfinished
    )


def _make_calls() -> None:
    op.create_table(
        "calls",
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
    )
    op.create_index("calls_by_status", "calls", ["status", "sent_at"])
