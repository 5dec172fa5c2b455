"""Runs, approvals and results survive a process that is killed at the worst moments, on SQLite and Postgres."""

import asyncio
import json
import signal
from pathlib import Path
from typing import Any

import pytest

from graph import wire
from graph.completion.continuation import TRUNCATION_SENTENCES
from graph.permissions.loops import DetectedLoop
from graph.permissions.malformed import MALFORMED_QUESTIONS, MALFORMED_SUGGESTIONS
from server import create_app
from sessions.request import RunRequest
from sessions.store.audit import first_broken_entry
from tests.support.llm_server import (
    ScriptedLLM,
    cut_off,
    hang_after,
    respond_choice,
    respond_raw_tool_call,
    respond_status,
    respond_text,
    respond_tool_call,
)
from tests.support.process import kill_during_request, proxy_settings_for, start_process
from tests.support.scripted import DeferredReply, make_model
from tests.support.scripted import call_tool as line_calls
from tests.support.scripted import choose_agent as line_chooses
from tests.support.scripted import say_text as line_says
from tests.support.service import (
    parse_chunks,
    parse_events,
    provide_model,
    settings_for,
    start_service,
    tool_call_chunk,
    write_approval_chunk,
)
from tests.support.service import text_chunk as said
from tests.support.storage import execute_script

REPEATED_CALL = DetectedLoop({"name": "calculator", "args": {"expr": "1 + 1"}, "id": "c2"})
HELLO_BODY = {"session_id": "s-1", "message": {"type": "user_message", "content": "Hello"}}


async def test_a_pending_approval_survives_a_kill_and_can_be_decided(database: str) -> None:
    async with ScriptedLLM(
        respond_choice("coder"), respond_tool_call("write_file", path="a.py", content="x"), respond_text("Written.")
    ) as llm:
        async with start_process(database, **proxy_settings_for(llm)) as service:
            assert (await service.open_session().send_text("Write a.py"))[-1] == write_approval_chunk("a.py", "x")
            await service.kill()
        async with start_process(database, **proxy_settings_for(llm)) as service:
            session = service.open_session()
            assert (await session.get("/sessions/{id}/pending-approvals"))["count"] == 1
            assert await session.decide("approve") == [tool_call_chunk("write_file", path="a.py", content="x")]
            await service.kill()
        async with start_process(database, **proxy_settings_for(llm)) as service:
            session = service.open_session()
            assert await session.decide("approve") == [tool_call_chunk("write_file", path="a.py", content="x")]
            assert await session.send_result("done") == [said("Written.")]
            assert (await session.get("/sessions/{id}/audit"))["count"] == 1
            assert [message["role"] for message in await session.fetch_history()] == [
                "user",
                "assistant",
                "tool",
                "assistant",
            ]


async def test_killed_run_is_recovered(database: str) -> None:
    async with ScriptedLLM(respond_choice("ask"), hang_after(), respond_choice("ask"), respond_text("Hi.")) as llm:
        async with start_process(database, **proxy_settings_for(llm)) as service:
            await kill_during_request(service, service.open_session().send_text("Hello"), llm.wait_for_requests(2))
        async with start_process(database, **proxy_settings_for(llm)) as service:
            again = await service.http.get("/sessions/s-1/stream")
            assert parse_events(again.text)[-2][1] == said("Hi.")
            history = await service.open_session().fetch_history()
    assert history == [{"role": "user", "content": "Hello"}, {"role": "assistant", "content": "Hi."}]


async def test_partial_writes_of_a_killed_run_are_discarded(database: str) -> None:
    writes = "writes" if database.startswith("sqlite") else "checkpoint_writes"
    head = "(select max(checkpoint_id) from checkpoints)"
    async with ScriptedLLM(respond_choice("ask"), respond_text("Hi."), hang_after(), respond_text("Hi again.")) as llm:
        async with start_process(database, **proxy_settings_for(llm)) as service:
            await service.open_session().send_text("Hello")
            await kill_during_request(
                service, service.open_session().send_text("Hello again"), llm.wait_for_requests(3)
            )
        execute_script(database, f"create table half as select * from {writes} where channel = 'messages'")
        execute_script(database, f"update half set checkpoint_id = {head}, task_id = 'half'")
        execute_script(database, f"insert into {writes} select * from half where idx = 0 limit 1")
        async with start_process(database, **proxy_settings_for(llm)) as service:
            await service.http.get("/sessions/s-1/stream")
            history = await service.open_session().fetch_history()
    assert [message["content"] for message in history] == ["Hello", "Hi.", "Hello again", "Hi again."]


