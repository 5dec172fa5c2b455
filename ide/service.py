"""The service for as long as the IDE runs, when none is running yet."""

import asyncio
import os
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from urllib.parse import urlsplit

import httpx

PROJECT = Path(__file__).resolve().parent.parent
LOOPBACK = {"localhost", "127.0.0.1"}
START_SECONDS = 60.0
STOP_SECONDS = 15.0
POLL_SECONDS = 0.1


class CannotStart(Exception):
    """No service answers and none can be started; `str(error)` says why."""


def uvicorn(port: int) -> list[str]:
    return [sys.executable, "-m", "uvicorn", "server:app", "--host", "127.0.0.1", "--port", str(port)]


@asynccontextmanager
async def running(
    url: str,
    key: str,
    notice: Callable[[str], None],
    command: Callable[[int], Sequence[str]] = uvicorn,
    folder: Path = PROJECT,
) -> AsyncIterator[None]:
    """Uses the service at `url`, or starts one there and ends it afterwards. Raises CannotStart."""
    if await answers(url):
        yield
        return
    parts = urlsplit(url)
    if parts.hostname not in LOOPBACK or parts.scheme != "http":
        raise CannotStart(f"No service answers at {url}; start it there, or name another with --url.")
    with tempfile.NamedTemporaryFile(prefix="agent-runtime-", suffix=".log", delete=False) as log:
        process = _start(command(parts.port or 80), folder, key, log.fileno())
    try:
        await _wait_until_ready(url, process, Path(log.name))
        notice(f"No service answered at {url}: started one (pid {process.pid}, log {log.name}); it ends with this IDE.")
        yield
    finally:
        await _stop(process)


def _start(command: Sequence[str], folder: Path, key: str, log: int) -> subprocess.Popen[bytes]:
    environment = {**os.environ, "AGENT_RUNTIME__INTERNAL_API_KEY": key}
    return subprocess.Popen(  # noqa: S603
        command,
        cwd=folder,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=log,
        stderr=log,
        start_new_session=True,
    )


async def _wait_until_ready(url: str, process: subprocess.Popen[bytes], log: Path) -> None:
    try:
        async with asyncio.timeout(START_SECONDS):
            while not await answers(url):
                if process.poll() is not None:
                    raise CannotStart(f"The service ended at once, see {log}:\n{_end_of(log)}")
                await asyncio.sleep(POLL_SECONDS)
    except TimeoutError:
        raise CannotStart(
            f"The service did not answer within {START_SECONDS:g} s, see {log}:\n{_end_of(log)}"
        ) from None


def _end_of(log: Path) -> str:
    return log.read_text(errors="replace")[-2000:]


async def answers(url: str) -> bool:
    """Whether a service is there; asks once."""
    async with httpx.AsyncClient(trust_env=False, timeout=5) as http:
        try:
            return (await http.get(f"{url.rstrip('/')}/health")).is_success
        except httpx.TransportError:
            return False


async def _stop(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        async with asyncio.timeout(STOP_SECONDS):
            await asyncio.to_thread(process.wait)
    except TimeoutError:
        process.kill()
        await asyncio.to_thread(process.wait)
