"""The HTTP interface keeps its contract: keys, bodies, streams and the shapes of the REST calls."""

import asyncio
import json
import sqlite3
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx
import pytest

from api.version import VERSION
from prompts import select_team
from tests.support.llm_server import Exchange, ScriptedLLM, build_delta, encode_sse
from tests.support.llm_server import respond_choice as served
from tests.support.scripted import DeferredReply, call_tool, choose_agent, make_model, say_text
from tests.support.service import GatewayClient, parse_events, settings_for, start_service, text_chunk

STREAM_PATH = "/agent/message/stream"
HELLO_BODY = {"session_id": "s-1", "message": {"type": "user_message", "content": "Hello"}}


async def test_every_path_but_health_and_ready_needs_the_key(tmp_path: Path) -> None:
    async with start_service(make_model(), settings_for(tmp_path)) as client:
        for key in ("", "wrong", "schlüssel"):
            headers = httpx.Headers({"X-Internal-Auth": key}, encoding="utf-8")
            for method, path in (("POST", STREAM_PATH), ("GET", "/sessions"), ("GET", "/docs"), ("GET", "/nowhere")):
                response = await client.http.request(method, path, headers=headers)
                assert (response.status_code, response.json()) == (401, {"detail": "unauthorized"})
        health = await client.http.get("/health", headers={"X-Internal-Auth": ""})
        ready = await client.http.get("/ready", headers={"X-Internal-Auth": ""})
        heads = [await client.http.head(path, headers={"X-Internal-Auth": ""}) for path in ("/health", "/ready")]
    assert health.json() == ready.json() == {"status": "healthy", "service": "agent-runtime", "version": VERSION}
    assert [(head.status_code, head.content) for head in heads] == [(200, b""), (200, b"")]


@pytest.mark.parametrize(
    ("body", "kind", "status"),
    [
        (b"", "application/json", 400),
        (b"{", "application/json", 400),
        (b"\xff\xfe", "application/json", 400),
        (b'{"session_id": NaN}', "application/json", 400),
        (b'{"session_id": 1e999}', "application/json", 400),
        (b"[" * 100_000, "application/json", 400),
        (b'{"a":' * 200 + b"1" + b"}" * 200, "application/json", 400),
        (b"[]", "application/json", 422),
        (b"{}", "application/json", 422),
        (b'{"session_id": "s-1", "message": "Hello"}', "application/json", 422),
        (b'{"session_id": "../s", "message": {"type": "user_message", "content": "x"}}', "application/json", 422),
        (b'{"session_id": "s-1", "message": {"type": "user_message", "content": "x"}}', "text/plain", 415),
        (b" " * 2_000_001, "application/json", 413),
    ],
)
async def test_invalid_body_is_refused(tmp_path: Path, body: bytes, kind: str, status: int) -> None:
    async with start_service(make_model(choose_agent("ask"), say_text("Hi.")), settings_for(tmp_path)) as client:
        response = await client.http.post(STREAM_PATH, content=body, headers={"Content-Type": kind})
        assert response.status_code == status
        assert len(response.json()["detail"]) < 300
        assert (await client.open_session().send_text("Hello"))[-1] == text_chunk("Hi.")


async def test_body_without_content_length_is_bounded(tmp_path: Path) -> None:
    async def iter_spaces() -> Any:
        for _ in range(40):
            yield b" " * 100_000

    async with start_service(make_model(), settings_for(tmp_path)) as client:
        response = await client.http.post(STREAM_PATH, content=iter_spaces())
    assert (response.status_code, response.json()) == (413, {"detail": "the body is larger than 2000000 bytes"})


async def test_unsafe_characters_are_replaced_in_text(tmp_path: Path) -> None:
    llm = make_model(choose_agent("ask"), say_text("a\u2028b\u0085c\x00d\r\n\ud800e"))
    async with start_service(llm, settings_for(tmp_path)) as client:
        body = json.dumps({"session_id": "s-1", "message": {"type": "user_message", "content": "x\x00\ud800y"}})
        response = await client.http.post(STREAM_PATH, content=body, headers={"Content-Type": "application/json"})
        answer = parse_events(response.text)[-2][1]
        question = (await client.open_session().fetch_history())[0]
    assert answer["content"] == "a\u2028b\u0085c\ufffdd\r\n\ufffde"
    assert question["content"] == "x\ufffd\ufffdy"