async def test_first_run_killed_during_its_checkpoint_is_recovered(database: str) -> None:
    async with ScriptedLLM(
        respond_choice("ask"), respond_text("Hi."), respond_choice("ask"), respond_text("Hi again.")
    ) as llm:
        async with start_process(database, **proxy_settings_for(llm)) as service:
            await service.open_session().send_text("Hello")
            await service.kill()
        execute_script(database, "delete from checkpoints where parent_checkpoint_id is not null")
        execute_script(database, "update runs set status = 'running', events = null")
        async with start_process(database, **proxy_settings_for(llm)) as service:
            again = await service.http.get("/sessions/s-1/stream")
            assert parse_events(again.text)[-2][1] == said("Hi again.")
            history = await service.open_session().fetch_history()
    assert history == [{"role": "user", "content": "Hello"}, {"role": "assistant", "content": "Hi again."}]


async def test_stopped_run_resumes_from_its_checkpoint(tmp_path: Path) -> None:
    database = f"sqlite:///{tmp_path}/test.db"
    async with ScriptedLLM(respond_choice("ask"), hang_after(), respond_text("Hi.")) as llm:
        async with start_process(database, shutdown_seconds="1", **proxy_settings_for(llm)) as service:
            answering = asyncio.create_task(service.open_session().send_text("Hello"))
            await llm.wait_for_requests(2)
            await service.kill(signal.SIGTERM)
            switch, error = await answering
        assert (switch["type"], error["metadata"]["code"]) == ("agent_switched", "interrupted")
        async with start_process(database, **proxy_settings_for(llm)) as service:
            again = await service.http.get("/sessions/s-1/stream")
            assert parse_events(again.text)[-2][1] == said("Hi.")
            history = await service.open_session().fetch_history()
    assert history == [{"role": "user", "content": "Hello"}, {"role": "assistant", "content": "Hi."}]


async def test_queued_message_stays_behind_a_run_handed_over_at_shutdown(tmp_path: Path) -> None:
    held = DeferredReply(line_says("One."))
    settings = settings_for(tmp_path, log_level="CRITICAL", shutdown_seconds=0)
    app = create_app(settings, provide_model(make_model(line_chooses("ask"), held)))
    async with app.router.lifespan_context(app):
        first, second = [RunRequest("s-1", wire.UserMessage(content=said), wire.StreamOptions()) for said in ("1", "2")]
        streams = [await app.state.deps.runs.submit(first)]
        await held.requested.wait()
        streams.append(await app.state.deps.runs.submit(second))
    for stream in streams:
        (error, _done) = [json.loads(event.data) for event in stream.log.events if "agent_switched" not in event.data]
        assert error["metadata"]["code"] == "interrupted"
        assert error["error"].startswith("The service restarts, the work goes on. Join")
    statuses = execute_script(f"sqlite:///{tmp_path}/test.db", "select status from runs order by number")
    assert statuses == [("handed",), ("queued",)]
    async with start_service(make_model(line_says("One."), line_says("Two.")), settings) as client:
        await client.http.get("/sessions/s-1/stream")
        await client.http.get("/sessions/s-1/stream")
        assert [m["content"] for m in await client.open_session().fetch_history()] == ["1", "One.", "2", "Two."]


async def test_result_survives_a_kill_of_its_run(database: str) -> None:
    read = respond_tool_call("read_file", path="a.py")
    async with ScriptedLLM(respond_choice("ask"), read, hang_after(), respond_text("Read.")) as llm:
        async with start_process(database, **proxy_settings_for(llm)) as service:
            await service.open_session().send_text("Read a.py")
            await kill_during_request(service, service.open_session().send_result("x = 1"), llm.wait_for_requests(3))
        async with start_process(database, **proxy_settings_for(llm)) as service:
            assert await service.open_session().send_result("x = 1") == [said("Read.")]
            roles = [message["role"] for message in await service.open_session().fetch_history()]
    assert roles == ["user", "assistant", "tool", "assistant"]


async def test_run_killed_twice_ends_with_an_error(tmp_path: Path) -> None:
    database = f"sqlite:///{tmp_path}/test.db"
    async with ScriptedLLM(hang_after(), hang_after(), respond_choice("ask"), respond_text("Hi.")) as llm:
        async with start_process(database, **proxy_settings_for(llm)) as service:
            await kill_during_request(service, service.open_session().send_text("Hello"), llm.wait_for_requests(1))
        async with start_process(database, **proxy_settings_for(llm)) as service:
            await llm.wait_for_requests(2)
            await service.kill()
        async with start_process(database, **proxy_settings_for(llm)) as service:
            ((_, error), _done) = parse_events((await service.http.get("/sessions/s-1/stream")).text)
            assert error["metadata"]["code"] == "interrupted"
            assert (await service.open_session().send_text("Hello again"))[-1] == said("Hi.")


