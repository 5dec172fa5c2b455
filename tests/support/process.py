"""The service in a process of its own, which can be killed."""

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Awaitable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import Any

import server
from tests.support.forks import ForkedProcess, fork_process
from tests.support.llm_server import ScriptedLLM
from tests.support.paths import PROJECT_ROOT
from tests.support.ports import find_free_port
from tests.support.service import API_KEY, GatewayClient, open_http_client


@dataclass
class ServiceProcess(GatewayClient):
    process: asyncio.subprocess.Process | ForkedProcess
    output: bytearray
    """All that it wrote to stdout and stderr; complete when the block of `start_process` has ended."""

    async def kill(self, how: signal.Signals = signal.SIGKILL) -> None:
        self.process.send_signal(how)
        await self.process.wait()


@asynccontextmanager
async def start_process(database: str, *command: str, **settings: str) -> AsyncIterator[ServiceProcess]:
    """Run the service until the block ends, then kill it. Raises RuntimeError with its output if it does not start.

    Without a command it is forked, and has no children of its own; with one, its children end with it.
    """
    port = find_free_port()
    given = {
        "db_url": database,
        "internal_api_key": API_KEY,
        "port": str(port),
        "log_level": "INFO",
        "llm_titles": "false",
    }
    given |= {"lease_seconds": "1", **settings}
    process = await (_spawn_process(command, given) if command else fork_process(server.main, _make_environment(given)))
    draining = None
    try:
        output = bytearray(await _wait_for_startup(process))
        draining = asyncio.create_task(_drain_output(process, output))
        async with open_http_client(f"http://127.0.0.1:{port}", given["internal_api_key"].encode()) as http:
            yield ServiceProcess(http, process, output)
    finally:
        if command:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
        elif process.returncode is None:
            process.kill()
        await process.wait()
        if draining:
            await draining


async def _spawn_process(command: tuple[str, ...], settings: dict[str, str]) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        *command,
        cwd=PROJECT_ROOT,
        env=_make_environment(settings) | {"PYTHONUNBUFFERED": "1"},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        start_new_session=True,
    )


def _make_environment(settings: dict[str, str]) -> dict[str, str]:
    """Return the environment with these settings of the service, and no others."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith("AGENT_RUNTIME__")}
    return clean | {f"AGENT_RUNTIME__{name.upper()}": value for name, value in settings.items()}


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


async def _wait_for_startup(process: asyncio.subprocess.Process | ForkedProcess) -> bytes:
    """Wait until the service listens; return its output so far."""
    assert process.stdout
    output = b""
    while line := await process.stdout.readline():
        output += line
        if b"Uvicorn running on" in line:
            return output
    raise RuntimeError(output.decode())


async def _drain_output(process: asyncio.subprocess.Process | ForkedProcess, output: bytearray) -> None:
    assert process.stdout
    while data := await process.stdout.read(65536):
        output += data