async def test_each_event_has_an_id_and_done_is_last(tmp_path: Path) -> None:
    async with start_service(make_model(choose_agent("ask"), say_text("Hi.")), settings_for(tmp_path)) as client:
        response = await client.http.post(STREAM_PATH, json=HELLO_BODY)
    assert response.headers["content-type"].startswith("text/event-stream")
    lines = response.text.split("\n")
    ids = [line.removeprefix("id: ") for line in lines if line.startswith("id: ")]
    run = ids[0].removesuffix("-1")
    assert ids == [f"{run}-1", f"{run}-2", f"{run}-3"]
    assert [line for line in lines if line.startswith("event: ")] == ["event: message", "event: message", "event: done"]


async def test_quiet_stream_sends_heartbeats(tmp_path: Path) -> None:
    held = DeferredReply(say_text("Hi."))
    async with start_service(
        make_model(choose_agent("ask"), held), settings_for(tmp_path, heartbeat_seconds=0.01)
    ) as client:
        beats = 0
        async with client.http.stream("POST", STREAM_PATH, json=HELLO_BODY) as response:
            async for line in response.aiter_lines():
                beats += line.startswith(":")
                if beats == 3:
                    held.release.set()
    assert beats >= 3
    assert line == ""


async def test_run_continues_without_its_client_and_can_be_joined(tmp_path: Path) -> None:
    held = DeferredReply(say_text("Hi."))
    async with start_service(make_model(choose_agent("ask"), held), settings_for(tmp_path)) as client:
        async with client.http.stream("POST", STREAM_PATH, json=HELLO_BODY) as response:
            first = await anext(line async for line in response.aiter_lines() if line.startswith("id: "))
        joining = asyncio.create_task(client.http.get("/sessions/s-1/stream", headers={"Last-Event-ID": first[4:]}))
        await held.requested.wait()
        held.release.set()
        assert [chunk for _, chunk in parse_events((await joining).text)] == [
            text_chunk("Hi."),
            {"status": "completed"},
        ]
        again = await client.http.get("/sessions/s-1/stream")
        assert [chunk.get("type") for _, chunk in parse_events(again.text)] == [
            "agent_switched",
            "assistant_message",
            None,
        ]
        assert (await client.open_session().fetch_history())[-1] == {"role": "assistant", "content": "Hi."}


async def test_joining_a_session_without_runs_ends_at_once(tmp_path: Path) -> None:
    async with start_service(make_model(), settings_for(tmp_path)) as client:
        created = (await client.http.post("/sessions")).json()
        assert created.pop("created_at") != created.pop("session_id") == created.pop("id")
        assert created == {"message_count": 0, "current_agent": "orchestrator"}
        (found,) = (await client.open_session().get("/sessions"))["sessions"]
        joined = await client.http.get(f"/sessions/{found['session_id']}/stream")
    assert joined.text == 'event: done\ndata: {"status": "completed"}\n\n'


async def test_invalid_last_event_id_replays_the_whole_run(tmp_path: Path) -> None:
    async with start_service(make_model(choose_agent("ask"), say_text("Hi.")), settings_for(tmp_path)) as client:
        await client.open_session().send_text("Hello")
        whole = await client.http.get("/sessions/s-1/stream")
        run = whole.text.partition("-1\n")[0].removeprefix("id: ")
        for odd in ("", "-", "x-1", f"{run}-{'9' * 5000}", f"{run}-²", f"{run}--1"):
            headers = httpx.Headers({"Last-Event-ID": odd}, encoding="utf-8")
            assert (await client.http.get("/sessions/s-1/stream", headers=headers)).text == whole.text


