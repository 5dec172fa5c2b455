"""Bring the tables of any earlier version up to date.

Each file in `versions/` is a step. After the last one the tables are those of `tables.py`.
"""

from pathlib import Path

from sqlalchemy import Connection

FOLDER = Path(__file__).parent


class SchemaTooNew(RuntimeError):
    """The database has a schema of a later version of the service."""

    def __init__(self, found: str) -> None:
        super().__init__(
            f"The database was made by a newer version of the service (schema {found}), which this one does not know; "
            "start that version or a later one."
        )


def migrate(connection: Connection) -> None:
    """Execute the missing steps in the caller's transaction, all or nothing. Raises SchemaTooNew."""
    from alembic import command
    from alembic.config import Config

    refuse_newer(connection)
    config = Config()
    config.set_main_option("script_location", str(FOLDER).replace("%", "%%"))
    config.attributes["connection"] = connection
    command.upgrade(config, "head")


def refuse_newer(connection: Connection) -> None:
    """Raise SchemaTooNew if a later version made the database. Nothing is changed."""
    from alembic.migration import MigrationContext
    from alembic.script import ScriptDirectory

    known = {script.revision for script in ScriptDirectory(str(FOLDER)).walk_revisions()}
    for found in MigrationContext.configure(connection).get_current_heads():
        if found not in known:
            raise SchemaTooNew(found)
