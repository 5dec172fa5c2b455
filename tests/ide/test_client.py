import asyncio
from typing import Any

import pytest

from ide.client import ServiceClient, ServiceError
from ide.sse import ServerSentEvent, parse_events
from tests.ide.scripted import CUT, Service, fails, says, token

HELLO = {"type": "user_message", "content": "hello"}


def client(service: Service, **options: Any) -> ServiceClient:
    return ServiceClient(service.url, "k3y", **{"delays": (0, 0, 0), **options})


async def collected(running: ServiceClient, message: dict[str, Any] = HELLO) -> list[dict[str, Any]]:
    return [chunk async for chunk in running.send_message("s-1", message)]


async def test_events_are_read_across_any_split_of_the_bytes() -> None:
    text = ': quiet\n\nevent: message\nid: r-1\nretry: 5\ndata: {"a":\ndata: "ё\u2028"}\n\ndata:x\r\n\r\nevent: lost'

    async def bytewise() -> Any:
        for byte in text.encode():
            yield bytes([byte])

    assert [event async for event in parse_events(bytewise())] == [
        ServerSentEvent("message", '{"a":\n"ё\u2028"}', "r-1"),
        ServerSentEvent("message", "x", None),
    ]


async def test_a_message_goes_out_as_the_contract_says_and_its_chunks_come_back(service: Service) -> None:
    service.plays([token("Hel"), token("lo"), says("Hello")])
    async with client(service) as running:
        assert await collected(running) == [token("Hel"), token("lo"), says("Hello")]
    [request] = service.requests
    assert (request.method, request.path, request.headers["x-internal-auth"]) == (
        "POST",
        "/agent/message/stream",
        "k3y",
    )
    assert request.body["message"].pop("id")
    assert request.body == {"session_id": "s-1", "message": {**HELLO, "stream": {"tokens": True, "usage": True}}}


async def test_an_error_chunk_is_a_chunk(service: Service) -> None:
    service.plays([fails("llm_unavailable")])
    async with client(service) as running:
        assert await collected(running) == [fails("llm_unavailable")]


async def test_a_broken_stream_is_joined_where_it_broke(service: Service) -> None:
    service.plays([token("a"), token("b"), CUT], [token("c"), CUT], [says("abcd")])
    async with client(service) as running:
        assert await collected(running) == [token("a"), token("b"), token("c"), says("abcd")]
    joins = [(r.path, r.headers["last-event-id"]) for r in service.requests[1:]]
    assert joins == [
        ("/sessions/s-1/stream?tokens=true&usage=true", "run-2"),
        ("/sessions/s-1/stream?tokens=true&usage=true", "run-3"),
    ]


async def test_a_request_that_brought_nothing_is_repeated_as_it_was(service: Service) -> None:
    service.plays([CUT], [says("Hello")])
    async with client(service) as running:
        assert await collected(running) == [says("Hello")]
    first, second = service.requests
    assert first.body == second.body


async def test_a_service_that_is_busy_is_asked_again(service: Service) -> None:
    service.refusals.append((503, {"Retry-After": "0"}))
    service.plays([says("Hello")])
    async with client(service) as running:
        assert await collected(running) == [says("Hello")]


async def test_a_restart_in_mid_stream_is_survived() -> None:
    lost = asyncio.Event()

    async def restarted(port: int) -> Service:
        await lost.wait()
        service = Service(port)
        service.plays([says("Hello")])
        return await service.__aenter__()

    async with Service() as first:
        first.plays([token("Hel"), CUT])
        first.closes_after_cut = True
        second = asyncio.create_task(restarted(first.port))
        async with client(first, delays=(0.05,) * 100, notice=lambda _: lost.set()) as running:
            stream = running.send_message("s-1", HELLO)
            assert await anext(stream) == token("Hel")
            rest = asyncio.create_task(_rest(stream))
            assert await rest == [says("Hello")]
        await (await second).__aexit__()


async def _rest(stream: Any) -> list[dict[str, Any]]:
    return [chunk async for chunk in stream]


async def test_what_is_refused_is_not_tried_again(service: Service) -> None:
    service.refusals += [(401, {}), (422, {})]
    async with client(service) as running:
        with pytest.raises(ServiceError, match="INTERNAL_API_KEY") as refused:
            await collected(running)
        assert refused.value.status == 401
        with pytest.raises(ServiceError, match="422"):
            await running.list_sessions()
    assert len(service.requests) == 2


async def test_a_service_that_stays_away_is_given_up_with_its_address(service: Service) -> None:
    notices: list[str] = []
    await service.__aexit__()
    async with client(service, notice=notices.append) as running:
        with pytest.raises(ServiceError, match=f"{service.port}.*cannot be reached"):
            await collected(running)
    assert len(notices) == 3