async def test_retry_joins_the_running_run(tmp_path: Path) -> None:
    held = DeferredReply(say_text("Hi."))
    message = {"type": "user_message", "content": "Hello", "id": "m-1"}
    async with start_service(
        make_model(choose_agent("ask"), held), settings_for(tmp_path, queue_timeout_seconds=0.01)
    ) as client:
        first = asyncio.create_task(client.open_session().send(message))
        await held.requested.wait()
        async with client.http.stream("POST", STREAM_PATH, json={"session_id": "s-1", "message": message}) as again:
            held.release.set()
            told = (await again.aread()).decode()
        assert [chunk for _, chunk in parse_events(told)][:-1] == await first


async def test_heartbeats_are_sent_while_tokens_are_hidden(tmp_path: Path) -> None:
    released = asyncio.Event()
    async with ScriptedLLM(served("ask"), trickle_tokens(released)) as llm:
        settings = settings_for(tmp_path, heartbeat_seconds=0.01, llm_model="scripted", llm_proxy_url=llm.url)
        async with start_service(None, settings) as client:
            asking = asyncio.create_task(client.open_session(tokens=True).send_text("Hello"))
            await llm.wait_for_requests(2)
            beats = 0
            async with client.http.stream("GET", "/sessions/s-1/stream") as response:
                async for line in response.aiter_lines():
                    beats += line.startswith(":")
                    if beats == 3:
                        released.set()
            assert (await asking)[-1]["type"] == "assistant_message"
    assert beats >= 3


def trickle_tokens(released: asyncio.Event) -> Any:
    """Answer with a word every millisecond until the event is set."""

    async def respond(exchange: Exchange) -> None:
        await exchange.start_stream()
        while not released.is_set():
            await exchange.send_piece(encode_sse(build_delta(content="word ")))
            with suppress(TimeoutError):
                await asyncio.wait_for(released.wait(), 0.001)
        await exchange.send_piece(encode_sse(build_delta(finish_reason="stop"), done=True))
        await exchange.send_piece(b"")

    return respond


async def test_a_run_can_be_cancelled(tmp_path: Path) -> None:
    held = DeferredReply(say_text("Never."))
    async with start_service(make_model(choose_agent("ask"), held, say_text("Hi.")), settings_for(tmp_path)) as client:
        asking = asyncio.create_task(client.open_session().send_text("Hello"))
        await held.requested.wait()
        for _ in range(2):
            cancelled = await client.http.post("/sessions/s-1/cancel")
            assert cancelled.json() == {"session_id": "s-1", "status": "cancelled"}
        assert (await asking)[-1]["metadata"]["code"] == "cancelled"
        assert (await client.open_session().send_text("Again"))[-1] == text_chunk("Hi.")
        assert [m["content"] for m in await client.open_session().fetch_history()] == ["Hello", "Again", "Hi."]
        assert (await client.http.post("/sessions/s-2/cancel")).status_code == 404


async def test_message_is_kept_after_an_early_cancel(tmp_path: Path) -> None:
    async with start_service(
        make_model(DeferredReply(choose_agent("ask")), say_text("Hi.")), settings_for(tmp_path)
    ) as client:
        async with client.http.stream("POST", STREAM_PATH, json=HELLO_BODY) as response:
            await client.http.post("/sessions/s-1/cancel")
            await response.aread()
        assert parse_events(response.text)[-2][1]["metadata"]["code"] == "cancelled"
        assert await client.open_session().fetch_history() == [{"role": "user", "content": "Hello"}]


async def test_cancelled_call_is_not_replayed(tmp_path: Path) -> None:
    lines = (choose_agent("ask"), call_tool("read_file", path="a.py"))
    async with start_service(make_model(*lines), settings_for(tmp_path)) as client:
        assert (await client.open_session().send_text("Read a.py"))[-1]["type"] == "tool_call"
        await client.http.post("/sessions/s-1/cancel")
        again = await client.http.get("/sessions/s-1/stream")
    _, (_, error), done = parse_events(again.text)
    assert (error["error"], error["is_final"]) == ("The call call_1 is not open any more. Open calls: none.", True)
    assert done == ("done", {"status": "completed"})


