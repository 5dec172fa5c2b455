"""Add the classifications of requests, and the origin of a session's title.

Revision ID: 0003
"""

from alembic import op
from sqlalchemy import Column, Integer, String, Text

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    op.create_table(
        "routings",
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
    )
    op.create_index("routings_by_session", "routings", ["session_id", "created_at"])
    with op.batch_alter_table("sessions") as table:
        table.add_column(Column("titled_by", String(16), nullable=False, server_default="message"))
    op.execute("update sessions set titled_by = 'user' where title <> ''")
