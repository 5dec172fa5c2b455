"""Clients that hang up, send too much, or do not read."""

import json
import socket
from collections.abc import AsyncIterator
from contextlib import ExitStack

from tests.chaos.ide import Habits
from tests.chaos.world import Setup, World, world
from tests.service import KEY

HANGING_UP = Habits(tokens=True, cut=800, extra="words:20")
TOO_MUCH = 20_000_000
WORDS = 12_000
GROWTH = 6_000_000
"""Bytes of memory that a reader who never reads may cost."""


async def disconnect(setup: Setup) -> list[str]:
    """IDEs hang up after a random number of bytes, `rounds` times in all; no model is asked twice for that."""
    async with world(setup, delay=0.02) as it:
        it.asks_once = True
        await it.restart()
        async with it.playing(6, HANGING_UP):
            await it.until(lambda: sum(ide.cuts for ide in it.ides) >= setup.rounds, 300)
        return await it.judge()


async def body(setup: Setup) -> list[str]:
    """Bodies of 20 MB, with their length and without, while others work."""
    async with world(setup, delay=0.02) as it:
        await it.restart()
        async with it.playing(2):
            for number in range(setup.rounds):
                await _too_much(it, chunked=bool(number % 2))
        return await it.judge()


async def _too_much(it: World, *, chunked: bool) -> None:
    message = {"type": "tool_result", "call_id": "call_1", "result": "x" * TOO_MUCH}
    whole = json.dumps({"session_id": "s-1", "message": message}).encode()
    url = f"{it.replicas[0].url}/agent/message/stream"
    headers = {"Content-Type": "application/json"}
    response = await it.http.post(url, content=_pieces(whole) if chunked else whole, headers=headers, timeout=30)
    if response.status_code != 413:
        it.findings.append(f"a body of {len(whole)} bytes was answered with {response.status_code}")


async def _pieces(whole: bytes) -> AsyncIterator[bytes]:
    for start in range(0, len(whole), 65536):
        yield whole[start : start + 65536]


async def unread(setup: Setup) -> list[str]:
    """Readers who ask for every token of long answers and read nothing: the runs end, and others are served.

    They come in two waves: what the first one costs is the service's own peak, what the second adds is theirs.
    """
    async with world(setup, delay=0.02) as it:
        await it.restart()
        with ExitStack() as connections:
            async with it.playing(2):
                await _wave(it, "deaf", connections)
                before = it.replicas[0].memory()
                await _wave(it, "deafer", connections)
            grown = it.replicas[0].memory() - before
            if grown > GROWTH * setup.rounds:
                it.findings.append(f"{setup.rounds} readers who never read cost {grown} bytes")
            return await it.judge()


async def _wave(it: World, name: str, connections: ExitStack) -> None:
    for number in range(it.setup.rounds):
        session = f"{name}-{number}"
        connections.enter_context(_asked(it, f"[{session}#1] words:{WORDS}", session))
    done = f"select id from runs where session_id like '{name}-%' and status = 'done'"
    await it.until(lambda: len(it.database.rows(done)) == it.setup.rounds, 60 + it.setup.rounds)


def _asked(it: World, content: str, session: str) -> socket.socket:
    """A connection on which a message was sent, and nothing will be read."""
    message = {"type": "user_message", "content": content, "id": "m-1"}
    body = json.dumps({"session_id": session, "message": message, "stream": {"tokens": True}}).encode()
    head = f"POST /agent/message/stream HTTP/1.1\r\nHost: 127.0.0.1\r\nX-Internal-Auth: {KEY}\r\n"
    head += f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    connection = socket.socket()
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    connection.connect(("127.0.0.1", it.replicas[0].port))
    connection.sendall(head.encode() + body)
    return connection
