"""The tables of any earlier version, brought forward: a step is a file in `versions/`; they lead to `tables.py`."""

from pathlib import Path

from sqlalchemy import Connection

FOLDER = Path(__file__).parent


class SchemaTooNew(RuntimeError):
    def __init__(self, found: str) -> None:
        super().__init__(
            f"The database was made by a newer version of the service (schema {found}), which this one does not know; "
            "start that version or a later one."
        )


def migrate(connection: Connection) -> None:
    """In the caller's transaction, all of it or nothing. Raises SchemaTooNew."""
    from alembic import command
    from alembic.config import Config

    refuse_newer(connection)
    config = Config()
    config.set_main_option("script_location", str(FOLDER).replace("%", "%%"))
    config.attributes["connection"] = connection
    command.upgrade(config, "head")


def refuse_newer(connection: Connection) -> None:
    """Raises SchemaTooNew; changes nothing."""
    from alembic.migration import MigrationContext
    from alembic.script import ScriptDirectory

    known = {script.revision for script in ScriptDirectory(str(FOLDER)).walk_revisions()}
    for found in MigrationContext.configure(connection).get_current_heads():
        if found not in known:
            raise SchemaTooNew(found)
