"""Several processes on one port, over Postgres."""

import asyncio
import os
import re
import signal

import httpx

from tests.support.process import ServiceProcess, start_process
from tests.support.service import API_KEY, GatewayClient


async def wait_for_workers(service: ServiceProcess) -> list[int]:
    """The ids of both, once they have started."""
    async with asyncio.timeout(30):
        while True:
            started = re.findall(rb"Started server process \[(\d+)\]", bytes(service.output))
            if len(started) == 2 and service.output.count(b"Application startup complete") == 2:
                return [int(worker) for worker in started]
            await asyncio.sleep(0.05)


def is_alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    return True


async def test_two_workers_answer_on_one_port_and_end_together(shared: str) -> None:
    async with start_process(shared, workers="2") as service:
        both = await wait_for_workers(service)
        for sleeping in both:
            os.kill(sleeping, signal.SIGSTOP)
            async with httpx.AsyncClient(base_url=service.http.base_url, headers={"X-Internal-Auth": API_KEY}) as http:
                answered = await GatewayClient(http).open_session(f"s-{sleeping}").send_text("hello")
            os.kill(sleeping, signal.SIGCONT)
            assert answered[-1]["is_final"]
        assert (await service.open_session().get("/sessions"))["total"] == 2
        await service.kill(signal.SIGTERM)
        assert service.process.returncode == 0
    assert not any(is_alive(worker) for worker in both)
    assert b"Traceback" not in service.output
