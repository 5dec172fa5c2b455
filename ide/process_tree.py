"""Find the processes that descend from one, and measure what they use. A system without /proc shows none.

Only the standard library is imported, as a command starts faster then.
"""

import os
import resource
import stat
from collections.abc import Iterable, Iterator
from contextlib import suppress

from ide.temporary_files import iterate_files

STAT_BYTES = 1024
"""Bytes of /proc/PID/stat that are read; it has some 350."""
BLOCK_BYTES = 512
"""The unit of `st_blocks`."""


def list_descendants(top: int) -> list[int]:
    """Return the processes that descend from the process, each before its own children."""
    children: dict[int, list[int]] = {}
    for pid in _list_processes():
        with suppress(OSError, ValueError, IndexError):
            children.setdefault(_read_parent(pid), []).append(pid)
    found = [top]
    for pid in found:
        found += children.get(pid, ())
    return found[1:]


def measure_memory(pids: Iterable[int]) -> int:
    """Return the bytes of memory that the processes do not share with a file."""
    pages = 0
    for pid in pids:
        with suppress(OSError), open(f"/proc/{pid}/statm", "rb") as file:
            _, resident, shared, *_ = file.read().split()
            pages += int(resident) - int(shared)
    return pages * resource.getpagesize()


def measure_files(folder: str, pids: Iterable[int]) -> int:
    """Return the bytes of the files in the folder, and of those that the processes have open under no name."""
    sizes: dict[tuple[int, int], int] = {}
    for status in _iterate_statuses(folder, pids):
        sizes[status.st_dev, status.st_ino] = status.st_blocks * BLOCK_BYTES
    return sum(sizes.values())


def _list_processes() -> list[int]:
    try:
        return [int(name) for name in os.listdir("/proc") if name.isdigit()]
    except FileNotFoundError:
        return []


def _read_parent(pid: int) -> int:
    """Return the parent of the process. Raises OSError, ValueError or IndexError if it has ended."""
    descriptor = os.open(f"/proc/{pid}/stat", os.O_RDONLY | os.O_CLOEXEC)
    try:
        return int(os.read(descriptor, STAT_BYTES).rpartition(b")")[2].split()[1])
    finally:
        os.close(descriptor)


def _iterate_statuses(folder: str, pids: Iterable[int]) -> Iterator[os.stat_result]:
    """Yield the status of each file in the folder, and of each open one that was removed or never had a name."""
    for entry in iterate_files(folder):
        with suppress(OSError):
            yield entry.stat(follow_symlinks=False)
    for pid in pids:
        with suppress(OSError):
            for number in os.listdir(f"/proc/{pid}/fd"):
                with suppress(OSError):
                    status = os.stat(f"/proc/{pid}/fd/{number}")
                    if stat.S_ISREG(status.st_mode) and status.st_nlink == 0:
                        yield status
