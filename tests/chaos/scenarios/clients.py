"""Scenarios with clients that hang up, send too much, or do not read."""

import json
import socket
from collections.abc import AsyncIterator
from contextlib import ExitStack

from tests.chaos.ide import IdeBehavior
from tests.chaos.world import ScenarioSetup, World, open_world
from tests.support.service import API_KEY

DISCONNECTING_BEHAVIOR = IdeBehavior(tokens=True, cut_after_bytes=800, extra_words="words:20")
OVERSIZED_BYTES = 20_000_000
ANSWER_WORDS = 12_000
MAX_MEMORY_GROWTH = 6_000_000
"""Bytes of memory that one reader who never reads may cost."""


async def disconnect_clients(setup: ScenarioSetup) -> list[str]:
    """Let IDEs hang up after a random number of bytes, `rounds` times in all; no model call may be repeated."""
    async with open_world(setup, delay=0.02) as it:
        it.has_no_retries = True
        await it.restart_replicas()
        async with it.play_sessions(6, DISCONNECTING_BEHAVIOR):
            await it.wait_until(lambda: sum(ide.cuts for ide in it.ides) >= setup.rounds, 300)
        return await it.judge_outcome()


async def send_oversized_bodies(setup: ScenarioSetup) -> list[str]:
    """Send bodies of 20 MB, with their length and without it, while other sessions work."""
    async with open_world(setup, delay=0.02) as it:
        await it.restart_replicas()
        async with it.play_sessions(2):
            for number in range(setup.rounds):
                await _post_oversized_body(it, chunked=bool(number % 2))
        return await it.judge_outcome()


async def _post_oversized_body(it: World, *, chunked: bool) -> None:
    message = {"type": "tool_result", "call_id": "call_1", "result": "x" * OVERSIZED_BYTES}
    whole = json.dumps({"session_id": "s-1", "message": message}).encode()
    url = f"{it.replicas[0].url}/agent/message/stream"
    headers = {"Content-Type": "application/json"}
    response = await it.http.post(url, content=_split_body(whole) if chunked else whole, headers=headers, timeout=30)
    if response.status_code != 413:
        it.findings.append(f"a body of {len(whole)} bytes was answered with {response.status_code}")


async def _split_body(whole: bytes) -> AsyncIterator[bytes]:
    for start in range(0, len(whole), 65536):
        yield whole[start : start + 65536]


async def leave_streams_unread(setup: ScenarioSetup) -> list[str]:
    """Open streams with every token of long answers and read none: the runs end, and others are served.

    The readers come in two waves. The first one shows the service's own peak of memory, the second one their cost.
    """
    async with open_world(setup, delay=0.02) as it:
        await it.restart_replicas()
        with ExitStack() as connections:
            async with it.play_sessions(2):
                await _start_readers(it, "deaf", connections)
                before = it.replicas[0].measure_memory()
                await _start_readers(it, "deafer", connections)
            grown = it.replicas[0].measure_memory() - before
            if grown > MAX_MEMORY_GROWTH * setup.rounds:
                it.findings.append(f"{setup.rounds} readers who never read cost {grown} bytes")
            return await it.judge_outcome()


async def _start_readers(it: World, name: str, connections: ExitStack) -> None:
    for number in range(it.setup.rounds):
        session = f"{name}-{number}"
        connections.enter_context(_connect_reader(it, f"[{session}#1] words:{ANSWER_WORDS}", session))
    done = f"select id from runs where session_id like '{name}-%' and status = 'done'"
    await it.wait_until(lambda: len(it.database.fetch_rows(done)) == it.setup.rounds, 60 + it.setup.rounds)


def _connect_reader(it: World, content: str, session: str) -> socket.socket:
    """Send a message on a new connection from which nothing will be read; return the connection."""
    message = {"type": "user_message", "content": content, "id": "m-1"}
    body = json.dumps({"session_id": session, "message": message, "stream": {"tokens": True}}).encode()
    head = f"POST /agent/message/stream HTTP/1.1\r\nHost: 127.0.0.1\r\nX-Internal-Auth: {API_KEY}\r\n"
    head += f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    connection = socket.socket()
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    connection.connect(("127.0.0.1", it.replicas[0].port))
    connection.sendall(head.encode() + body)
    return connection
