"""The service as a process of its own, which can be killed."""

import asyncio
import os
import signal
import socket
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx

from tests.service import KEY, Client

ROOT = Path(__file__).parent.parent


@dataclass
class Process(Client):
    process: asyncio.subprocess.Process

    async def kill(self, how: signal.Signals = signal.SIGKILL) -> None:
        self.process.send_signal(how)
        await self.process.wait()


@asynccontextmanager
async def serving(database: str, **settings: str) -> AsyncIterator[Process]:
    """Killed when the block ends. Raises RuntimeError with what it said if it does not start."""
    port = _free_port()
    given = {"db_url": database, "internal_api_key": KEY, "port": str(port), "log_level": "INFO", **settings}
    clean = {name: value for name, value in os.environ.items() if not name.startswith("AGENT_RUNTIME__")}
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "server.py",
        cwd=ROOT,
        env=clean | {f"AGENT_RUNTIME__{name.upper()}": value for name, value in given.items()},
        stderr=asyncio.subprocess.PIPE,
    )
    draining = None
    try:
        await _started(process)
        draining = asyncio.create_task(_drain(process))
        base = f"http://127.0.0.1:{port}"
        async with httpx.AsyncClient(base_url=base, headers={"X-Internal-Auth": KEY}, timeout=60) as http:
            yield Process(http, process)
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()
        if draining:
            await draining


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
        return port


async def _started(process: asyncio.subprocess.Process) -> None:
    assert process.stderr
    said = ""
    while line := (await process.stderr.readline()).decode():
        said += line
        if "Uvicorn running on" in line:
            return
    raise RuntimeError(said)


async def _drain(process: asyncio.subprocess.Process) -> None:
    assert process.stderr
    while await process.stderr.read(65536):
        pass
