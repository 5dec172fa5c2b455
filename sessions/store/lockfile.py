"""One process for one SQLite file: who else wants it waits for nothing and is told."""

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def lock_file(path: Path) -> Iterator[None]:
    """Raises RuntimeError if another process holds it."""
    with path.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise RuntimeError(f"Another process serves the database (it holds {path.name}); stop it first.") from None
        yield
