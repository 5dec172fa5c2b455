"""Several processes serve one port over Postgres, and end together."""

import os
import re
import signal
import sys

import httpx

from tests.support.eventually import eventually
from tests.support.process import ServiceProcess, start_process
from tests.support.service import API_KEY, GatewayClient, open_http_client


async def wait_for_workers(service: ServiceProcess) -> list[int]:
    """Wait until both workers have started; return their ids."""

    def list_started() -> list[int]:
        started = re.findall(rb"Started server process \[(\d+)\]", bytes(service.output))
        is_complete = len(started) == 2 and service.output.count(b"Application startup complete") == 2
        return [int(worker) for worker in started] if is_complete else []

    return await eventually(list_started, "two workers have started")


def is_alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    return True


async def test_two_workers_answer_on_one_port_and_end_together(shared: str) -> None:
    async with start_process(shared, sys.executable, "server.py", workers="2") as service:
        both = await wait_for_workers(service)
        for sleeping in both:
            async with open_http_client(str(service.http.base_url), API_KEY.encode()) as http:
                await connect_while_asleep(http, sleeping)
                answered = await GatewayClient(http).open_session(f"s-{sleeping}").send_text("hello")
            assert answered[-1]["is_final"]
        assert (await service.open_session().get("/sessions"))["total"] == 2
        await service.kill(signal.SIGTERM)
        assert service.process.returncode == 0
    assert not any(is_alive(worker) for worker in both)
    assert b"Traceback" not in service.output


async def connect_while_asleep(http: httpx.AsyncClient, worker: int) -> None:
    """Connect to the other worker: only that one can accept. The connection stays open for the next request.

    The sleep is short, since uvicorn replaces a worker that is silent for seconds.
    """
    os.kill(worker, signal.SIGSTOP)
    try:
        (await http.get("/health")).raise_for_status()
    finally:
        os.kill(worker, signal.SIGCONT)
