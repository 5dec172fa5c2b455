"""What outlives a process: killed at the worst moments, on SQLite and Postgres."""

import asyncio
import json
import signal
from collections.abc import Awaitable
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import create_engine, text
from sqlalchemy.engine import make_url

from graph import wire
from graph.permissions.loops import DetectedLoop
from server import create_app
from sessions.request import RunRequest
from sessions.store.audit import first_broken_entry
from tests.llm_server import ScriptedLLM, calls, chooses, hangs, says, status
from tests.process import Process, serving
from tests.scripted import Held, model
from tests.scripted import calls as line_calls
from tests.scripted import chooses as line_chooses
from tests.scripted import says as line_says
from tests.service import chunks_of, events_of, given, service, settings_for, tool_call, write_approval
from tests.service import text as said

pytestmark = pytest.mark.anyio
AGAIN = DetectedLoop({"name": "calculator", "args": {"expr": "1 + 1"}, "id": "c2"})
HELLO = {"session_id": "s-1", "message": {"type": "user_message", "content": "Hello"}}


def proxied(llm: ScriptedLLM) -> dict[str, str]:
    return {"llm_model": "scripted", "llm_proxy_url": llm.url}


def rows(database: str, statement: str) -> list[Any]:
    """Of a database that no process serves at the moment."""
    url = make_url(database)
    engine = create_engine(url if url.get_backend_name() == "sqlite" else url.set(drivername="postgresql+psycopg"))
    with engine.begin() as connection:
        result = connection.execute(text(statement))
        found = list(result) if result.returns_rows else []
    engine.dispose()
    return found


async def cut_off(
    service: Process, sending: Awaitable[Any], moment: Awaitable[Any], how: signal.Signals = signal.SIGKILL
) -> None:
    """Ends the service at the moment, while it still answers what is sent."""
    answering = asyncio.ensure_future(sending)
    await moment
    await service.kill(how)
    await asyncio.wait([answering])
    assert answering.exception()


async def test_a_pending_approval_survives_a_kill_and_can_be_decided(database: str) -> None:
    async with ScriptedLLM(chooses("coder"), calls("write_file", path="a.py", content="x"), says("Written.")) as llm:
        async with serving(database, **proxied(llm)) as service:
            assert (await service.session().user("Write a.py"))[-1] == write_approval("a.py", "x")
            await service.kill()
        async with serving(database, **proxied(llm)) as service:
            session = service.session()
            assert (await session.get("/sessions/{id}/pending-approvals"))["count"] == 1
            assert await session.decide("approve") == [tool_call("write_file", path="a.py", content="x")]
            await service.kill()
        async with serving(database, **proxied(llm)) as service:
            session = service.session()
            assert await session.decide("approve") == [tool_call("write_file", path="a.py", content="x")]
            assert await session.result("done") == [said("Written.")]
            assert (await session.get("/sessions/{id}/audit"))["count"] == 1
            assert [message["role"] for message in await session.history()] == [
                "user",
                "assistant",
                "tool",
                "assistant",
            ]


async def test_a_run_that_was_killed_is_done_again(database: str) -> None:
    async with ScriptedLLM(chooses("ask"), hangs(), chooses("ask"), says("Hi.")) as llm:
        async with serving(database, **proxied(llm)) as service:
            await cut_off(service, service.session().user("Hello"), llm.received(2))
        async with serving(database, **proxied(llm)) as service:
            again = await service.http.get("/sessions/s-1/stream")
            assert events_of(again.text)[-2][1] == said("Hi.")
            history = await service.session().history()
    assert history == [{"role": "user", "content": "Hello"}, {"role": "assistant", "content": "Hi."}]


async def test_half_of_what_a_killed_run_wrote_is_not_half_of_its_next_attempt(database: str) -> None:
    writes = "writes" if database.startswith("sqlite") else "checkpoint_writes"
    head = "(select max(checkpoint_id) from checkpoints)"
    async with ScriptedLLM(chooses("ask"), says("Hi."), hangs(), says("Hi again.")) as llm:
        async with serving(database, **proxied(llm)) as service:
            await service.session().user("Hello")
            await cut_off(service, service.session().user("Hello again"), llm.received(3))
        rows(database, f"create table half as select * from {writes} where channel = 'messages'")
        rows(database, f"update half set checkpoint_id = {head}, task_id = 'half'")
        rows(database, f"insert into {writes} select * from half where idx = 0 limit 1")
        async with serving(database, **proxied(llm)) as service:
            await service.http.get("/sessions/s-1/stream")
            history = await service.session().history()
    assert [message["content"] for message in history] == ["Hello", "Hi.", "Hello again", "Hi again."]


