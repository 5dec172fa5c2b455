"""The service for as long as the IDE runs, when none is running yet."""

import asyncio
import os
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from urllib.parse import urlsplit

import httpx

from ide.settings import PREFIX

PROJECT = Path(__file__).resolve().parent.parent
SERVER = (sys.executable, "-m", "server")
BOUND = (sys.executable, "-I", str(Path(__file__).with_name("bound.py")))
LOOPBACK = {"localhost", "127.0.0.1", "::1"}
START_SECONDS = 60.0
STOP_SECONDS = 15.0
POLL_SECONDS = 0.1


class CannotStart(Exception):
    """No service answers and none can be started; `str(error)` says why."""


@asynccontextmanager
async def running(
    url: str,
    key: str,
    notice: Callable[[str], None],
    command: Sequence[str] = SERVER,
    folder: Path = PROJECT,
) -> AsyncIterator[None]:
    """Uses the service at `url`, or starts one there and ends it afterwards. Raises CannotStart."""
    scheme, host, port = _address(url)
    if await answers(url):
        yield
        return
    if host not in LOOPBACK or scheme != "http":
        raise CannotStart(f"No service answers at {url}; start it there, or name another with --url.")
    settings = {"HOST": host, "PORT": str(port or 80), "DEV": "true"} | ({"INTERNAL_API_KEY": key} if key else {})
    with tempfile.NamedTemporaryFile(prefix="agent-runtime-", suffix=".log", delete=False) as log:
        process = _start(command, folder, settings, log.fileno())
    try:
        await _wait_until_ready(url, process, Path(log.name))
        notice(f"No service answered at {url}: started one (pid {process.pid}, log {log.name}); it ends with this IDE.")
        yield
    finally:
        await _stop(process)


def _address(url: str) -> tuple[str, str, int | None]:
    try:
        parts = urlsplit(url)
        return parts.scheme, parts.hostname or "", parts.port
    except ValueError as error:
        raise CannotStart(f"{url} is no address of a service: {error}; name another with --url.") from None


def _start(command: Sequence[str], folder: Path, settings: Mapping[str, str], log: int) -> subprocess.Popen[bytes]:
    environment = os.environ | {PREFIX + name: value for name, value in settings.items()}
    return subprocess.Popen(  # noqa: S603
        [*BOUND, str(os.getpid()), *command],
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
                    raise CannotStart(f"The service ended at once: {_last_words(log)} (log {log})")
                await asyncio.sleep(POLL_SECONDS)
    except TimeoutError:
        raise CannotStart(
            f"The service did not answer within {START_SECONDS:g} s: {_last_words(log)} (log {log})"
        ) from None


def _last_words(log: Path) -> str:
    """The last line that says more than that a server comes and goes."""
    lines = (line.strip() for line in log.read_text(errors="replace").splitlines())
    return next((line for line in reversed([*lines]) if line and not line.startswith("INFO:")), "it left no word")


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
