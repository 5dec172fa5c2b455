"""The service as a process of its own, which can be killed."""

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx

from tests.langgraph_dev import free_port
from tests.service import KEY, Client

ROOT = Path(__file__).parent.parent


@dataclass
class Process(Client):
    process: asyncio.subprocess.Process
    said: bytearray
    """On both outputs, all of it once the block of `serving` has ended."""

    async def kill(self, how: signal.Signals = signal.SIGKILL) -> None:
        self.process.send_signal(how)
        await self.process.wait()


@asynccontextmanager
async def serving(database: str, *command: str, **settings: str) -> AsyncIterator[Process]:
    """Killed when the block ends. Raises RuntimeError with what it said if it does not start."""
    port = free_port()
    given = {"db_url": database, "internal_api_key": KEY, "port": str(port), "log_level": "INFO", "llm_titles": "false"}
    given |= {"lease_seconds": "1", **settings}
    clean = {name: value for name, value in os.environ.items() if not name.startswith("AGENT_RUNTIME__")}
    process = await asyncio.create_subprocess_exec(
        *(command or (sys.executable, "server.py")),
        cwd=ROOT,
        env=clean
        | {f"AGENT_RUNTIME__{name.upper()}": value for name, value in given.items()}
        | {"PYTHONUNBUFFERED": "1"},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    draining = None
    try:
        said = bytearray(await _started(process))
        draining = asyncio.create_task(_drain(process, said))
        base, key = f"http://127.0.0.1:{port}", given["internal_api_key"]
        async with httpx.AsyncClient(base_url=base, headers={b"X-Internal-Auth": key.encode()}, timeout=60) as http:
            yield Process(http, process, said)
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()
        if draining:
            await draining


async def _started(process: asyncio.subprocess.Process) -> bytes:
    """What it said so far."""
    assert process.stdout
    said = b""
    while line := await process.stdout.readline():
        said += line
        if b"Uvicorn running on" in line:
            return said
    raise RuntimeError(said.decode())


async def _drain(process: asyncio.subprocess.Process, said: bytearray) -> None:
    assert process.stdout
    while data := await process.stdout.read(65536):
        said += data
