"""Run a command within limits: without input, with bounded output, and with all its processes ended afterwards.

`ide/supervisor.py` is the parent of the command. It sets the limits and ends the processes.
"""

import asyncio
import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, NamedTuple, TypedDict

from ide.sandbox import FULL_ACCESS, Access
from ide.supervisor import SupervisorOptions
from ide.temporary_files import remove_folder
from ide.workspace import COMMAND_MEMORY, ToolError

OUTPUT_LIMIT = 60_000
"""Bytes that are kept of stdout and of stderr: half from the start, half from the end. Chosen, not measured."""
SHELL_SYNTAX = set("|&;<>()$`*?[]{}~#!\n")
"""The characters that have a meaning for a shell only."""
LINGER_SECONDS = 1.0
"""Seconds that output is still read after the process group has ended.

A process that left the group may keep the pipes open. Chosen, not measured.
"""
READ_BYTES = 65536
"""Bytes of one read, as many as a pipe of Linux holds."""
STOP_SECONDS = 5.0
"""Seconds for the supervisor to end all processes of a command, then it is killed. Chosen, not measured."""
SUPERVISOR = (sys.executable, "-I", "-S", str(Path(__file__).with_name("supervisor.py")))
"""-I and -S: no file of the workspace and no package is imported, and it starts in a fiftieth of a second."""
MEGABYTE = 1_000_000


class Limits(NamedTuple):
    """The limits of a command; 0 is none.

    RLIMIT_NPROC is not among them. It counts all processes of the user, in containers also those that /proc hides, so
    that no number is safe. The supervisor counts the processes of the command.
    """

    memory: int = COMMAND_MEMORY
    """Bytes of data of each process."""
    address_space: int = 0
    """Bytes of address space of each process. Java and Node.js reserve many times what they use."""
    file_size: int = 10_000 * MEGABYTE
    """Bytes of a file that is written, more than an image of a container has; chosen, not measured."""
    temporary_size: int = 0
    """Bytes of all temporary files."""
    total_memory: int = 0
    """Bytes of memory of all processes."""
    processes: int = 0
    """The number of processes."""
    seconds: int = 0
    """The longest time limit that a call can set."""


DEFAULT_LIMITS = Limits()


class CommandResult(TypedDict):
    """The result of a command, as the service receives it."""

    exit_code: int
    stdout: str
    stderr: str
    timed_out: bool
    """True if the time limit ended it. The exit code is that of the signal then."""


def parse_command(command: str, *, shell: bool = False) -> list[str]:
    """Return the program and its arguments.

    It is a shell if `shell` is set, if the command has a syntax for shells only, or if there is no such program.
    """
    through_shell = ["/bin/sh", "-c", command]
    try:
        parts = shlex.split(command)
    except ValueError:
        return through_shell
    needs_shell = shell or SHELL_SYNTAX & set(command) or not parts or not shutil.which(parts[0])
    return through_shell if needs_shell else parts


class Launch(NamedTuple):
    """A command that is ready to start."""

    argv: Sequence[str]
    folder: str | os.PathLike[str]
    environment: Mapping[str, str]
    temporary: str
    """The folder for its temporary files, which is removed afterwards."""
    access: Access = FULL_ACCESS
    """The files that Landlock leaves to it."""


async def execute(
    argv: Sequence[str], folder: str | os.PathLike[str], seconds: float, limit: int = OUTPUT_LIMIT
) -> CommandResult:
    """Run the program with the default limits, and return its result. Raises ToolError, or OSError if it cannot start.

    `limit` are the bytes that are kept of each output.
    """
    with create_temporary_folder() as temporary:
        launch = Launch(argv, folder, build_environment(temporary), temporary)
        return await run_launch(launch, seconds, DEFAULT_LIMITS, limit)


@contextmanager
def create_temporary_folder() -> Iterator[str]:
    """Yield a folder for temporary files, and remove it afterwards. Raises ToolError."""
    try:
        folder = tempfile.mkdtemp(prefix="ide-")
    except OSError as error:
        raise ToolError(f"No temporary folder can be made: {error.strerror}; ask the user to look at it.") from None
    try:
        yield folder
    finally:
        remove_folder(folder)


def build_environment(temporary: str) -> dict[str, str]:
    """Return the environment without the settings of the service, which hold its key."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith("AGENT_RUNTIME__")}
    return environment | {"TMPDIR": temporary}


async def run_launch(launch: Launch, seconds: float, limits: Limits, limit: int = OUTPUT_LIMIT) -> CommandResult:
    """Run the command, and return its result.

    All its processes are ended at the time limit, on cancellation, and when the program itself has ended. Raises
    OSError if it cannot be started.
    """
    process = _start_process(launch, seconds, limits)
    pipes = [await _connect_reader(pipe) for pipe in (process.stdout, process.stderr) if pipe]
    outputs = [asyncio.create_task(_read_bounded(reader, limit)) for reader, _ in pipes]
    timed_out = False
    try:
        async with asyncio.timeout(seconds):
            await asyncio.to_thread(process.wait)
    except TimeoutError:
        timed_out = True
    finally:
        await asyncio.shield(_stop_process(process))
        await asyncio.wait(outputs, timeout=LINGER_SECONDS)
        for _, transport in pipes:
            transport.close()
    code = await asyncio.to_thread(process.wait)
    stdout, stderr = await asyncio.gather(*outputs)
    return CommandResult(exit_code=code, stdout=stdout, stderr=stderr, timed_out=timed_out)


def _start_process(launch: Launch, seconds: float, limits: Limits) -> subprocess.Popen[bytes]:
    """Start the supervisor of the command. Raises OSError."""
    options: SupervisorOptions = {
        "parent": os.getpid(),
        "cpu_seconds": int(seconds + 1) * (os.cpu_count() or 1),  # one process may use all processors
        "memory": limits.memory,
        "address_space": limits.address_space,
        "file_size": limits.file_size,
        "temporary": launch.temporary,
        "temporary_size": limits.temporary_size,
        "total_memory": limits.total_memory,
        "processes": limits.processes,
        **launch.access._asdict(),  # type: ignore[typeddict-item]
    }
    return subprocess.Popen(  # noqa: S603
        [*SUPERVISOR, json.dumps(options), *launch.argv],
        cwd=launch.folder,
        env=launch.environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        bufsize=0,
        start_new_session=True,
    )


async def _stop_process(process: subprocess.Popen[bytes]) -> None:
    """Let the supervisor end all processes of the command. One that does not end in time is killed."""
    if process.poll() is not None:
        return
    process.terminate()
    try:
        async with asyncio.timeout(STOP_SECONDS):
            await asyncio.to_thread(process.wait)
    except TimeoutError:
        _kill_group(process.pid)


async def _connect_reader(pipe: IO[bytes]) -> tuple[asyncio.StreamReader, asyncio.ReadTransport]:
    reader = asyncio.StreamReader()
    transport, _ = await asyncio.get_running_loop().connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(reader), pipe
    )
    return reader, transport


async def _read_bounded(reader: asyncio.StreamReader, limit: int) -> str:
    """Read to the end, and return the first and the last half of `limit` bytes, with a note between them."""
    half = limit // 2
    head, tail, dropped = b"", b"", 0
    while data := await reader.read(READ_BYTES):
        room = half - len(head)
        head += data[:room]
        tail += data[room:]
        dropped += max(0, len(tail) - half)
        tail = tail[-half:]
    mark = f"\n[... {dropped} bytes left out ...]\n".encode() if dropped else b""
    return (head + mark + tail).decode("utf-8", "replace")


def _kill_group(leader: int) -> None:
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(leader, signal.SIGKILL)