async def test_a_cancelled_approval_is_closed(tmp_path: Path) -> None:
    lines = (choose_agent("coder"), call_tool("write_file", path="a.py", content="x"), say_text("Hi."))
    async with start_service(make_model(*lines), settings_for(tmp_path)) as client:
        session = client.open_session()
        await session.send_text("Write a.py")
        await client.http.post("/sessions/s-1/cancel")
        assert (await session.get("/sessions/{id}/pending-approvals"))["count"] == 0
        (late,) = await session.decide("approve")
        (entry,) = (await session.get("/sessions/{id}/audit"))["entries"]
        assert await session.send_text("Again") == [text_chunk("Hi.")]
        roles = [message["role"] for message in await session.fetch_history()]
    assert (late["metadata"]["code"], entry["decision"], entry["decided_by"]) == ("call_not_open", "cancel", "system")
    assert roles == ["user", "assistant", "tool", "user", "assistant"]


async def test_messages_of_one_session_are_handled_in_order(tmp_path: Path) -> None:
    held = DeferredReply(say_text("One."))
    async with start_service(make_model(choose_agent("ask"), held, say_text("Two.")), settings_for(tmp_path)) as client:
        first = asyncio.create_task(client.open_session().send_text("First"))
        await held.requested.wait()
        second = asyncio.create_task(client.open_session().send_text("Second"))
        other = await client.http.get("/sessions/s-1")
        assert (other.status_code, second.done()) == (200, False)
        held.release.set()
        assert ((await first)[-1], (await second)[-1]) == (text_chunk("One."), text_chunk("Two."))


async def test_queued_message_times_out(tmp_path: Path) -> None:
    held = DeferredReply(say_text("One."))
    llm = make_model(choose_agent("ask"), held)
    async with start_service(llm, settings_for(tmp_path, queue_timeout_seconds=0.01)) as client:
        first = asyncio.create_task(client.open_session().send_text("First"))
        await held.requested.wait()
        (busy,) = await client.open_session().send_text("Second")
        undoing = await client.http.post("/sessions/s-1/undo")
        held.release.set()
        await first
    assert busy["metadata"]["code"] == "session_busy"
    assert (undoing.status_code, undoing.json()["code"]) == (409, "session_busy")


async def test_repeated_message_id_is_one_message(tmp_path: Path) -> None:
    llm = make_model(choose_agent("ask"), say_text("Hi."))
    async with start_service(llm, settings_for(tmp_path)) as client:
        session = client.open_session()
        message = {"type": "user_message", "content": "Hello"}
        first = await session.send({**message, "id": "m-1"})
        assert await session.send({**message, "id": "m-1"}) == first
        assert await session.send(message, **{"Idempotency-Key": "m-1"}) == first
        (conflict,) = await session.send({**message, "content": "Bye", "id": "m-1"})
    assert conflict["metadata"]["code"] == "idempotency_conflict"


async def test_sessions_are_listed_named_and_searched(tmp_path: Path) -> None:
    lines = [line for _ in range(3) for line in (choose_agent("ask"), say_text("Hi."))]
    async with start_service(make_model(*lines), settings_for(tmp_path)) as client:
        for number, content in enumerate(["Read 100% of it", "Write ünïcode\nand more", "Other"]):
            await client.open_session(f"s-{number}").send_text(content)
        named = await client.http.patch("/sessions/s-0", json={"title": "My title", "description": None})
        assert (named.json()["title"], named.json()["description"]) == ("My title", "")
        assert await list_titles(client) == ["Other", "Write ünïcode", "My title"]
        assert await list_titles(client, limit=1, offset=1) == ["Write ünïcode"]
        assert await list_titles(client, q="TITLE") == ["My title"]
        assert await list_titles(client, q="ÜNÏCODE") == ["Write ünïcode"]
        assert await list_titles(client, q="%") == []
        page = await client.open_session().get("/sessions", q="my", limit=1)
        (shown,) = page["sessions"]
        assert page["total"] == 1
        assert shown == (await client.http.get("/sessions/s-0")).json()
        assert (shown["message_count"], shown["current_agent"]) == (2, "ask")
        assert [session["id"] for session in page["sessions"]] == [shown["session_id"]] == ["s-0"]


async def list_titles(client: GatewayClient, **params: Any) -> list[str]:
    return [session["title"] for session in (await client.open_session().get("/sessions", **params))["sessions"]]


