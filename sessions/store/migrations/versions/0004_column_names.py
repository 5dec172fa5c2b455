"""Rename nine columns to the standard terms of docs/glossary.md; values, indexes and constraints stay.

A process of an earlier version cannot work beside this schema. Its statements name the old columns, and fail. If it
starts later, it is refused (`SchemaTooNew`). So a rolling upgrade has to stop every replica of the earlier version
before the first one of this version starts.

Indexes and constraints keep their names, also those that contain the old name of a column.

Revision ID: 0004
"""

from alembic import op

revision = "0004"
down_revision = "0003"

RENAMED_COLUMNS = {
    "runs": {
        "losses": "recovery_attempts",
        "wanted": "stop_requested",
        "key": "idempotency_key",
        "epoch": "lease_epoch",
    },
    "sessions": {
        "unpruned": "runs_since_prune",
        "head": "checkpoint_id",
        "owner": "lease_owner",
        "epoch": "lease_epoch",
        "lease_until": "lease_expires_at",
    },
}


def upgrade() -> None:
    """Rename the columns in place: neither database copies a table, or builds an index again, for that."""
    for table, columns in RENAMED_COLUMNS.items():
        for old, new in columns.items():
            op.alter_column(table, old, new_column_name=new)
