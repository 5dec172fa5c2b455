"""The service as a process of its own, which can be killed."""

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator, Awaitable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import httpx

from tests.support.llm_server import ScriptedLLM
from tests.support.paths import PROJECT_ROOT
from tests.support.ports import find_free_port
from tests.support.service import API_KEY, GatewayClient


@dataclass
class ServiceProcess(GatewayClient):
    process: asyncio.subprocess.Process
    output: bytearray
    """On both outputs, all of it once the block of `serving` has ended."""

    async def kill(self, how: signal.Signals = signal.SIGKILL) -> None:
        self.process.send_signal(how)
        await self.process.wait()


@asynccontextmanager
async def start_process(database: str, *command: str, **settings: str) -> AsyncIterator[ServiceProcess]:
    """Killed when the block ends. Raises RuntimeError with what it said if it does not start."""
    port = find_free_port()
    given = {
        "db_url": database,
        "internal_api_key": API_KEY,
        "port": str(port),
        "log_level": "INFO",
        "llm_titles": "false",
    }
    given |= {"lease_seconds": "1", **settings}
    clean = {name: value for name, value in os.environ.items() if not name.startswith("AGENT_RUNTIME__")}
    process = await asyncio.create_subprocess_exec(
        *(command or (sys.executable, "server.py")),
        cwd=PROJECT_ROOT,
        env=clean
        | {f"AGENT_RUNTIME__{name.upper()}": value for name, value in given.items()}
        | {"PYTHONUNBUFFERED": "1"},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    draining = None
    try:
        said = bytearray(await _wait_for_startup(process))
        draining = asyncio.create_task(_drain_output(process, said))
        base, key = f"http://127.0.0.1:{port}", given["internal_api_key"]
        async with httpx.AsyncClient(base_url=base, headers={b"X-Internal-Auth": key.encode()}, timeout=60) as http:
            yield ServiceProcess(http, process, said)
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()
        if draining:
            await draining


def proxy_settings_for(llm: ScriptedLLM) -> dict[str, str]:
    """Return the settings of a process whose model is `llm`."""
    return {"llm_model": "scripted", "llm_proxy_url": llm.url}


async def kill_during_request(
    service: ServiceProcess, sending: Awaitable[Any], moment: Awaitable[Any], how: signal.Signals = signal.SIGKILL
) -> None:
    """End the service at the moment, while it still answers the request; the request must fail."""
    answering = asyncio.ensure_future(sending)
    await moment
    await service.kill(how)
    await asyncio.wait([answering])
    assert answering.exception()


async def _wait_for_startup(process: asyncio.subprocess.Process) -> bytes:
    """What it said so far."""
    assert process.stdout
    said = b""
    while line := await process.stdout.readline():
        said += line
        if b"Uvicorn running on" in line:
            return said
    raise RuntimeError(said.decode())


async def _drain_output(process: asyncio.subprocess.Process, output: bytearray) -> None:
    assert process.stdout
    while data := await process.stdout.read(65536):
        output += data