async def test_id_of_a_deleted_session_starts_a_new_session(tmp_path: Path) -> None:
    write = call_tool("write_file", path="a.py", content="x")
    lines = (
        choose_agent("coder"),
        write,
        choose_agent("ask"),
        say_text("Hi."),
        choose_agent("ask"),
        say_text("Hi again."),
    )
    async with start_service(make_model(*lines), settings_for(tmp_path)) as client:
        session = client.open_session()
        await session.send_text("Write a.py")
        assert (await client.http.delete("/sessions/s-1")).status_code == 200
        for path in ("", "/history", "/audit", "/pending-approvals", "/stream"):
            missing = await client.http.get(f"/sessions/s-1{path}")
            assert (missing.status_code, missing.json()) == (404, {"error": "Session s-1 not found"})
        assert (await client.http.get("/agents/s-1/current")).status_code == 404
        (late,) = await session.decide("approve")
        assert late["metadata"]["code"] == "call_not_open"
        await session.send_text("Hello")
        assert [m["content"] for m in await session.fetch_history()] == ["Hello", "Hi."]
        assert (await client.http.delete("/sessions/s-1?hard=true")).status_code == 200
        assert (await client.http.delete("/sessions/s-1?hard=true")).status_code == 404
        await session.send_text("Hello again")
        assert [m["content"] for m in await session.fetch_history()] == ["Hello again", "Hi again."]


async def test_late_result_does_not_change_a_deleted_session(tmp_path: Path) -> None:
    llm = make_model(choose_agent("coder"), call_tool("read_file", path="a.py"))
    async with start_service(llm, settings_for(tmp_path)) as client:
        await client.open_session().send_text("Read a.py")
        await client.http.delete("/sessions/s-1")
        (late,) = await client.open_session().send_result("x")
    assert late["metadata"]["code"] == "call_not_open"
    with sqlite3.connect(tmp_path / "test.db") as connection:
        assert connection.execute("select count(*) from checkpoints where thread_id = 's-1'").fetchone() != (0,)
    connection.close()


async def test_audit_can_be_read_as_ndjson(tmp_path: Path) -> None:
    llm = make_model(choose_agent("coder"), call_tool("write_file", path="a.py", content="x"), say_text("Fine."))
    async with start_service(llm, settings_for(tmp_path)) as client:
        await client.open_session().send_text("Write a.py")
        await client.open_session().decide("reject", feedback="no")
        whole = await client.open_session().get("/sessions/{id}/audit")
        lines = await client.http.get("/sessions/s-1/audit", headers={"Accept": "application/x-ndjson"})
    assert [json.loads(line) for line in lines.text.splitlines()] == whole["entries"]
    assert whole["count"] == 1


@pytest.mark.parametrize(
    ("question", "decision", "rule"),
    [
        (("coder", "read_file", {"path": "a.py"}), "allow", "harmless.read_file"),
        (("coder", "write_file", {"path": "a.py", "content": ""}), "ask", "write.file"),
        (("architect", "write_file", {"path": "a.py", "content": ""}), "deny", "agent.may_write"),
        (("debug", "execute_command", {"command": "cat a.py"}), "allow", "command.read_only"),
        (("debug", "execute_command", {"command": "make"}), "ask", "agent.read_only_commands"),
        (("orchestrator", "read_file", {"path": "a.py"}), "allow", "harmless.read_file"),
        (("ask", "fly", {}), "deny", "arguments.invalid"),
    ],
)
async def test_policy_explain_returns_the_decision_and_rule(
    tmp_path: Path, question: tuple[str, str, dict[str, str]], decision: str, rule: str
) -> None:
    agent, tool, arguments = question
    async with start_service(make_model(), settings_for(tmp_path)) as client:
        asked = await client.http.post("/policy/explain", json={"agent": agent, "tool": tool, "arguments": arguments})
        unknown = await client.http.post("/policy/explain", json={"agent": "poet", "tool": tool})
        empty = await client.open_session().get("/sessions")
    explained = asked.json()
    assert (explained["decision"], explained["rule"]) == (decision, rule)
    assert explained["reason"]
    assert unknown.status_code == 422
    assert empty == {"sessions": [], "total": 0}


