"""Measure and remove the temporary files of a command, however deep and however locked its folders are.

Only the standard library is imported, as a command starts faster then.
"""

import os
from collections.abc import Iterator
from contextlib import suppress


def iterate_files(folder: str) -> Iterator[os.DirEntry[str]]:
    """Yield the files below the folder, and all else that is no folder. What cannot be read is left out."""
    for path in _iterate_folders(folder):
        with suppress(OSError), os.scandir(path) as entries:
            yield from (entry for entry in entries if not entry.is_dir(follow_symlinks=False))


def remove_folder(folder: str) -> None:
    """Remove the folder and all that is in it, also the folders in it that the command has locked.

    Paths that are longer than the system permits stay.
    """
    paths = []
    for path in _iterate_folders(folder):
        paths.append(path)
        with suppress(OSError):
            os.chmod(path, 0o700)
    for entry in [*iterate_files(folder)]:
        with suppress(OSError):
            os.unlink(entry.path)
    for path in reversed(paths):
        with suppress(OSError):
            os.rmdir(path)


def _iterate_folders(folder: str) -> Iterator[str]:
    """Yield the folder and those below it, each before its own. Links are not entered."""
    waiting = [folder]
    while waiting:
        path = waiting.pop()
        yield path
        with suppress(OSError), os.scandir(path) as entries:
            waiting += [entry.path for entry in entries if entry.is_dir(follow_symlinks=False)]
