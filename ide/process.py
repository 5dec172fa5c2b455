"""A command with a time limit: a process group of its own, no input, bounded output, nothing left behind."""

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
"""Bytes kept of stdout and of stderr: the first half and the last."""
SHELL_SYNTAX = set("|&;<>()$`*?[]{}~#!\n")
LINGER_SECONDS = 1.0
"""How long output is read on after the process group has ended."""


class CommandResult(TypedDict):
    exit_code: int
    stdout: str
    stderr: str
    timed_out: bool


def parse_command(command: str, *, shell: bool = False) -> list[str]:
    """The program and its arguments. A shell only if asked for, or if the text means something only to a shell."""
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
    """Ends the whole process group at the time limit, on cancellation, and when the command itself has ended."""
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
    half = limit // 2
    head, tail, dropped = b"", b"", 0
    while data := await reader.read(65536):
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
