"""Run a command with a time limit: in a process group of its own, without input, with bounded output."""

import asyncio
import os
import shlex
import shutil
import signal
import subprocess
from collections.abc import Sequence
from contextlib import suppress
from typing import IO, TypedDict

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


async def execute(
    argv: Sequence[str], folder: str | os.PathLike[str], seconds: float, limit: int = OUTPUT_LIMIT
) -> CommandResult:
    """Run the program, and return its result. `limit` are the bytes that are kept of each output.

    The whole process group is killed at the time limit, on cancellation, and when the program itself has ended. Raises
    OSError if it cannot be started.
    """
    process = _start_process(argv, folder)
    pipes = [await _connect_reader(pipe) for pipe in (process.stdout, process.stderr) if pipe]
    outputs = [asyncio.create_task(_read_bounded(reader, limit)) for reader, _ in pipes]
    timed_out = False
    try:
        async with asyncio.timeout(seconds):
            await asyncio.to_thread(process.wait)
    except TimeoutError:
        timed_out = True
    finally:
        _kill_group(process.pid)
        await asyncio.wait(outputs, timeout=LINGER_SECONDS)
        for _, transport in pipes:
            transport.close()
    code = await asyncio.to_thread(process.wait)
    stdout, stderr = await asyncio.gather(*outputs)
    return CommandResult(exit_code=code, stdout=stdout, stderr=stderr, timed_out=timed_out)


def _start_process(argv: Sequence[str], folder: str | os.PathLike[str]) -> subprocess.Popen[bytes]:
    """Start the program without the settings of the service, which hold its key."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith("AGENT_RUNTIME__")}
    return subprocess.Popen(  # noqa: S603
        argv,
        cwd=folder,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        bufsize=0,
        start_new_session=True,
    )


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
