"""Nothing is left of what was deleted, and what nobody touches goes by itself."""

import asyncio
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI
from sqlalchemy import Connection, MetaData, func, select

from server import create_app
from sessions.store import sessions as session_rows
from tests.scripted import Held, calls, chooses, model, says
from tests.service import Client, given, service, settings_for, text

pytestmark = pytest.mark.anyio

WRITE = calls("write_file", path="a.py", content="x")
READ = calls("read_file", path="a.py")


async def left(app: FastAPI, session_id: str = "s-1") -> dict[str, int]:
    """How many rows of a session each table of the database holds, ours and langgraph's."""
    counts: dict[str, int] = await app.state.database.transact(lambda connection: rows_of(connection, session_id))
    return counts


def rows_of(connection: Connection, session_id: str) -> dict[str, int]:
    found = MetaData()
    found.reflect(connection)
    counts = {}
    for name, table in found.tables.items():
        for column in ("session_id", "thread_id", "id" if name == "sessions" else ""):
            if column in table.columns:
                wanted = select(func.count()).select_from(table).where(table.c[column] == session_id)
                counts[name] = connection.scalar(wanted) or 0
    return counts


async def test_after_a_hard_delete_no_table_has_a_row_of_the_session(database: str) -> None:
    settings = settings_for(database)
    app = create_app(settings, given(model(chooses("coder"), WRITE, says("Fine."), READ, chooses("ask"), says("Hi."))))
    async with service(None, settings, app) as client:
        session = client.session()
        await session.user("Write a.py")
        await session.decide("approve", remember={"scope": "session"})
        await session.result("done")
        await session.user("Read a.py")
        before = await left(app)
        await client.http.delete("/sessions/s-1")
        assert await left(app) == before
        deleted = await client.http.delete("/sessions/s-1?hard=true")
        after = await left(app)
        assert (await session.user("Hello"))[-1] == text("Hi.")
    assert deleted.json() == {"session_id": "s-1", "deleted": True, "hard": True}
    ours = {"sessions", "runs", "calls", "grants", "audit_log", "audit_results", "checkpoints"}
    assert {name for name, count in before.items() if count} > ours
    assert before.keys() == after.keys()
    assert not any(after.values())


@pytest.mark.parametrize("hard", [False, True])
async def test_who_deletes_a_session_at_work_stops_it_and_what_waits(database: str, hard: bool) -> None:
    held = Held(says("Never."))
    settings = settings_for(database)
    app = create_app(settings, given(model(chooses("ask"), held, chooses("ask"), says("Hi."))))
    async with service(None, settings, app) as client:
        first = asyncio.create_task(client.session().user("First"))
        await held.asked.wait()
        second = asyncio.create_task(client.session().user("Second"))
        await waits(client, 1)
        deleted = await client.http.delete(f"/sessions/s-1?hard={hard}")
        assert deleted.json() == {"session_id": "s-1", "deleted": True, "hard": hard}
        assert (await first)[-1]["metadata"]["code"] == "cancelled"
        (withdrawn,) = await second
        assert (withdrawn["metadata"]["code"], withdrawn["error"]) == (
            "interrupted",
            "The message was not taken. Send it again.",
        )
        assert not hard or not any((await left(app)).values())
        assert (await client.http.get("/sessions/s-1")).status_code == 404
        assert (await client.session().user("Hello"))[-1] == text("Hi.")
        assert [message["content"] for message in await client.session().history()] == ["Hello", "Hi."]


async def test_a_message_that_comes_while_its_session_is_erased_begins_it_anew(database: str) -> None:
    settings = settings_for(database)
    app = create_app(settings, given(model(chooses("ask"), says("Hi."), chooses("ask"), says("Hi again."))))
    async with service(None, settings, app) as client:
        await client.session().user("Hello")
        await client.http.delete("/sessions/s-1")
        async with app.state.runs.replica.hold("s-1") as lease:
            asking = asyncio.create_task(client.session().user("Hello again"))
            for _ in range(20):
                assert (await client.http.get("/sessions/s-1")).status_code == 404
            assert not asking.done()
            await app.state.sessions.removal.erase(lease)
        assert (await asking)[-1] == text("Hi again.")


async def waits(client: Client, messages: int) -> None:
    while (await client.session().get("/sessions/{id}/view"))["waiting"] != messages:
        pass


async def age(app: FastAPI, session_id: str, hours: float) -> None:
    """As if its last activity were so long ago."""
    then = (datetime.now(UTC) - timedelta(hours=hours)).isoformat(timespec="microseconds")
    await app.state.database.transact(lambda c: session_rows.update_session(c, session_id, last_activity=then))


async def there(client: Client, *names: str) -> Sequence[str]:
    return [name for name in names if (await client.http.get(f"/sessions/{name}")).status_code == 200]


async def test_what_nobody_touched_for_long_is_erased_but_not_what_waits_for_somebody(database: str) -> None:
    held = Held(says("Hi."))
    lines: list[Any] = [chooses("ask"), says("Hi."), chooses("ask"), says("Hi."), chooses("ask"), says("Hi.")]
    lines += [chooses("coder"), WRITE, chooses("coder"), READ, chooses("ask"), held]
    settings = settings_for(database, session_ttl_hours=24)
    app = create_app(settings, given(model(*lines)))
    async with service(None, settings, app) as client:
        names = ["old", "young", "deleted", "asks", "gone", "busy"]
        for name in names[:-1]:
            await client.session(name).user("Hello")
        working = asyncio.create_task(client.session("busy").user("Hello"))
        await held.asked.wait()
        for name in ("deleted", "gone"):
            await client.http.delete(f"/sessions/{name}")
        for name in names:
            await age(app, name, 23 if name == "young" else 25)
        await app.state.janitor.expire()
        assert await there(client, *names) == ["young", "asks", "busy"]
        for name in ("old", "deleted", "gone"):
            assert not any((await left(app, name)).values())
        held.release.set()
        assert (await working)[-1] == text("Hi.")
        assert await there(client, "busy") == ["busy"]


async def test_one_sweep_erases_more_than_a_few(tmp_path: Path) -> None:
    settings = settings_for(tmp_path, session_ttl_hours=24)
    app = create_app(settings, given(model()))
    async with service(None, settings, app) as client:
        for _ in range(60):
            made = (await client.http.post("/sessions")).json()
            await age(app, made["session_id"], 25)
        await app.state.janitor.expire()
        assert (await client.session().get("/sessions"))["total"] == 0


async def test_without_a_limit_nothing_is_erased(database: str) -> None:
    settings = settings_for(database)
    app = create_app(settings, given(model(chooses("ask"), says("Hi."))))
    async with service(None, settings, app) as client:
        await client.session("old").user("Hello")
        await age(app, "old", 100_000)
        await app.state.janitor.expire()
        assert await there(client, "old") == ["old"]


async def test_the_list_is_searched_and_paged_the_same_on_both_databases(database: str) -> None:
    lines = [line for _ in range(4) for line in (chooses("ask"), says("Hi."))]
    async with service(model(*lines), settings_for(database)) as client:
        for number, content in enumerate(["100% Größe", "a_b größer", "aXb", "Another GRÖSSE"]):
            await client.session(f"s-{number}").user(content)
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
            page = await client.session().get("/sessions", **query)
            assert ([each["title"] for each in page["sessions"]], page["total"]) == (titles, total)
        for refused in ("limit=0", "limit=1001", "offset=-1", f"q={'x' * 201}"):
            assert (await client.http.get(f"/sessions?{refused}")).status_code == 422