@pytest.mark.parametrize(
    ("message", "script", "told"),
    [
        (
            {"type": "user_message", "content": "Write a.py"},
            (
                respond_choice("coder"),
                respond_text("I will.") & respond_tool_call("write_file", path="a.py", content="x"),
            ),
            ["agent_switched", said("I will.", is_final=False), write_approval_chunk("a.py", "x")],
        ),
        (
            {"type": "switch_agent", "agent_type": "coder", "content": "Write a.py"},
            (respond_text("So.") & respond_tool_call("attempt_completion", result="Done."),),
            ["agent_switched", said("So.\n\nDone.", metadata={"completion": True})],
        ),
        (
            {"type": "switch_agent", "agent_type": "coder", "content": "Write a.py"},
            (
                cut_off(respond_text("So.") & respond_tool_call("attempt_completion", result="Do")),
                respond_text("Done.") & respond_tool_call("attempt_completion", id="c2", result="Done. It runs."),
            ),
            [
                "agent_switched",
                said("So.", is_final=False),
                said("Done. It runs.", metadata={"completion": True}),
            ],
        ),
        (
            {"type": "switch_agent", "agent_type": "coder", "content": "Add"},
            tuple(respond_tool_call("calculator", id=f"c{n}", expr="1 + 1") for n in range(3)),
            ["agent_switched", said(REPEATED_CALL.question, metadata=REPEATED_CALL.metadata)],
        ),
        (
            {"type": "switch_agent", "agent_type": "coder", "content": "Explain"},
            (cut_off(respond_text("First,")), cut_off(respond_text(" it"))),
            [
                "agent_switched",
                said(f"First, it\n\n{TRUNCATION_SENTENCES['length']}", metadata={"truncated": "length"}),
            ],
        ),
        (
            {"type": "switch_agent", "agent_type": "coder", "content": "Read"},
            tuple(respond_raw_tool_call("read_file", f"{n}.py") for n in range(3)),
            [
                "agent_switched",
                said(
                    MALFORMED_QUESTIONS["unreadable"],
                    metadata={"question": True, "suggestions": MALFORMED_SUGGESTIONS},
                ),
            ],
        ),
        ({"type": "switch_agent", "agent_type": "coder"}, (), ["agent_switched"]),
        ({"type": "switch_agent", "agent_type": "orchestrator"}, (), ["agent_switched"]),
        (
            {"type": "switch_agent", "agent_type": "coder", "content": "Hi"},
            (respond_status(400),),
            ["agent_switched", "error"],
        ),
    ],
)
async def test_missing_outcome_is_rebuilt_from_the_thread(
    tmp_path: Path, message: dict[str, Any], script: tuple[Any, ...], told: list[Any]
) -> None:
    database = f"sqlite:///{tmp_path}/test.db"
    async with ScriptedLLM(respond_text("An earlier answer."), *script) as llm:
        async with start_process(database, **proxy_settings_for(llm)) as service:
            await service.open_session().switch("ask", content="Hello")
            await service.open_session().switch("orchestrator")
            await service.open_session().send(message)
            await service.kill()
        newest = "(select max(created_at) from runs)"
        execute_script(database, f"update runs set status = 'running', events = null where created_at = {newest}")
        execute_script(database, "update sessions set pause = null, agent = 'orchestrator', message_count = 0")
        async with start_process(database, **proxy_settings_for(llm)) as service:
            chunks = parse_chunks(await service.http.get("/sessions/s-1/stream"))
            session = await service.open_session().get("/sessions/{id}")
            pending = await service.open_session().get("/sessions/{id}/pending-approvals")
    assert [chunk["type"] if isinstance(want, str) else chunk for chunk, want in zip(chunks, told, strict=True)] == told
    assert session["current_agent"] == message.get("agent_type", "coder")
    assert pending["count"] == int(chunks[-1]["type"] == "tool_call")


async def test_outcome_is_recovered_after_a_database_failure(tmp_path: Path) -> None:
    held = DeferredReply(line_says("Read."))
    llm = make_model(line_chooses("ask"), line_calls("read_file", path="a.py"), held, line_says("Again."))
    database = f"sqlite:///{tmp_path}/test.db"
    async with start_service(llm, settings_for(database, log_level="CRITICAL")) as client:
        session = client.open_session()
        await session.send_text("Read a.py")
        answering = asyncio.create_task(session.send_result("x = 1"))
        await held.requested.wait()
        execute_script(database, "alter table runs rename to gone")
        held.release.set()
        (error,) = await answering
        assert (error["metadata"]["code"], error["error"][:20]) == ("interrupted", "The database failed.")
        refused = await client.http.post("/agent/message/stream", json=HELLO_BODY)
        assert (refused.status_code, refused.headers["retry-after"]) == (503, "5")
        execute_script(database, "alter table gone rename to runs")
        assert await session.send_result("x = 1") == [said("Read.")]
        assert await session.send_text("Again") == [said("Again.")]
        assert [message["role"] for message in await session.fetch_history()][-2:] == ["user", "assistant"]


