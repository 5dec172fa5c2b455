"""Start the service when none is running yet, and end it with the IDE."""

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

from ide.settings import SETTING_PREFIX

PROJECT_ROOT = Path(__file__).resolve().parent.parent
SERVER_COMMAND = (sys.executable, "-m", "server")
PARENT_DEATH_COMMAND = (sys.executable, "-I", str(Path(__file__).with_name("parent_death.py")))
LOOPBACK_HOSTS = {"localhost", "127.0.0.1", "::1"}
START_SECONDS = 60.0
"""Seconds to start, with room for a busy machine; chosen, not measured."""
STOP_SECONDS = 15.0
"""Seconds to stop, then the service is killed. Its next start recovers a run that was cut off. Chosen, not measured."""
POLL_SECONDS = 0.1
"""Seconds between two looks at a service that starts. The user does not notice so short a delay."""
HEALTH_SECONDS = 5.0
"""Seconds for an answer of /health, which needs no database; chosen, not measured."""


class CannotStart(Exception):
    """No service answers and none can be started; `str(error)` says why."""


@asynccontextmanager
async def ensure_service(
    url: str,
    key: str,
    notice: Callable[[str], None],
    command: Sequence[str] = SERVER_COMMAND,
    folder: Path = PROJECT_ROOT,
) -> AsyncIterator[None]:
    """Use the service at `url`, or start one there and stop it afterwards. Raises CannotStart.

    `notice` is called with a sentence if one is started.
    """
    scheme, host, port = _parse_address(url)
    if await is_reachable(url):
        yield
        return
    if host not in LOOPBACK_HOSTS or scheme != "http":
        raise CannotStart(f"No service answers at {url}; start it there, or name another with --url.")
    settings = {"HOST": host, "PORT": str(port or 80), "DEV": "true"} | ({"INTERNAL_API_KEY": key} if key else {})
    with tempfile.NamedTemporaryFile(prefix="agent-runtime-", suffix=".log", delete=False) as log:
        process = _start_service(command, folder, settings, log.fileno())
    try:
        await _wait_until_ready(url, process, Path(log.name))
        notice(f"No service answered at {url}: started one (pid {process.pid}, log {log.name}); it ends with this IDE.")
        yield
    finally:
        await _stop_service(process)


def _parse_address(url: str) -> tuple[str, str, int | None]:
    """Return scheme, host and port. Raises CannotStart."""
    try:
        parts = urlsplit(url)
        return parts.scheme, parts.hostname or "", parts.port
    except ValueError as error:
        raise CannotStart(f"{url} is no address of a service: {error}; name another with --url.") from None


def _start_service(
    command: Sequence[str], folder: Path, settings: Mapping[str, str], log: int
) -> subprocess.Popen[bytes]:
    environment = os.environ | {SETTING_PREFIX + name: value for name, value in settings.items()}
    return subprocess.Popen(  # noqa: S603
        [*PARENT_DEATH_COMMAND, str(os.getpid()), *command],
        cwd=folder,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=log,
        stderr=log,
        start_new_session=True,
    )


async def _wait_until_ready(url: str, process: subprocess.Popen[bytes], log: Path) -> None:
    """Wait for the first answer. Raises CannotStart, with the reason in the log, if it does not come."""
    try:
        async with asyncio.timeout(START_SECONDS):
            while not await is_reachable(url):
                if process.poll() is not None:
                    raise CannotStart(f"The service ended at once: {_find_last_log_line(log)} (log {log})")
                await asyncio.sleep(POLL_SECONDS)
    except TimeoutError:
        raise CannotStart(
            f"The service did not answer within {START_SECONDS:g} s: {_find_last_log_line(log)} (log {log})"
        ) from None


def _find_last_log_line(log: Path) -> str:
    """Return the last line that is no message of uvicorn about its start or end."""
    lines = (line.strip() for line in log.read_text(errors="replace").splitlines())
    return next((line for line in reversed([*lines]) if line and not line.startswith("INFO:")), "its log is empty")


async def is_reachable(url: str) -> bool:
    """Return whether a service answers, after one request."""
    async with httpx.AsyncClient(trust_env=False, timeout=HEALTH_SECONDS) as http:
        try:
            return (await http.get(f"{url.rstrip('/')}/health")).is_success
        except httpx.TransportError:
            return False


async def _stop_service(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        async with asyncio.timeout(STOP_SECONDS):
            await asyncio.to_thread(process.wait)
    except TimeoutError:
        process.kill()
        await asyncio.to_thread(process.wait)
