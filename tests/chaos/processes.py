"""The processes of a scenario: replicas, which die and start again, and the model, which stays."""

import asyncio
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
from tests.support.eventually import DEADLINE_SECONDS, poll
from tests.support.forks import FORK_CONTEXT
from tests.support.paths import PROJECT_ROOT
from tests.support.ports import find_free_port
from tests.support.service import API_KEY, open_http_client


class ReplicaProcess:
    """A replica at one address, whose process changes."""

    def __init__(self, settings: dict[str, str], output: Path, without: str = "") -> None:
        self.port = find_free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self._output = output
        given = {
            "internal_api_key": API_KEY,
            "port": str(self.port),
            "heartbeat_seconds": "1",
            "llm_titles": "false",
            **settings,
        }
        self._environment = {f"AGENT_RUNTIME__{name.upper()}": value for name, value in given.items()}
        self._environment["CHAOS_WITHOUT"] = without
        self._process: ForkServerProcess | None = None

    def start(self, point: str = "") -> None:
        """Start a process. It sends itself a signal at `point`, which tests.chaos.replica describes."""
        environment = {**self._environment, "CHAOS_POINT": point}
        self._process = FORK_CONTEXT.Process(
            target=replica.serve_in_fork, args=(environment, str(self._output)), daemon=True
        )
        self._process.start()

    async def wait_until_ready(self) -> None:
        """Wait until the replica answers or has ended. Raises TimeoutError."""
        async with open_http_client(self.url, b"") as http:
            if not await poll(lambda: self._has_ended_or_answers(http), DEADLINE_SECONDS):
                raise TimeoutError(f"the replica does not answer after {DEADLINE_SECONDS} s")

    async def _has_ended_or_answers(self, http: httpx.AsyncClient) -> bool:
        try:
            return not self.is_running or (await http.get("/health", timeout=1)).status_code == 200
        except httpx.TransportError:
            return False

    async def wait_for_exit(self, seconds: float) -> bool:
        """Wait at most so long for the process to end by itself; return whether it did."""
        assert self._process
        await asyncio.to_thread(self._process.join, seconds)
        return not self._process.is_alive()

    async def wait_until_suspended(self) -> bool:
        """Wait until the process is stopped, to be continued; return whether that happened before the deadline."""
        return await poll(lambda: self._read_status("State").startswith("T"), DEADLINE_SECONDS)

    async def end(self, how: signal.Signals = signal.SIGKILL) -> None:
        if self.is_running:
            self.send_signal(how)
            await self.wait_for_exit(DEADLINE_SECONDS)

    def send_signal(self, what: signal.Signals) -> None:
        assert self._process
        assert self._process.pid
        os.kill(self._process.pid, what)

    @property
    def is_running(self) -> bool:
        return bool(self._process and self._process.is_alive())

    def limit_file_size(self, size: int) -> None:
        """Limit the size of the files that the process writes, in bytes."""
        assert self._process
        assert self._process.pid
        resource.prlimit(self._process.pid, resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))

    def measure_memory(self) -> int:
        """Return the memory of the process in bytes."""
        return int(self._read_status("VmRSS").split()[0]) * 1024

    def _read_status(self, name: str) -> str:
        assert self._process
        lines = Path(f"/proc/{self._process.pid}/status").read_text().splitlines()
        return next(line.partition(":")[2].strip() for line in lines if line.startswith(f"{name}:"))


async def verify_audit(url: str, output: Path) -> str:
    """Return the complaint of the service's own check of the audit; empty if there is none."""
    environment = {"AGENT_RUNTIME__DB_URL": url}
    process = FORK_CONTEXT.Process(target=replica.verify_in_fork, args=(environment, str(output)), daemon=True)
    process.start()
    await asyncio.to_thread(process.join)
    return await asyncio.to_thread(output.read_text) if process.exitcode else ""


@asynccontextmanager
async def start_model(ledger: Path, delay: float) -> AsyncIterator[str]:
    """Run the model until the block ends, and yield its address."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "tests.chaos.model", str(ledger), str(delay)),
        cwd=PROJECT_ROOT,
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
