"""SQLite files that have their tables: creating these takes a third of the time in which a service starts."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from tempfile import TemporaryDirectory

from graph.checkpoint.factory import open_checkpointer
from graph.settings import Settings
from sessions.store.database import open_database

_prepared: list[bytes] = []
"""The bytes of a file with all tables and no rows, once one was made."""


async def create_sqlite_file(settings: Settings) -> None:
    """Create the settings' SQLite file, with its tables. An existing file and a Postgres stay as they are."""
    path = Path(settings.db_url.removeprefix("sqlite:///"))
    if not settings.db_url.startswith("sqlite:///") or path.exists():  # noqa: ASYNC240  # a local file of the test
        return
    if not _prepared:
        with TemporaryDirectory(prefix="agent-runtime-") as folder:
            file = Path(folder, "prepared.db")
            await _prepare_database(settings.model_copy(update={"db_url": f"sqlite:///{file}"}))
            _prepared.append(file.read_bytes())  # noqa: ASYNC240
    path.write_bytes(_prepared[0])  # noqa: ASYNC240


async def _prepare_database(settings: Settings) -> None:
    with ThreadPoolExecutor(1, "sqlite") as thread:
        async with open_database(settings, thread) as database, open_checkpointer(settings, thread) as checkpointer:
            await database.prepare(checkpointer.prepare)
