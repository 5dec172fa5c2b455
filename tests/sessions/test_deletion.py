"""A deleted session leaves no row, and an expired one is erased."""

import asyncio
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI

from server import create_app
from sessions.deletion import erase_session
from sessions.store import sessions as session_rows
from tests.support.rows import count_rows
from tests.support.scripted import DeferredReply, call_tool, choose_agent, make_model, say_text
from tests.support.service import GatewayClient, provide_model, settings_for, start_service, text_chunk
from tests.support.views import wait_for_queue

WRITE_CALL = call_tool("write_file", path="a.py", content="x")
READ_CALL = call_tool("read_file", path="a.py")


async def test_hard_delete_removes_every_row_of_the_session(database: str) -> None:
    settings = settings_for(database)
    app = create_app(
        settings,
        provide_model(
            make_model(
                choose_agent("coder"), WRITE_CALL, say_text("Fine."), READ_CALL, choose_agent("ask"), say_text("Hi.")
            )
        ),
    )
    async with start_service(None, settings, app) as client:
        session = client.open_session()
        await session.send_text("Write a.py")
        await session.decide("approve", remember={"scope": "session"})
        await session.send_result("done")
        await session.send_text("Read a.py")
        before = await count_rows(app)
        await client.http.delete("/sessions/s-1")
        assert await count_rows(app) == before
        deleted = await client.http.delete("/sessions/s-1?hard=true")
        after = await count_rows(app)
        assert (await session.send_text("Hello"))[-1] == text_chunk("Hi.")
    assert deleted.json() == {"session_id": "s-1", "deleted": True, "hard": True}
    ours = {"sessions", "runs", "calls", "grants", "audit_log", "audit_results", "checkpoints"}
    assert {name for name, count in before.items() if count} > ours
    assert before.keys() == after.keys()
    assert not any(after.values())


@pytest.mark.parametrize("hard", [False, True])
async def test_delete_stops_the_running_run_and_queued_messages(database: str, hard: bool) -> None:
    held = DeferredReply(say_text("Never."))
    settings = settings_for(database)
    app = create_app(
        settings, provide_model(make_model(choose_agent("ask"), held, choose_agent("ask"), say_text("Hi.")))
    )
    async with start_service(None, settings, app) as client:
        first = asyncio.create_task(client.open_session().send_text("First"))
        await held.requested.wait()
        second = asyncio.create_task(client.open_session().send_text("Second"))
        await wait_for_queue(client.open_session(), 1)
        deleted = await client.http.delete(f"/sessions/s-1?hard={hard}")
        assert deleted.json() == {"session_id": "s-1", "deleted": True, "hard": hard}
        assert (await first)[-1]["metadata"]["code"] == "cancelled"
        (withdrawn,) = await second
        assert (withdrawn["metadata"]["code"], withdrawn["error"]) == (
            "interrupted",
            "The message was not taken. Send it again.",
        )
        assert not hard or not any((await count_rows(app)).values())
        assert (await client.http.get("/sessions/s-1")).status_code == 404
        assert (await client.open_session().send_text("Hello"))[-1] == text_chunk("Hi.")
        assert [message["content"] for message in await client.open_session().fetch_history()] == ["Hello", "Hi."]


async def test_message_sent_during_erasure_starts_a_new_session(database: str) -> None:
    settings = settings_for(database)
    app = create_app(
        settings,
        provide_model(make_model(choose_agent("ask"), say_text("Hi."), choose_agent("ask"), say_text("Hi again."))),
    )
    async with start_service(None, settings, app) as client:
        await client.open_session().send_text("Hello")
        await client.http.delete("/sessions/s-1")
        async with app.state.deps.runs.replica.lease_session("s-1") as lease:
            asking = asyncio.create_task(client.open_session().send_text("Hello again"))
            for _ in range(20):
                assert (await client.http.get("/sessions/s-1")).status_code == 404
            assert not asking.done()
            await erase_session(app.state.deps, lease)
        assert (await asking)[-1] == text_chunk("Hi again.")


async def backdate_session(app: FastAPI, session_id: str, hours: float) -> None:
    """Put the session's last activity so many hours back."""
    then = (datetime.now(UTC) - timedelta(hours=hours)).isoformat(timespec="microseconds")
    await app.state.deps.database.transact(lambda c: session_rows.update_session(c, session_id, last_activity=then))


