"""Run a command within limits, and end all that it started: `supervisor.py OPTIONS COMMAND...`.

OPTIONS are `SupervisorOptions` as JSON. The process ends as the command did. It is a program of its own, so that its
descendants are those of the command and no others. Only the standard library and its neighbours are imported, as a
command starts faster then.
"""

import ctypes
import json
import os
import resource
import select
import signal
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from typing import NoReturn

if __name__ == "__main__":
    sys.path.append(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

from ide.confinement import ConfinementOptions, confine_self
from ide.process_tree import list_descendants, measure_files, measure_memory
from ide.temporary_files import remove_folder

PR_SET_PDEATHSIG, PR_SET_CHILD_SUBREAPER = 1, 36
"""The constants of prctl(2)."""
POLL_SECONDS = 0.2
"""Seconds between two measurements. A disk takes 200 MB and memory 1 GB in that time; a measurement takes 1-5 ms."""
KILL_SECONDS = 2.0
"""Seconds for killed processes to end. One that the kernel holds longer is left alone; chosen, not measured."""
NOT_FOUND, NOT_RUNNABLE = 127, 126
"""The exit codes of a shell for a program that it cannot start."""


class SupervisorOptions(ConfinementOptions):
    """The parent and the limits of a command. A limit of 0 is none."""

    parent: int
    """The process whose end also ends the command."""
    temporary: str
    """The folder for temporary files; it is removed."""
    temporary_size: int
    """Bytes of all files in that folder, with those that its processes removed and keep open."""
    total_memory: int
    """Bytes of memory of all processes together."""
    processes: int
    """The number of processes."""


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
        remove_folder(options["temporary"])
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
        confine_self(options)
        os.execvp(command[0], command)  # noqa: S606
    except BaseException as error:
        os.write(2, f"{command[0]} cannot be started: {error}\n".encode("utf-8", "backslashreplace"))
        os._exit(NOT_FOUND if isinstance(error, FileNotFoundError) else NOT_RUNNABLE)


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
        """Kill the group of the command, and every process that descends from this one."""
        deadline = time.monotonic() + KILL_SECONDS
        _kill_quietly(os.killpg, self.child)
        while self.reap_children() and time.monotonic() < deadline:
            for pid in list_descendants(os.getpid()):
                _kill_quietly(os.kill, pid)
            wait(POLL_SECONDS / 10)


def _await_command(child: int, options: SupervisorOptions, wait: Callable[[float], object]) -> int:
    """Return the status of the command, when it and all its descendants have ended.

    SIGTERM, and more of something than the options permit, end it early.
    """
    command = _Command(child)
    while command.status is None and not _is_stopping:
        wait(POLL_SECONDS)
        command.reap_children()
        if command.status is None and (excess := _find_excess(options)):
            os.write(2, f"\nstopped: {excess}\n".encode())
            break
    command.kill_descendants(wait)
    return signal.SIGKILL if command.status is None else command.status


_is_stopping: list[bool] = []
"""Not empty when this process was asked to end."""


def _find_excess(options: SupervisorOptions) -> str:
    """Return a sentence about the limit that is exceeded, or ""."""
    if not (options["temporary_size"] or options["total_memory"] or options["processes"]):
        return ""
    pids = list_descendants(os.getpid())
    for limit, size, excess in (
        (options["processes"], len(pids), "there are too many processes"),
        (options["total_memory"], measure_memory(pids), "the processes take too much memory"),
        (options["temporary_size"], measure_files(options["temporary"], pids), "the temporary files are too large"),
    ):
        if 0 < limit < size:
            return excess
    return ""


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
