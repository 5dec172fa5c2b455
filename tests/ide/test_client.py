"""The IDE's client sends messages, reads streams, and joins a stream that broke."""

import asyncio
from typing import Any

import pytest

from ide.client import ServiceClient, ServiceError
from ide.sse import ServerSentEvent, parse_events
from tests.support.scripted_service import DISCONNECT, ScriptedService, error_chunk, text_chunk, token_chunk

HELLO_MESSAGE = {"type": "user_message", "content": "hello"}


def make_client(service: ScriptedService, **options: Any) -> ServiceClient:
    return ServiceClient(service.url, "k3y", **{"delays": (0, 0, 0), **options})


async def collect_chunks(running: ServiceClient, message: dict[str, Any] = HELLO_MESSAGE) -> list[dict[str, Any]]:
    return [chunk async for chunk in running.send_message("s-1", message)]


async def test_events_are_read_across_any_split_of_the_bytes() -> None:
    text = ': quiet\n\nevent: message\nid: r-1\nretry: 5\ndata: {"a":\ndata: "ё\u2028"}\n\ndata:x\r\n\r\nevent: lost'

    async def iter_bytes() -> Any:
        for byte in text.encode():
            yield bytes([byte])

    assert [event async for event in parse_events(iter_bytes())] == [
        ServerSentEvent("message", '{"a":\n"ё\u2028"}', "r-1"),
        ServerSentEvent("message", "x", None),
    ]


async def test_message_and_chunks_follow_the_contract(service: ScriptedService) -> None:
    service.add_scripts([token_chunk("Hel"), token_chunk("lo"), text_chunk("Hello")])
    async with make_client(service) as running:
        assert await collect_chunks(running) == [token_chunk("Hel"), token_chunk("lo"), text_chunk("Hello")]
    [request] = service.requests
    assert (request.method, request.path, request.headers["x-internal-auth"]) == (
        "POST",
        "/agent/message/stream",
        "k3y",
    )
    assert request.body["message"].pop("id")
    assert request.body == {
        "session_id": "s-1",
        "message": {**HELLO_MESSAGE, "stream": {"tokens": True, "usage": True}},
    }


async def test_error_chunk_is_yielded(service: ScriptedService) -> None:
    service.add_scripts([error_chunk("llm_unavailable")])
    async with make_client(service) as running:
        assert await collect_chunks(running) == [error_chunk("llm_unavailable")]


async def test_a_broken_stream_is_joined_where_it_broke(service: ScriptedService) -> None:
    service.add_scripts(
        [token_chunk("a"), token_chunk("b"), DISCONNECT], [token_chunk("c"), DISCONNECT], [text_chunk("abcd")]
    )
    async with make_client(service) as running:
        assert await collect_chunks(running) == [
            token_chunk("a"),
            token_chunk("b"),
            token_chunk("c"),
            text_chunk("abcd"),
        ]
    joins = [(r.path, r.headers["last-event-id"]) for r in service.requests[1:]]
    assert joins == [
        ("/sessions/s-1/stream?tokens=true&usage=true", "run-2"),
        ("/sessions/s-1/stream?tokens=true&usage=true", "run-3"),
    ]


async def test_request_without_an_answer_is_repeated_unchanged(service: ScriptedService) -> None:
    service.add_scripts([DISCONNECT], [text_chunk("Hello")])
    async with make_client(service) as running:
        assert await collect_chunks(running) == [text_chunk("Hello")]
    first, second = service.requests
    assert first.body == second.body


async def test_busy_service_is_retried(service: ScriptedService) -> None:
    service.refusals.append((503, {"Retry-After": "0"}))
    service.add_scripts([text_chunk("Hello")])
    async with make_client(service) as running:
        assert await collect_chunks(running) == [text_chunk("Hello")]


async def test_client_survives_a_restart_during_a_stream() -> None:
    lost = asyncio.Event()

    async def restart_service(port: int) -> ScriptedService:
        await lost.wait()
        service = ScriptedService(port)
        service.add_scripts([text_chunk("Hello")])
        return await service.__aenter__()

    async with ScriptedService() as first:
        first.add_scripts([token_chunk("Hel"), DISCONNECT])
        first.closes_after_cut = True
        second = asyncio.create_task(restart_service(first.port))
        async with make_client(first, delays=(0.05,) * 100, notice=lambda _: lost.set()) as running:
            stream = running.send_message("s-1", HELLO_MESSAGE)
            assert await anext(stream) == token_chunk("Hel")
            rest = asyncio.create_task(_collect_rest(stream))
            assert await rest == [text_chunk("Hello")]
        await (await second).__aexit__()


async def _collect_rest(stream: Any) -> list[dict[str, Any]]:
    return [chunk async for chunk in stream]


async def test_client_error_is_not_retried(service: ScriptedService) -> None:
    service.refusals += [(401, {}), (422, {})]
    async with make_client(service) as running:
        with pytest.raises(ServiceError, match="INTERNAL_API_KEY") as refused:
            await collect_chunks(running)
        assert refused.value.status == 401
        with pytest.raises(ServiceError, match="422"):
            await running.list_sessions()
    assert len(service.requests) == 2


async def test_unreachable_service_is_reported_with_its_address(service: ScriptedService) -> None:
    notices: list[str] = []
    await service.__aexit__()
    async with make_client(service, notice=notices.append) as running:
        with pytest.raises(ServiceError, match=f"{service.port}.*cannot be reached"):
            await collect_chunks(running)
    assert len(notices) == 3
