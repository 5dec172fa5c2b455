"""The processes of a scenario: replicas, which die and come again, and the model, which stays."""

import asyncio
import multiprocessing
import os
import resource
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from multiprocessing.context import ForkServerProcess
from pathlib import Path

import httpx

from tests.chaos import replica
from tests.langgraph_dev import free_port
from tests.process import ROOT
from tests.service import KEY

POLL = 0.02
FORKS = multiprocessing.get_context("forkserver")
FORKS.set_forkserver_preload(["tests.chaos.replica", "pytest"])


class Replica:
    """One address; the process behind it changes."""

    def __init__(self, settings: dict[str, str], output: Path, without: str = "") -> None:
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self._output = output
        given = {
            "internal_api_key": KEY,
            "port": str(self.port),
            "heartbeat_seconds": "1",
            "llm_titles": "false",
            **settings,
        }
        self._environment = {f"AGENT_RUNTIME__{name.upper()}": value for name, value in given.items()}
        self._environment["CHAOS_WITHOUT"] = without
        self._process: ForkServerProcess | None = None

    def start(self, point: str = "") -> None:
        """`point`: see `replica`."""
        environment = {**self._environment, "CHAOS_POINT": point}
        self._process = FORKS.Process(target=replica.forked, args=(environment, str(self._output)), daemon=True)
        self._process.start()

    async def ready(self, seconds: float = 20) -> None:
        """Raises TimeoutError."""
        async with asyncio.timeout(seconds), httpx.AsyncClient(base_url=self.url, timeout=1) as http:
            while not await _answers(http):  # noqa: ASYNC110
                await asyncio.sleep(POLL)

    async def died(self, seconds: float) -> bool:
        """Whether it ended by itself in that time."""
        assert self._process
        await asyncio.to_thread(self._process.join, seconds)
        return not self._process.is_alive()

    async def stopped(self, seconds: float) -> bool:
        """Whether it was stopped, to be continued, in that time."""
        until = asyncio.get_running_loop().time() + seconds
        while not (found := self._status("State").startswith("T")):
            if asyncio.get_running_loop().time() > until:
                break
            await asyncio.sleep(POLL)
        return found

    async def end(self, how: signal.Signals = signal.SIGKILL) -> None:
        if self.is_running:
            self.send(how)
            await self.died(30)

    def send(self, what: signal.Signals) -> None:
        assert self._process
        assert self._process.pid
        os.kill(self._process.pid, what)

    @property
    def is_running(self) -> bool:
        return bool(self._process and self._process.is_alive())

    def limit_files(self, size: int) -> None:
        """How large a file may become that the process writes."""
        assert self._process
        assert self._process.pid
        resource.prlimit(self._process.pid, resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))

    def memory(self) -> int:
        """Bytes."""
        return int(self._status("VmRSS").split()[0]) * 1024

    def _status(self, name: str) -> str:
        assert self._process
        lines = Path(f"/proc/{self._process.pid}/status").read_text().splitlines()
        return next(line.partition(":")[2].strip() for line in lines if line.startswith(f"{name}:"))


async def _answers(http: httpx.AsyncClient) -> bool:
    try:
        return (await http.get("/health")).status_code == 200
    except httpx.TransportError:
        return False


async def verify(url: str, output: Path) -> str:
    """What the service's own check of the audit complains of; empty if it does not."""
    environment = {"AGENT_RUNTIME__DB_URL": url}
    process = FORKS.Process(target=replica.verify, args=(environment, str(output)), daemon=True)
    process.start()
    await asyncio.to_thread(process.join)
    return await asyncio.to_thread(output.read_text) if process.exitcode else ""


@asynccontextmanager
async def model(ledger: Path, delay: float) -> AsyncIterator[str]:
    """Its address."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "tests.chaos.model", str(ledger), str(delay)),
        cwd=ROOT,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    assert process.stdin
    assert process.stdout
    try:
        yield (await process.stdout.readline()).decode().strip()
    finally:
        process.stdin.close()
        await process.wait()
