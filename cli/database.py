"""Read the service's database, also while the service runs."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sqlalchemy import Connection, create_engine
from sqlalchemy.engine import make_url

from graph.settings import Settings


@contextmanager
def open_connection(settings: Settings) -> Iterator[Connection]:
    """Open a connection to the database that the settings name.

    Raises ValueError if an SQLite file does not exist: connecting would create it.
    """
    url = make_url(settings.db_url)
    driver = "sqlite" if url.get_backend_name() == "sqlite" else "postgresql+psycopg"
    if driver == "sqlite" and not Path(url.database or "").exists():
        raise ValueError(f"There is no database {url.database}.")
    engine = create_engine(url.set(drivername=driver), hide_parameters=True)
    try:
        with engine.connect() as connection:
            yield connection
    finally:
        engine.dispose()