async def test_a_first_run_that_was_killed_in_the_middle_of_its_checkpoint_is_done_again(database: str) -> None:
    async with ScriptedLLM(chooses("ask"), says("Hi."), chooses("ask"), says("Hi again.")) as llm:
        async with serving(database, **proxied(llm)) as service:
            await service.session().user("Hello")
            await service.kill()
        rows(database, "delete from checkpoints where parent_checkpoint_id is not null")
        rows(database, "update runs set status = 'running', events = null")
        async with serving(database, **proxied(llm)) as service:
            again = await service.http.get("/sessions/s-1/stream")
            assert events_of(again.text)[-2][1] == said("Hi again.")
            history = await service.session().history()
    assert history == [{"role": "user", "content": "Hello"}, {"role": "assistant", "content": "Hi again."}]


async def test_a_run_that_was_stopped_goes_on_where_it_was(tmp_path: Path) -> None:
    database = f"sqlite:///{tmp_path}/test.db"
    async with ScriptedLLM(chooses("ask"), hangs(), says("Hi.")) as llm:
        async with serving(database, shutdown_seconds="1", **proxied(llm)) as service:
            answering = asyncio.create_task(service.session().user("Hello"))
            await llm.received(2)
            await service.kill(signal.SIGTERM)
            switch, error = await answering
        assert (switch["type"], error["metadata"]["code"]) == ("agent_switched", "interrupted")
        async with serving(database, **proxied(llm)) as service:
            again = await service.http.get("/sessions/s-1/stream")
            assert events_of(again.text)[-2][1] == said("Hi.")
            history = await service.session().history()
    assert history == [{"role": "user", "content": "Hello"}, {"role": "assistant", "content": "Hi."}]


async def test_what_waits_at_the_end_does_not_go_ahead_of_what_is_cut_off(tmp_path: Path) -> None:
    held = Held(line_says("One."))
    settings = settings_for(tmp_path, log_level="CRITICAL", shutdown_seconds=0)
    app = create_app(settings, given(model(line_chooses("ask"), held)))
    async with app.router.lifespan_context(app):
        first, second = [RunRequest("s-1", wire.UserMessage(content=said), wire.StreamOptions()) for said in ("1", "2")]
        streams = [await app.state.runs.submit(first)]
        await held.asked.wait()
        streams.append(await app.state.runs.submit(second))
    for stream in streams:
        (error, _done) = [json.loads(event.data) for event in stream.log.events if "agent_switched" not in event.data]
        assert error["metadata"]["code"] == "interrupted"
        assert error["error"].startswith("The service restarts, the work goes on. Join")
    statuses = rows(f"sqlite:///{tmp_path}/test.db", "select status from runs order by number")
    assert statuses == [("handed",), ("queued",)]
    async with service(model(line_says("One."), line_says("Two.")), settings) as client:
        await client.http.get("/sessions/s-1/stream")
        await client.http.get("/sessions/s-1/stream")
        assert [m["content"] for m in await client.session().history()] == ["1", "One.", "2", "Two."]


async def test_a_result_whose_run_was_cut_off_is_not_lost(database: str) -> None:
    read = calls("read_file", path="a.py")
    async with ScriptedLLM(chooses("ask"), read, hangs(), says("Read.")) as llm:
        async with serving(database, **proxied(llm)) as service:
            await service.session().user("Read a.py")
            await cut_off(service, service.session().result("x = 1"), llm.received(3))
        async with serving(database, **proxied(llm)) as service:
            assert await service.session().result("x = 1") == [said("Read.")]
            roles = [message["role"] for message in await service.session().history()]
    assert roles == ["user", "assistant", "tool", "assistant"]


async def test_a_run_that_is_cut_off_again_fails_visibly(tmp_path: Path) -> None:
    database = f"sqlite:///{tmp_path}/test.db"
    async with ScriptedLLM(hangs(), hangs(), chooses("ask"), says("Hi.")) as llm:
        async with serving(database, **proxied(llm)) as service:
            await cut_off(service, service.session().user("Hello"), llm.received(1))
        async with serving(database, **proxied(llm)) as service:
            await llm.received(2)
            await service.kill()
        async with serving(database, **proxied(llm)) as service:
            ((_, error), _done) = events_of((await service.http.get("/sessions/s-1/stream")).text)
            assert error["metadata"]["code"] == "interrupted"
            assert (await service.session().user("Hello again"))[-1] == said("Hi.")


