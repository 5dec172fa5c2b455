"""Run a command within limits, and end all that it started: `supervisor.py OPTIONS COMMAND...`.

OPTIONS are `SupervisorOptions` as JSON. The process ends as the command did. It is a program of its own, so that its
descendants are those of the command and no others. Only the standard library is imported at the start, as a command
starts faster then.
"""

import ctypes
import json
import os
import resource
import select
import shutil
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import NoReturn, TypedDict

PR_SET_PDEATHSIG, PR_SET_CHILD_SUBREAPER = 1, 36
"""The constants of prctl(2)."""
POLL_SECONDS = 0.2
"""Seconds between two looks at the temporary folder. A disk fills it with 200 MB at most in that time."""
KILL_SECONDS = 2.0
"""Seconds for killed processes to end. One that the kernel holds longer is left alone; chosen, not measured."""
NOT_FOUND, NOT_RUNNABLE = 127, 126
"""The exit codes of a shell for a program that it cannot start."""


class SupervisorOptions(TypedDict):
    """The parent and the limits of a command."""

    parent: int
    """The process whose end also ends the command."""
    cpu_seconds: int
    """The time of the processor that each process may take."""
    memory: int
    """Bytes of data of each process."""
    address_space: int
    """Bytes of address space of each process, or 0 for no limit."""
    file_size: int
    """Bytes of each file that is written."""
    temporary: str
    """The folder for temporary files; it is removed."""
    temporary_size: int
    """Bytes of all files in that folder, or 0 for no limit."""
    readable: list[str]
    executable: list[str]
    writable: list[str]
    """The files that Landlock leaves to the command. No limit of access if all three are empty."""


def main(text: str, *command: str) -> NoReturn:
    options: SupervisorOptions = json.loads(text)
    signal.signal(signal.SIGTERM, lambda *_: _is_stopping.append(True))
    signal.signal(signal.SIGCHLD, lambda *_: None)
    _set_process_option(PR_SET_CHILD_SUBREAPER, 1)
    _set_process_option(PR_SET_PDEATHSIG, signal.SIGTERM)
    status, wait = signal.SIGKILL.value, _create_wait()
    try:
        if os.getppid() == options["parent"]:  # else it ended before the signal was set
            status = _await_command(os.fork() or _become_command(options, command), options, wait)
    finally:
        _remove_folder(options["temporary"])
    _exit_like(status)


def _set_process_option(option: int, value: int) -> None:
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(option, value, 0, 0, 0)


def _become_command(options: SupervisorOptions, command: tuple[str, ...]) -> NoReturn:
    """Confine this process, and run the command in its place."""
    try:
        os.setsid()
        _set_process_option(PR_SET_PDEATHSIG, signal.SIGKILL)
        for number in (signal.SIGPIPE, signal.SIGXFSZ, signal.SIGINT):
            signal.signal(number, signal.SIG_DFL)
        if options["readable"]:
            sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
            from ide.landlock import restrict_self

            restrict_self(options["readable"], options["executable"], options["writable"])
        _set_limits(options)
        os.execvp(command[0], command)  # noqa: S606
    except BaseException as error:
        os.write(2, f"{command[0]} cannot be started: {error}\n".encode("utf-8", "backslashreplace"))
        os._exit(NOT_FOUND if isinstance(error, FileNotFoundError) else NOT_RUNNABLE)


def _set_limits(options: SupervisorOptions) -> None:
    """Lower the limits of this process. A limit that is lower already stays."""
    limits = [
        (resource.RLIMIT_CPU, options["cpu_seconds"]),
        (resource.RLIMIT_DATA, options["memory"]),
        (resource.RLIMIT_FSIZE, options["file_size"]),
        (resource.RLIMIT_CORE, 0),
    ]
    if options["address_space"]:
        limits.append((resource.RLIMIT_AS, options["address_space"]))
    for kind, value in limits:
        old = [limit for limit in resource.getrlimit(kind) if limit != resource.RLIM_INFINITY]
        resource.setrlimit(kind, (min([value, *old]),) * 2)


class _Command:
    """The command as a child of this process."""

    def __init__(self, child: int) -> None:
        self.child = child
        self.status: int | None = None
        """The status that it ended with."""

    def reap_children(self) -> bool:
        """Collect all children that have ended, and return whether any child is left."""
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return False
            if pid == 0:
                return True
            if pid == self.child:
                self.status = status

    def kill_descendants(self, wait: Callable[[float], object]) -> None:
        """Kill the group of the command, and every process that has become a child of this one.

        A killed process leaves its children to this one, so this ends when there are none.
        """
        deadline = time.monotonic() + KILL_SECONDS
        _kill_quietly(os.killpg, self.child)
        while self.reap_children() and time.monotonic() < deadline:
            for pid in _list_children():
                _kill_quietly(os.kill, pid)
            wait(POLL_SECONDS / 10)


def _await_command(child: int, options: SupervisorOptions, wait: Callable[[float], object]) -> int:
    """Return the status of the command, when it and all its descendants have ended.

    SIGTERM, and temporary files that are too large, end it early.
    """
    command = _Command(child)
    while command.status is None and not _is_stopping:
        if options["temporary_size"] and _measure_folder(options["temporary"]) > options["temporary_size"]:
            os.write(2, b"\nstopped: the temporary files are too large\n")
            break
        wait(POLL_SECONDS)
        command.reap_children()
    command.kill_descendants(wait)
    return signal.SIGKILL if command.status is None else command.status


_is_stopping: list[bool] = []
"""Not empty when this process was asked to end."""


def _create_wait() -> Callable[[float], object]:
    """Return a function that waits for a signal, for so many seconds at most."""
    reading, writing = os.pipe()
    for end in (reading, writing):
        os.set_blocking(end, False)
    signal.set_wakeup_fd(writing, warn_on_full_buffer=False)

    def wait(seconds: float) -> None:
        select.select([reading], [], [], seconds)
        with suppress(BlockingIOError):
            os.read(reading, 4096)

    return wait


def _kill_quietly(kill: Callable[[int, int], None], pid: int) -> None:
    with suppress(ProcessLookupError, PermissionError):
        kill(pid, signal.SIGKILL)


def _measure_folder(path: str) -> int:
    """Return the bytes of the files in the folder."""
    size = 0
    for folder, _, files in os.walk(path):
        for name in files:
            with suppress(OSError):
                size += os.lstat(os.path.join(folder, name)).st_size
    return size


def _list_children() -> Iterator[int]:
    """Yield the children of this process. A system without /proc has none."""
    me = str(os.getpid()).encode()
    with suppress(FileNotFoundError):
        for name in filter(str.isdigit, os.listdir("/proc")):
            with suppress(OSError), open(f"/proc/{name}/stat", "rb") as file:
                if file.read().rpartition(b")")[2].split()[1] == me:
                    yield int(name)


def _remove_folder(path: str) -> None:
    """Remove the folder, with the folders in it that the command has locked."""
    for folder, folders, _ in os.walk(path):
        for name in folders:
            with suppress(OSError):
                inner = os.path.join(folder, name)
                if not os.path.islink(inner):
                    os.chmod(inner, 0o700)
    shutil.rmtree(path, ignore_errors=True)


def _exit_like(status: int) -> NoReturn:
    """End with the exit code or the signal of the command."""
    code = os.waitstatus_to_exitcode(status)
    if code < 0:
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        with suppress(OSError):
            signal.signal(-code, signal.SIG_DFL)
        os.kill(os.getpid(), -code)
    os._exit(code if code >= 0 else 128 - code)


if __name__ == "__main__":
    main(*sys.argv[1:])
