"""The lock that gives an SQLite file to one process."""

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def lock_file(path: Path) -> Iterator[None]:
    """Hold the lock of `path` while the block runs. Raises RuntimeError at once if another process has it."""
    with path.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise RuntimeError(f"Another process serves the database (it holds {path.name}); stop it first.") from None
        yield
