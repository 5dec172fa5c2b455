"""Add the hash of the arguments to grants; it is null in the grants that exist.

Those cover no call that names a path with a warning any more: the user is asked.

Revision ID: 0005
"""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"


def upgrade() -> None:
    op.add_column("grants", sa.Column("arguments_hash", sa.String(64)))