async def list_existing(client: GatewayClient, *names: str) -> Sequence[str]:
    return [name for name in names if (await client.http.get(f"/sessions/{name}")).status_code == 200]


async def test_expired_sessions_are_erased_unless_paused_or_running(database: str) -> None:
    held = DeferredReply(say_text("Hi."))
    lines: list[Any] = [
        choose_agent("ask"),
        say_text("Hi."),
        choose_agent("ask"),
        say_text("Hi."),
        choose_agent("ask"),
        say_text("Hi."),
    ]
    lines += [choose_agent("coder"), WRITE_CALL, choose_agent("coder"), READ_CALL, choose_agent("ask"), held]
    settings = settings_for(database, session_ttl_hours=24)
    app = create_app(settings, provide_model(make_model(*lines)))
    async with start_service(None, settings, app) as client:
        names = ["old", "young", "deleted", "asks", "gone", "busy"]
        for name in names[:-1]:
            await client.open_session(name).send_text("Hello")
        working = asyncio.create_task(client.open_session("busy").send_text("Hello"))
        await held.requested.wait()
        for name in ("deleted", "gone"):
            await client.http.delete(f"/sessions/{name}")
        for name in names:
            await backdate_session(app, name, 23 if name == "young" else 25)
        await app.state.janitor.expire_sessions()
        assert await list_existing(client, *names) == ["young", "asks", "busy"]
        for name in ("old", "deleted", "gone"):
            assert not any((await count_rows(app, name)).values())
        held.release.set()
        assert (await working)[-1] == text_chunk("Hi.")
        assert await list_existing(client, "busy") == ["busy"]


async def test_one_sweep_erases_many_sessions(tmp_path: Path) -> None:
    settings = settings_for(tmp_path, session_ttl_hours=24)
    app = create_app(settings, provide_model(make_model()))
    async with start_service(None, settings, app) as client:
        for _ in range(60):
            made = (await client.http.post("/sessions")).json()
            await backdate_session(app, made["session_id"], 25)
        await app.state.janitor.expire_sessions()
        assert (await client.open_session().get("/sessions"))["total"] == 0


async def test_nothing_is_erased_without_a_ttl(database: str) -> None:
    settings = settings_for(database)
    app = create_app(settings, provide_model(make_model(choose_agent("ask"), say_text("Hi."))))
    async with start_service(None, settings, app) as client:
        await client.open_session("old").send_text("Hello")
        await backdate_session(app, "old", 100_000)
        await app.state.janitor.expire_sessions()
        assert await list_existing(client, "old") == ["old"]


async def test_session_list_is_searched_and_paged_on_both_databases(database: str) -> None:
    lines = [line for _ in range(4) for line in (choose_agent("ask"), say_text("Hi."))]
    async with start_service(make_model(*lines), settings_for(database)) as client:
        for number, content in enumerate(["100% Größe", "a_b größer", "aXb", "Another GRÖSSE"]):
            await client.open_session(f"s-{number}").send_text(content)
        await client.http.delete("/sessions/s-3")
        pages: list[tuple[dict[str, Any], list[str], int]] = [
            ({}, ["aXb", "a_b größer", "100% Größe"], 3),
            ({"q": "GRÖSSE"}, ["a_b größer", "100% Größe"], 2),
            ({"q": "größe", "limit": 1}, ["a_b größer"], 2),
            ({"q": "größe", "limit": 1, "offset": 1}, ["100% Größe"], 2),
            ({"offset": 3}, [], 3),
            ({"q": "a_b"}, ["a_b größer"], 1),
            ({"q": "0%"}, ["100% Größe"], 1),
            ({"q": "\\"}, [], 0),
        ]
        for query, titles, total in pages:
            page = await client.open_session().get("/sessions", **query)
            assert ([each["title"] for each in page["sessions"]], page["total"]) == (titles, total)
        for refused in ("limit=0", "limit=1001", "offset=-1", f"q={'x' * 201}"):
            assert (await client.http.get(f"/sessions?{refused}")).status_code == 422
