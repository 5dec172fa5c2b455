"""A file with a line of JSON for each step, which is on the disk before the next step begins."""

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from io import FileIO
from pathlib import Path
from time import time
from typing import Any

LedgerEntry = dict[str, Any]


class Ledger:
    def __init__(self, path: Path, file: FileIO) -> None:
        self.path = path
        self._file = file

    def write(self, what: str, *, durable: bool = True, **about: Any) -> None:
        self._file.write(json.dumps({"at": round(time(), 3), "what": what, **about}).encode() + b"\n")
        if durable:
            os.fsync(self._file.fileno())


def read_entries(path: Path) -> Iterator[LedgerEntry]:
    with path.open("rb") as file:
        for line in file:
            yield json.loads(line)


@contextmanager
def open_ledger(path: Path) -> Iterator[Ledger]:
    with path.open("ab", buffering=0) as file:
        yield Ledger(path, file)
