"""Run one command in the scratch workspace, as a user without rights, within limits, and watch what it does."""

import fcntl
import os
import resource
import selectors
import signal
import struct
import subprocess
import termios
from contextlib import suppress
from pathlib import Path
from time import monotonic
from typing import IO, NamedTuple

from tests.gate.implementations import Installation, ProgramSet, find_program
from tests.gate.scratch import Scratch
from tests.gate.trace import TRACED_CALLS

CPU_SECONDS = 1
"""The promise: a command ends within a second."""
CPU_LIMIT = 2
"""Seconds of one process, after which it is killed: so much beyond the promise that a violation is measured."""
WALL_SECONDS = 5
"""The machine may be loaded, so waiting is cut later than computing."""
GRACE_SECONDS = 0.3
"""Between the two signals that end a command; strace needs far less to write its last lines."""
MEMORY_KB = 256 * 1024
"""The promise: less than 256 MB."""
ADDRESS_SPACE = 5 << 28
"""1.25 GB: beyond the promise, so that a violation is measured, and small enough to protect the machine."""
OUTPUT_BYTES = 10_000_000
"""The promise: less than 10 MB."""
FILE_BYTES = 16_000_000
"""The largest file: the trace needs room, and a violation must not fill the disk."""
PROCESSES = 400
"""Processes of the user: far more than a chain has."""
TEXT_BYTES = 200_000
"""Bytes of the output that are kept, for messages and the comparison of variables."""
ENVIRONMENT_SECRET = "secret-of-the-environment"
"""The value of a variable in the environment of each command. No output may hold it."""
UNPRIVILEGED_USER = 65534
"""`nobody`. The commands run as this user if the harness runs as root."""


class Execution(NamedTuple):
    """One way to run a line."""

    argv: tuple[str, ...]
    programs: ProgramSet
    way: str
    """The name of the shell, or of the way that a client without a shell splits the line."""
    is_traced: bool = True
    gives_input: bool = False
    """True if the standard input is a pipe with one line, to see whether it is read. It is empty otherwise."""


class Outcome(NamedTuple):
    """What one execution did."""

    status: int
    ending: str
    """`exit`, `waits` (cut after WALL_SECONDS) or `output` (cut after OUTPUT_BYTES)."""
    cpu: float
    """Seconds of all its processes."""
    memory: int
    """kB of its largest process."""
    output: bytes
    errors: bytes
    changes: list[str]
    """The paths of the scratch folders that are not as they were."""
    has_read_input: bool
    has_left_processes: bool
    trace: str
    """The output of strace; empty if it was not traced."""


def is_root() -> bool:
    """Return whether this process may do anything, so that the commands must run as another user."""
    return os.geteuid() == 0


class Sandbox:
    """Runs commands in one scratch workspace, one at a time."""

    def __init__(self, scratch: Scratch, installation: Installation) -> None:
        self.scratch = scratch
        self.installation = installation
        self.strace = find_program("strace")
        self._trace_file = scratch.root / "trace"

    def run(self, execution: Execution) -> Outcome:
        """Run it to its end, or to a limit. Nothing of it is left running."""
        is_traced = execution.is_traced and self.strace is not None
        reader, writer = os.pipe()
        os.write(writer, b"\n")
        os.close(writer)
        try:
            self._trace_file.unlink(missing_ok=True)
            child = self._start(execution, is_traced, reader)
            ending, output, errors = _collect_output(child)
            ending, usage, has_left_processes = _end(child, ending)
            has_read_input = execution.gives_input and _count_waiting_bytes(reader) == 0
        finally:
            os.close(reader)
        return Outcome(
            status=child.returncode,
            ending=ending,
            cpu=usage.ru_utime + usage.ru_stime,
            memory=usage.ru_maxrss,
            output=output,
            errors=errors,
            changes=self.scratch.find_changes(),
            has_read_input=has_read_input,
            has_left_processes=has_left_processes,
            trace=_read_trace(self._trace_file) if is_traced else "",
        )

    def _start(self, execution: Execution, is_traced: bool, reader: int) -> subprocess.Popen[bytes]:
        argv = list(execution.argv)
        if is_traced:
            user = ["-u", "nobody"] if is_root() else []
            # The calls stop the program only if they are in the list. Paths are printed as the kernel resolved them.
            flags = ["-f", "--seccomp-bpf", "-y", "-s", "4096", "-o", str(self._trace_file)]
            argv = [str(self.strace), *flags, *user, "-e", f"trace={TRACED_CALLS}", *argv]
        drops_rights = is_root() and not is_traced
        return subprocess.Popen(
            argv,
            cwd=self.scratch.workspace,
            env=self._make_environment(execution.programs),
            stdin=reader if execution.gives_input else subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
            preexec_fn=lambda: _apply_limits(drops_rights),
        )

    def _make_environment(self, programs: ProgramSet) -> dict[str, str]:
        return {
            "PATH": f"{programs.folder}:{self.installation.folders}",
            "HOME": str(self.scratch.home),
            "TMPDIR": str(self.scratch.temporary),
            "LC_CTYPE": "C.UTF-8",
            "USER": "nobody",
            "GATE_PASSWORD": ENVIRONMENT_SECRET,
            **programs.variables,
        }