async def test_agents_are_listed_in_the_format_of_the_ide(tmp_path: Path) -> None:
    async with start_service(make_model(), settings_for(tmp_path)) as client:
        agents = await client.open_session().get("/agents")
    assert [agent["type"] for agent in agents] == ["orchestrator", *select_team(multi_agent=True)]
    assert [agent["type"] for agent in agents if agent["has_file_restrictions"]] == ["architect"]
    assert agents[0] == {
        "type": "orchestrator",
        "name": "Orchestrator Agent",
        "description": agents[0]["description"],
        "allowed_tools": ["read_file", "list_files", "search_in_code"],
        "has_file_restrictions": False,
    }


async def test_openapi_has_an_example_of_each_message_and_chunk(tmp_path: Path) -> None:
    async with start_service(make_model(), settings_for(tmp_path)) as client:
        page = await client.open_session().get("/openapi.json")
    post = page["paths"][STREAM_PATH]["post"]
    sent = post["requestBody"]["content"]["application/json"]["examples"].values()
    assert {example["value"]["message"]["type"] for example in sent} == {
        "user_message",
        "tool_result",
        "switch_agent",
        "hitl_decision",
    }
    received = post["responses"]["200"]["content"]["text/event-stream"]["examples"].values()
    assert {json.loads(example["value"].removeprefix("data: "))["type"] for example in received} == {
        "assistant_message",
        "tool_call",
        "agent_switched",
        "error",
        "usage",
    }
    refs = {ref for ref in json.dumps(page).split('"') if ref.startswith("#/components/schemas/")}
    assert {ref.rpartition("/")[2] for ref in refs} <= page["components"]["schemas"].keys()


async def test_openapi_documents_the_options_of_a_client(tmp_path: Path) -> None:
    async with start_service(make_model(), settings_for(tmp_path)) as client:
        page = await client.open_session().get("/openapi.json")
    schemas, paths = page["components"]["schemas"], page["paths"]
    for name in ("StreamRequest", "UserMessage"):
        assert "effect of the message on a busy session" in json.dumps(schemas[name]["properties"]["busy"])
    assert all("description" in option for option in schemas["StreamOptions"]["properties"].values())
    join, fork = paths["/sessions/{session_id}/stream"]["get"], paths["/sessions/{session_id}/fork"]["post"]
    assert {"Last-Event-ID", "tokens"} <= {parameter["name"] for parameter in join["parameters"]}
    for call in (join, paths[STREAM_PATH]["post"]):
        assert list(call["responses"]["200"]["content"]) == ["text/event-stream"]
    assert [parameter["name"] for parameter in paths[STREAM_PATH]["post"]["parameters"]] == ["Idempotency-Key"]
    assert "turn" in fork["requestBody"]["content"]["application/json"]["schema"]["properties"]


async def test_impossible_session_id_is_not_found(database: str) -> None:
    async with start_service(make_model(), settings_for(database)) as client:
        for path in ("/sessions/%00", "/sessions/%00/audit", "/agents/%ED%A0%80/current", f"/sessions/{'x' * 500}"):
            assert (await client.http.get(path)).status_code == 404
        assert (await client.http.delete("/sessions/%00?hard=true")).status_code == 404
        assert (await client.http.get("/sessions?q=%00")).json() == {"sessions": [], "total": 0}


async def test_integer_beyond_64_bits_is_stored_as_text(database: str) -> None:
    llm = make_model(choose_agent("ask"), call_tool("read_file", path="a.py"), say_text("Fine."))
    async with start_service(llm, settings_for(database)) as client:
        await client.open_session().send_text("Read a.py")
        assert await client.open_session().send_result([10**40, -1]) == [text_chunk("Fine.")]
        assert (await client.open_session().fetch_history())[2]["content"] == f'["{10**40}", -1]'


@pytest.mark.parametrize("query", ["limit=0", "limit=x", "offset=-1", f"offset={2**70}"])
async def test_invalid_page_is_refused(tmp_path: Path, query: str) -> None:
    async with start_service(make_model(), settings_for(tmp_path)) as client:
        response = await client.http.get(f"/sessions?{query}")
    assert response.status_code == 422