@pytest.mark.parametrize(
    ("message", "script", "told"),
    [
        (
            {"type": "user_message", "content": "Write a.py"},
            (chooses("coder"), says("I will.") & calls("write_file", path="a.py", content="x")),
            ["agent_switched", said("I will.", is_final=False), write_approval("a.py", "x")],
        ),
        (
            {"type": "switch_agent", "agent_type": "coder", "content": "Write a.py"},
            (says("So.") & calls("attempt_completion", result="Done."),),
            ["agent_switched", said("So.\n\nDone.", metadata={"completion": True})],
        ),
        (
            {"type": "switch_agent", "agent_type": "coder", "content": "Add"},
            tuple(calls("calculator", id=f"c{n}", expr="1 + 1") for n in range(3)),
            ["agent_switched", said(AGAIN.question, metadata=AGAIN.metadata)],
        ),
        ({"type": "switch_agent", "agent_type": "coder"}, (), ["agent_switched"]),
        ({"type": "switch_agent", "agent_type": "coder", "content": "Hi"}, (status(400),), ["agent_switched", "error"]),
    ],
)
async def test_an_outcome_that_was_not_stored_is_read_off_the_thread(
    tmp_path: Path, message: dict[str, Any], script: tuple[Any, ...], told: list[Any]
) -> None:
    database = f"sqlite:///{tmp_path}/test.db"
    async with ScriptedLLM(says("An earlier answer."), *script) as llm:
        async with serving(database, **proxied(llm)) as service:
            await service.session().switch("ask", content="Hello")
            await service.session().switch("orchestrator")
            await service.session().send(message)
            await service.kill()
        newest = "(select max(created_at) from runs)"
        rows(database, f"update runs set status = 'running', events = null where created_at = {newest}")
        rows(database, "update sessions set pause = null, agent = 'orchestrator', message_count = 0")
        async with serving(database, **proxied(llm)) as service:
            chunks = chunks_of(await service.http.get("/sessions/s-1/stream"))
            session = await service.session().get("/sessions/{id}")
            pending = await service.session().get("/sessions/{id}/pending-approvals")
    assert [chunk["type"] if isinstance(want, str) else chunk for chunk, want in zip(chunks, told, strict=True)] == told
    assert session["current_agent"] == "coder"
    assert pending["count"] == int(chunks[-1]["type"] == "tool_call")


async def test_an_outcome_that_the_database_did_not_take_is_made_good(tmp_path: Path) -> None:
    held = Held(line_says("Read."))
    llm = model(line_chooses("ask"), line_calls("read_file", path="a.py"), held, line_says("Again."))
    database = f"sqlite:///{tmp_path}/test.db"
    async with service(llm, settings_for(database, log_level="CRITICAL")) as client:
        session = client.session()
        await session.user("Read a.py")
        answering = asyncio.create_task(session.result("x = 1"))
        await held.asked.wait()
        rows(database, "alter table runs rename to gone")
        held.release.set()
        (error,) = await answering
        assert (error["metadata"]["code"], error["error"][:20]) == ("interrupted", "The database failed.")
        refused = await client.http.post("/agent/message/stream", json=HELLO)
        assert (refused.status_code, refused.headers["retry-after"]) == (503, "5")
        rows(database, "alter table gone rename to runs")
        assert await session.result("x = 1") == [said("Read.")]
        assert await session.user("Again") == [said("Again.")]
        assert [message["role"] for message in await session.history()][-2:] == ["user", "assistant"]


async def test_a_pause_that_the_thread_does_not_know_ends_in_an_error_and_the_next_message_works(
    tmp_path: Path,
) -> None:
    database = f"sqlite:///{tmp_path}/test.db"
    llm = model(line_chooses("ask"), line_calls("read_file", path="a.py"), line_says("Hi."))
    async with service(llm, settings_for(database, log_level="CRITICAL")) as client:
        session = client.session()
        await session.user("Read a.py")
        rows(database, "create table kept as select pause from sessions")
        await client.http.post("/sessions/s-1/cancel")
        rows(database, "update sessions set pause = (select pause from kept)")
        (error,) = await session.result("x = 1")
        assert error["metadata"]["code"] == "internal"
        assert await session.user("Hello") == [said("Hi.")]