def _apply_limits(drops_rights: bool) -> None:
    """Limit this process, in the child before it becomes the command."""
    resource.setrlimit(resource.RLIMIT_CPU, (CPU_LIMIT, CPU_LIMIT + 1))
    resource.setrlimit(resource.RLIMIT_AS, (ADDRESS_SPACE, ADDRESS_SPACE))
    resource.setrlimit(resource.RLIMIT_FSIZE, (FILE_BYTES, FILE_BYTES))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if is_root():
        resource.setrlimit(resource.RLIMIT_NPROC, (PROCESSES, PROCESSES))
    if drops_rights:
        os.setgroups([])
        os.setgid(UNPRIVILEGED_USER)
        os.setuid(UNPRIVILEGED_USER)


def _collect_output(child: subprocess.Popen[bytes]) -> tuple[str, bytes, bytes]:
    """Read until both outputs end, or a limit is met. Return how it ended and the beginnings of the outputs."""
    deadline, total = monotonic() + WALL_SECONDS, 0
    assert child.stdout is not None
    assert child.stderr is not None
    texts: dict[IO[bytes], bytearray] = {child.stdout: bytearray(), child.stderr: bytearray()}
    ending = "exit"
    with selectors.DefaultSelector() as selector, child.stdout, child.stderr:
        for stream in texts:
            selector.register(stream, selectors.EVENT_READ, stream)
        while selector.get_map() and ending == "exit":
            ready = selector.select(max(0.0, deadline - monotonic()))
            if not ready:
                ending = "waits"
            for key, _ in ready:
                chunk = os.read(key.fd, 1 << 16)
                total += len(chunk)
                if not chunk:
                    selector.unregister(key.fileobj)
                if len(texts[key.data]) < TEXT_BYTES:
                    texts[key.data] += chunk
            if total > OUTPUT_BYTES:
                ending = "output"
        output, errors = texts.values()
        return ending, bytes(output), bytes(errors)


def _end(child: subprocess.Popen[bytes], ending: str) -> tuple[str, resource.struct_rusage, bool]:
    """Wait for the end of the leader, or kill it. Return how it ended, its usage, and if it had left processes."""
    if ending == "exit" and not _wait(child.pid):
        ending = "waits"
    if ending != "exit":
        os.killpg(child.pid, signal.SIGTERM)  # strace lives on, and prints the call in which a process waits
        _wait(child.pid, GRACE_SECONDS)
        os.killpg(child.pid, signal.SIGKILL)
    _, status, usage = os.wait4(child.pid, 0)
    child.returncode = os.waitstatus_to_exitcode(status)
    is_left = ending == "exit" and _has_running_member(child.pid)
    with suppress(ProcessLookupError):
        os.killpg(child.pid, signal.SIGKILL)
    return ending, usage, is_left


def _has_running_member(group: int) -> bool:
    """Return whether a process of the group is running. Processes that only wait to be reaped do not count."""
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    for folder in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            state, _, member_of = (folder / "stat").read_text("utf-8", "replace").rpartition(")")[2].split()[:3]
            if member_of == str(group) and state not in "ZX":
                return True
    return False


def _wait(pid: int, seconds: float = WALL_SECONDS) -> bool:
    """Wait until the process has ended, and return whether it has. Do not reap it."""
    descriptor = os.pidfd_open(pid)
    try:
        with selectors.DefaultSelector() as selector:
            selector.register(descriptor, selectors.EVENT_READ)
            return bool(selector.select(seconds))
    finally:
        os.close(descriptor)


def _count_waiting_bytes(descriptor: int) -> int:
    answer = fcntl.ioctl(descriptor, termios.FIONREAD, b"\0" * 4)
    return int(struct.unpack("i", answer)[0])


def _read_trace(file: Path) -> str:
    return file.read_text("utf-8", "surrogateescape") if file.exists() else ""
