"""Processes under measurement, and what the kernel knows of them. Linux only."""

import asyncio
import os
import signal
import socket
import sys
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parent.parent
TIMEOUT_SECONDS = 30
"""Seconds to start, and to stop. A process that needs longer has failed; chosen, not measured."""
POLL_SECONDS = 0.05
"""Seconds between two attempts to connect. Restart times are printed to a tenth of a second."""


@dataclass(frozen=True)
class MeasuredProcess:
    pid: int
    port: int

    def measure_cpu(self) -> float:
        """Return the CPU seconds so far, of all its threads, including those that have ended."""
        return time.clock_gettime((~self.pid << 3) | 2)  # what clock_getcpuclockid(3) returns

    def measure_disk_writes(self) -> int:
        """Return the bytes that it has caused to be written to disk so far."""
        lines = Path(f"/proc/{self.pid}/io").read_text().splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith("write_bytes"))

    def measure_memory(self) -> int:
        """Return the resident bytes."""
        lines = Path(f"/proc/{self.pid}/status").read_text().splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith("VmRSS")) * 1024

    def kill(self) -> None:
        os.kill(self.pid, signal.SIGKILL)


@asynccontextmanager
async def start_process(*arguments: str, port: int, env: Mapping[str, str]) -> AsyncIterator[MeasuredProcess]:
    """Run `python ARGUMENTS` until the block ends. The block begins when the port answers.

    Raises RuntimeError if nothing listens on the port in time.
    """
    child = await asyncio.create_subprocess_exec(sys.executable, *arguments, cwd=ROOT, env={**os.environ, **env})
    try:
        await _wait_until_listening(child, port)
        yield MeasuredProcess(child.pid, port)
    finally:
        await _stop_process(child)


async def _wait_until_listening(child: asyncio.subprocess.Process, port: int) -> None:
    for _ in range(int(TIMEOUT_SECONDS / POLL_SECONDS)):
        if child.returncode is not None:
            break
        try:
            _, writer = await asyncio.open_connection("127.0.0.1", port)
        except OSError:
            await asyncio.sleep(POLL_SECONDS)
        else:
            writer.close()
            return
    raise RuntimeError(f"Nothing listens on port {port}.")


async def _stop_process(child: asyncio.subprocess.Process) -> None:
    if child.returncode is not None:
        return
    child.terminate()
    try:
        await asyncio.wait_for(child.wait(), TIMEOUT_SECONDS)
    except TimeoutError:
        child.kill()
        await child.wait()


def find_free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
        return port
