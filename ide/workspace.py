"""Open files inside one folder, and nothing outside of it.

A path is resolved, links included, and must be in the folder. Then it is opened from the folder down, name by name, and
no link is followed. So a link that is put there in between causes an error, and leads nowhere.
"""

import os
import secrets
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from fnmatch import fnmatch
from pathlib import Path, PurePath
from typing import NamedTuple

CACHE_FOLDERS = {"__pycache__", ".pytest_cache", ".mypy_cache", ".ruff_cache", ".tox", ".hypothesis"}
SKIPPED_FOLDERS = frozenset({".git", "node_modules", ".venv", *CACHE_FOLDERS})
"""Folders that are listed, but not entered. They hold files that no one of the project wrote."""
READ_FLAGS = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
"""O_NONBLOCK, so that a named pipe is refused and does not block."""
FOLDER_FLAGS = os.O_RDONLY | os.O_NOFOLLOW | os.O_DIRECTORY | os.O_CLOEXEC
CREATE_FLAGS = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


class ToolError(Exception):
    """A tool refuses a call; `str(error)` says what to do instead."""


class FolderEntry(NamedTuple):
    """A file or a folder inside a folder."""

    path: str
    """The path relative to the workspace."""
    is_folder: bool
    name: str
    parent: int
    """A descriptor of the folder that holds it, open until the next entry."""

    def matches_pattern(self, pattern: str) -> bool:
        """Return whether the glob matches the name or the path. `**/` matches any folders."""
        return fnmatch(self.name, pattern) or fnmatch(self.path, pattern.replace("**/", "*"))


COMMAND_MEMORY = 4_000_000_000
"""Bytes of data of each process of an approved command. Compilers take up to 2 GB; chosen, not measured."""


class Workspace:
    """The folder `root`, and the memory of commands in it. Raises NotADirectoryError if it is no folder."""

    def __init__(self, root: str | os.PathLike[str], command_memory: int = COMMAND_MEMORY) -> None:
        self.root, self.command_memory = Path(root).resolve(), command_memory
        if not self.root.is_dir():
            raise NotADirectoryError(f"{root} is not a folder")

    def locate(self, path: str) -> tuple[str, ...]:
        """Return the names that lead from the root to the resolved path. Raises ToolError if that is outside."""
        if "\0" in path:
            raise ToolError("The path holds a NUL character.")
        real = os.path.realpath(self.root / path)
        if not self.contains(real):
            raise ToolError(f"{path!r} leads out of the workspace; use a path inside it, relative to its root.")
        return Path(real).relative_to(self.root).parts

    def contains(self, path: str) -> bool:
        """Return whether a resolved path is the root, or below it."""
        root = str(self.root)
        return path == root or path.startswith(root.rstrip("/") + "/")

    @contextmanager
    def open_folder(self, names: tuple[str, ...], *, create: bool = False) -> Iterator[int]:
        """Yield a descriptor of the folder. `create` makes the folders that are missing. Raises OSError."""
        here = os.open(self.root, FOLDER_FLAGS)
        try:
            for name in names:
                if create:
                    with suppress(FileExistsError):
                        os.mkdir(name, dir_fd=here)
                inner = os.open(name, FOLDER_FLAGS, dir_fd=here)
                os.close(here)
                here = inner
            yield here
        finally:
            os.close(here)

    def get_status(self, path: str) -> os.stat_result:
        """Return the status of a file or folder. Raises ToolError or OSError."""
        *parents, name = self.locate(path) or (".",)
        with self.open_folder(tuple(parents)) as parent:
            return os.stat(name, dir_fd=parent, follow_symlinks=False)

    def read_bytes(self, path: str, limit: int = -1) -> bytes:
        """Return at most `limit` bytes of a regular file, all if it is negative. Raises ToolError or OSError."""
        *parents, name = self.locate(path) or (".",)
        with self.open_folder(tuple(parents)) as parent:
            return read_file_at(parent, name, limit)

    def write_bytes(self, path: str, data: bytes, *, create_dirs: bool = False, backup: bool = False) -> bool:
        """Write a file, and return whether it is new. Raises ToolError or OSError.

        A file is replaced in one step and keeps its mode. The backup of its old content is `<name>.bak`.
        """
        *parents, name = self.locate(path) or (".",)
        with self.open_folder(tuple(parents), create=create_dirs) as parent:
            mode = _get_file_mode(parent, name)
            if mode is not None and backup:
                _replace_file(parent, f"{name}.bak", read_file_at(parent, name), mode)
            _replace_file(parent, name, data, mode)
        return mode is None

    def make_folder(self, path: str, *, parents: bool) -> bool:
        """Make a folder, and return whether it is new. Raises ToolError or OSError."""
        *above, name = self.locate(path) or (".",)
        with self.open_folder(tuple(above), create=parents) as parent:
            try:
                os.mkdir(name, dir_fd=parent)
            except FileExistsError:
                with self.open_folder((*above, name) if name != "." else ()):
                    return False
        return True

    def walk(self, path: str, *, recursive: bool = True) -> Iterator[FolderEntry]:
        """Yield the entries of a folder, sorted by name, each folder before its own entries.

        Links and SKIPPED_FOLDERS are not entered. Raises ToolError or OSError.
        """
        names = self.locate(path)
        with self.open_folder(names) as top:
            for where, folders, files, here in os.fwalk(".", dir_fd=top):
                base = PurePath(*names, where)
                for name, is_folder in sorted([*((f, True) for f in folders), *((f, False) for f in files)]):
                    yield FolderEntry((base / name).as_posix(), is_folder, name, here)
                folders[:] = sorted(f for f in folders if f not in SKIPPED_FOLDERS) if recursive else []


def read_file_at(parent: int, name: str, limit: int = -1) -> bytes:
    """Read a regular file in the folder of the descriptor `parent`. Raises ToolError or OSError."""
    descriptor = os.open(name, READ_FLAGS, dir_fd=parent)
    try:
        _require_regular(os.fstat(descriptor).st_mode, name)
        with open(descriptor, "rb", closefd=False) as file:
            return file.read(limit)
    finally:
        os.close(descriptor)


def _get_file_mode(parent: int, name: str) -> int | None:
    """Return the permissions of a regular file, or None if there is no file. Raises ToolError."""
    try:
        mode = os.stat(name, dir_fd=parent, follow_symlinks=False).st_mode
    except FileNotFoundError:
        return None
    _require_regular(mode, name)
    return stat.S_IMODE(mode)


def _require_regular(mode: int, name: str) -> None:
    if stat.S_ISDIR(mode):
        raise ToolError(f"{name!r} is a folder; name a file, or use list_files.")
    if not stat.S_ISREG(mode):
        raise ToolError(f"{name!r} is not a regular file; it cannot be read or written.")


def _replace_file(parent: int, name: str, data: bytes, mode: int | None) -> None:
    """Write a temporary file, and rename it, so that a crash leaves the old content or the new one."""
    temporary = f".{secrets.token_hex(8)}.tmp"  # 64 random bits: no other file has this name
    descriptor = os.open(temporary, CREATE_FLAGS, 0o666, dir_fd=parent)
    try:
        with open(descriptor, "wb") as file:
            file.write(data)
            if mode is not None:
                os.fchmod(descriptor, mode)
            file.flush()
            os.fsync(descriptor)
        os.rename(temporary, name, src_dir_fd=parent, dst_dir_fd=parent)
    except BaseException:
        with suppress(FileNotFoundError):
            os.unlink(temporary, dir_fd=parent)
        raise