async def test_a_second_process_on_the_same_file_is_refused(tmp_path: Path) -> None:
    database = f"sqlite:///{tmp_path}/test.db"
    async with serving(database):
        with pytest.raises(RuntimeError, match="Another process serves the database"):
            async with serving(database):
                pass


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"port": "abc"}, "AGENT_RUNTIME__PORT: Input should be a valid integer"),
        ({"log_level": "loud"}, "AGENT_RUNTIME__LOG_LEVEL: Input should be 'DEBUG', 'INFO'"),
        ({"db_url": "mysql://x"}, "AGENT_RUNTIME__DB_URL: it must begin with sqlite:/// or postgresql://"),
        ({"db_url": "sqlite:////proc/nope/a.db"}, "The service cannot start: [Errno 2] No such file"),
        ({"workers": "2"}, "AGENT_RUNTIME__WORKERS: an SQLite file takes one process, not 2"),
        ({"internal_api_key": ""}, "The service cannot start: AGENT_RUNTIME__INTERNAL_API_KEY is empty"),
        (
            {"llm_model": "m", "llm_proxy_url": "nowhere"},
            "The service cannot start: AGENT_RUNTIME__LLM_PROXY_URL is no",
        ),
    ],
)
async def test_settings_that_cannot_be_used_end_in_a_sentence(
    tmp_path: Path, settings: dict[str, str], sentence: str
) -> None:
    with pytest.raises(RuntimeError) as said:
        async with serving(f"sqlite:///{tmp_path}/test.db", **settings):
            pass
    assert str(said.value).startswith(sentence)
    assert "Traceback" not in str(said.value)


async def test_sessions_do_not_disturb_each_other(database: str) -> None:
    lines = {"human": line_calls("read_file", path="a.py"), "tool": line_says("Read.")}
    answers = (lambda messages: lines[messages[-1].type] for _ in range(64))
    llm = model(*answers)
    async with service(llm, settings_for(database)) as client:
        sessions = [client.session(f"s-{number}") for number in range(16)]
        await asyncio.gather(*(session.switch("ask") for session in sessions))
        for _ in range(2):
            asked = await asyncio.gather(*(session.user("Read a.py") for session in sessions))
            ids = [chunks[-1]["call_id"] for chunks in asked]
            told = await asyncio.gather(*(s.result("x", call_id) for s, call_id in zip(sessions, ids, strict=True)))
            assert told == [[said("Read.")]] * 16


async def test_the_audit_shows_when_it_was_tampered_with(tmp_path: Path) -> None:
    database = f"sqlite:///{tmp_path}/test.db"
    lines = [line_calls("write_file", call_id=f"call_{n}", path=f"{n}.py", content="x") for n in range(3)]
    async with service(model(line_chooses("coder"), *lines, line_says("Fine.")), settings_for(database)) as client:
        await client.session().user("Write")
        for number in range(3):
            await client.session().decide("reject", f"call_{number}", feedback=str(number))
        entries = (await client.session().get("/sessions/{id}/audit"))["entries"]
    assert first_broken_entry("s-1", entries) is None
    assert first_broken_entry("s-1", entries[1:]) == 1
    assert first_broken_entry("s-1", [entries[0], {**entries[1], "decision": "approve"}, entries[2]]) == 2
    assert first_broken_entry("s-2", entries) == 1
    assert json.dumps(entries).count('"decision": "reject"') == 3


async def test_what_was_decided_stays_decided_when_its_run_is_cut_off_twice(tmp_path: Path) -> None:
    database = f"sqlite:///{tmp_path}/test.db"
    write = calls("write_file", path="a.py", content="x")
    async with ScriptedLLM(chooses("coder"), write, hangs(), hangs(), says("Well.")) as llm:
        async with serving(database, **proxied(llm)) as service:
            await service.session().user("Write a.py")
            await cut_off(service, service.session().decide("reject"), llm.received(3))
        async with serving(database, **proxied(llm)) as service:
            await llm.received(4)
            await service.kill()
        async with serving(database, **proxied(llm)) as service:
            (error,) = await service.session().decide("approve")
            assert error["metadata"]["code"] == "call_not_open"
            assert "was decided already: reject" in error["error"]
            assert await service.session().decide("reject") == [said("Well.")]
            (entry,) = (await service.session().get("/sessions/{id}/audit"))["entries"]
    assert (entry["decision"], entry["decided_by"]) == ("reject", "hitl_decision")