async def test_pause_unknown_to_the_thread_is_an_error_only_once(
    tmp_path: Path,
) -> None:
    database = f"sqlite:///{tmp_path}/test.db"
    llm = make_model(line_chooses("ask"), line_calls("read_file", path="a.py"), line_says("Hi."))
    async with start_service(llm, settings_for(database, log_level="CRITICAL")) as client:
        session = client.open_session()
        await session.send_text("Read a.py")
        execute_script(database, "create table kept as select pause from sessions")
        await client.http.post("/sessions/s-1/cancel")
        execute_script(database, "update sessions set pause = (select pause from kept)")
        (error,) = await session.send_result("x = 1")
        assert error["metadata"]["code"] == "internal"
        assert await session.send_text("Hello") == [said("Hi.")]


async def test_a_second_process_on_the_same_file_is_refused(tmp_path: Path) -> None:
    database = f"sqlite:///{tmp_path}/test.db"
    async with start_process(database):
        with pytest.raises(RuntimeError, match="Another process serves the database"):
            async with start_process(database):
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
            "The service cannot start: AGENT_RUNTIME__LLM_PROXY_URL must be an http or https address,",
        ),
    ],
)
async def test_invalid_settings_stop_the_start_with_a_sentence(
    tmp_path: Path, settings: dict[str, str], sentence: str
) -> None:
    with pytest.raises(RuntimeError) as said:
        async with start_process(f"sqlite:///{tmp_path}/test.db", **settings):
            pass
    assert str(said.value).startswith(sentence)
    assert "Traceback" not in str(said.value)


async def test_sessions_do_not_disturb_each_other(database: str) -> None:
    lines = {"human": line_calls("read_file", path="a.py"), "tool": line_says("Read.")}
    answers = (lambda messages: lines[messages[-1].type] for _ in range(64))
    llm = make_model(*answers)
    async with start_service(llm, settings_for(database)) as client:
        sessions = [client.open_session(f"s-{number}") for number in range(16)]
        await asyncio.gather(*(session.switch("ask") for session in sessions))
        for _ in range(2):
            asked = await asyncio.gather(*(session.send_text("Read a.py") for session in sessions))
            ids = [chunks[-1]["call_id"] for chunks in asked]
            told = await asyncio.gather(
                *(s.send_result("x", call_id) for s, call_id in zip(sessions, ids, strict=True))
            )
            assert told == [[said("Read.")]] * 16


async def test_audit_reveals_tampering(tmp_path: Path) -> None:
    database = f"sqlite:///{tmp_path}/test.db"
    lines = [line_calls("write_file", call_id=f"call_{n}", path=f"{n}.py", content="x") for n in range(3)]
    async with start_service(
        make_model(line_chooses("coder"), *lines, line_says("Fine.")), settings_for(database)
    ) as client:
        await client.open_session().send_text("Write")
        for number in range(3):
            await client.open_session().decide("reject", f"call_{number}", feedback=str(number))
        entries = (await client.open_session().get("/sessions/{id}/audit"))["entries"]
    assert first_broken_entry("s-1", entries) is None
    assert first_broken_entry("s-1", entries[1:]) == 1
    assert first_broken_entry("s-1", [entries[0], {**entries[1], "decision": "approve"}, entries[2]]) == 2
    assert first_broken_entry("s-2", entries) == 1
    assert json.dumps(entries).count('"decision": "reject"') == 3


async def test_decision_survives_two_kills_of_its_run(tmp_path: Path) -> None:
    database = f"sqlite:///{tmp_path}/test.db"
    write = respond_tool_call("write_file", path="a.py", content="x")
    async with ScriptedLLM(respond_choice("coder"), write, hang_after(), hang_after(), respond_text("Well.")) as llm:
        async with start_process(database, **proxy_settings_for(llm)) as service:
            await service.open_session().send_text("Write a.py")
            await kill_during_request(service, service.open_session().decide("reject"), llm.wait_for_requests(3))
        async with start_process(database, **proxy_settings_for(llm)) as service:
            await llm.wait_for_requests(4)
            await service.kill()
        async with start_process(database, **proxy_settings_for(llm)) as service:
            (error,) = await service.open_session().decide("approve")
            assert error["metadata"]["code"] == "call_not_open"
            assert "was decided already: reject" in error["error"]
            assert await service.open_session().decide("reject") == [said("Well.")]
            (entry,) = (await service.open_session().get("/sessions/{id}/audit"))["entries"]
    assert (entry["decision"], entry["decided_by"]) == ("reject", "hitl_decision")
