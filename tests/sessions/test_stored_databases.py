"""Open databases that an earlier version wrote: everything it answered is answered again, and every session goes on.

`tests/support/stored/generate.py` made them, and says what each session holds. A test that fails here after a renaming
names a change of what is stored: a column, a key of JSON, a channel or a node of the graph, a mark on a message.
"""

import gzip
import json
import os
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import cache
from itertools import repeat
from pathlib import Path
from typing import Any

import psycopg
import pytest
from langchain_core.messages import AIMessageChunk, BaseMessage

from tests.support.paths import PROJECT_ROOT
from tests.support.scripted import ScriptedModel, call_tool, choose_agent, make_model, say_text, with_usage
from tests.support.service import (
    GatewayClient,
    SessionClient,
    agent_switch_chunk,
    approval_chunk,
    parse_chunks,
    settings_for,
    start_service,
    text_chunk,
    tool_call_chunk,
    write_approval_chunk,
)

pytestmark = pytest.mark.anyio

STORED = PROJECT_ROOT / "tests" / "support" / "stored"
UNFINISHED = {
    "Add 1 and 2.": "It is 3.",
    "Hello, who are you?": "The ask agent.",
    "Read c.py": "It holds x.",
    "The first of two.": "One.",
    "The second of two.": "Two.",
    "Add 3 and 4.": "It is 7.",
}
"""The requests of the runs that the old processes left, and what the model answers them with."""
PAUSES = ["asks", "sent", "parallel", "rejected", "budget"]


@cache
def read_stored(name: str) -> bytes:
    return gzip.decompress((STORED / name).read_bytes())


@cache
def read_expected() -> Any:
    return json.loads(read_stored("expected.json.gz"))


@dataclass
class OldDatabase:
    url: str
    answers: dict[str, Any]
    """The answers of the old service."""

    @asynccontextmanager
    async def serve(
        self, *lines: AIMessageChunk, choice: str = "ask"
    ) -> AsyncIterator[tuple[GatewayClient, ScriptedModel]]:
        """Run the current service on it, with the settings of the old one."""
        llm = write_script(*lines, choice=choice)
        async with start_service(llm, settings_for(self.url, **read_expected()["settings"])) as client:
            yield client, llm

    def find_answer(self, name: str, path: str) -> Any:
        return self.answers["sessions"][name][f"/sessions/{{id}}{path}"]

    def find_history(self, name: str) -> list[dict[str, Any]]:
        histories: dict[str, list[dict[str, Any]]] = self.answers["histories"]
        return histories[name] if name in histories else self.find_answer(name, "/history")["messages"]

    async def fetch_new(self, session: SessionClient) -> list[dict[str, Any]]:
        """Return the messages that came to the history since; check that it begins with the old ones."""
        before, now = self.find_history(session.id), await session.fetch_history()
        assert now[: len(before)] == before
        return now[len(before) :]

    def verify(self) -> str:
        """Return what the command line says of the audits; raise CalledProcessError if one is broken."""
        environment = {**os.environ, "AGENT_RUNTIME__DB_URL": self.url}
        command = [sys.executable, "-m", "cli", "verify"]
        return subprocess.check_output(command, cwd=PROJECT_ROOT, env=environment, text=True)


@pytest.fixture(params=["sqlite", "postgres"])
def old(request: pytest.FixtureRequest, tmp_path: Path) -> OldDatabase:
    """Restore the stored database of each kind in turn.

    On Postgres, restore into the default database of the server, which no other test uses: a new database for each
    story would cost the server more time than the story takes.
    """
    if request.param == "sqlite":
        (tmp_path / "test.db").write_bytes(read_stored("sqlite.db.gz"))
        return OldDatabase(f"sqlite:///{tmp_path}/test.db", read_expected()["sqlite"])
    url: str = request.getfixturevalue("postgres")
    with psycopg.connect(url) as connection:
        connection.execute("drop schema public cascade; create schema public")
        connection.execute(read_stored("postgres.sql.gz"))
        # The killed process is dead for longer than its lease, whatever the clock of this machine says.
        connection.execute("update public.sessions set lease_until = 0 where lease_until is not null")
    return OldDatabase(url, read_expected()["postgres"])


def write_script(*lines: AIMessageChunk, choice: str) -> ScriptedModel:
    """Say the lines of a story in order, whenever the runs that the old processes left ask for theirs."""
    story = iter(lines)

    def say_next(prompt: list[BaseMessage]) -> AIMessageChunk:
        request = find_request(prompt)
        line = say_text(UNFINISHED[request]) if request in UNFINISHED else next(story)
        return with_usage(line, 10, 5)

    llm = make_model(choices=repeat(with_usage(choose_agent(choice), 10, 5)), summaries=repeat(say_text("Nothing.")))
    llm.lines = repeat(say_next)
    return llm


def find_request(prompt: list[BaseMessage]) -> str:
    """Return the user's last message."""
    return next(str(message.content) for message in reversed(prompt) if message.type == "human")


def find_conversation(llm: ScriptedModel, request: str) -> list[BaseMessage]:
    """Return what the model was sent last for a request, without the system prompt."""
    return next(prompt[1:] for prompt in reversed(llm.prompts) if find_request(prompt).endswith(request))


def list_results(conversation: list[BaseMessage]) -> list[str]:
    return [str(message.content) for message in conversation if message.type == "tool"]


def user(content: str) -> dict[str, Any]:
    return {"role": "user", "content": content}


def assistant(content: str) -> dict[str, Any]:
    return {"role": "assistant", "content": content}


def result(content: str, name: str, call_id: str = "call_1") -> dict[str, Any]:
    return {"role": "tool", "content": content, "tool_call_id": call_id, "name": name}


def list_open_calls(history: list[dict[str, Any]]) -> set[str]:
    calls = {call["id"] for message in history for call in message.get("tool_calls", ())}
    return calls - {message["tool_call_id"] for message in history if message["role"] == "tool"}


async def undo(session: SessionClient) -> dict[str, Any]:
    answer: dict[str, Any] = (await session.http.post(f"/sessions/{session.id}/undo")).raise_for_status().json()
    return answer


async def fork(session: SessionClient, **body: int) -> SessionClient:
    answer = (await session.http.post(f"/sessions/{session.id}/fork", json=body)).raise_for_status().json()
    assert answer["forked_from"] == session.id
    return SessionClient(session.http, answer["session_id"])


async def join_run(session: SessionClient) -> list[dict[str, Any]]:
    """Wait for the end of the session's run; return its chunks."""
    return parse_chunks(await session.http.get(f"/sessions/{session.id}/stream"))


async def fetch_answer(client: GatewayClient, name: str, path: str) -> Any:
    if path.endswith("/stream"):
        return (await client.http.get(f"/sessions/{name}/stream?tokens=true&usage=true")).text
    answer = await client.open_session(name).get(path)
    if path.endswith("/export"):
        del answer["exported_at"]
        answer["session"] = drop_added_id(answer["session"])
    return drop_added_id(answer) if "title" in answer else answer


def drop_added_id(session: dict[str, Any]) -> dict[str, Any]:
    """Return a session as 0.1.0 had it: without the second name of its id."""
    assert session["id"] == session["session_id"]
    return {name: value for name, value in session.items() if name != "id"}


async def test_every_answer_is_as_it_was(old: OldDatabase) -> None:
    """Compare exactly, but for the time of an export, and for the sessions that go on by themselves."""
    async with old.serve() as (client, _):
        for name, answers in old.answers["sessions"].items():
            for path, answer in answers.items():
                assert (name, path, await fetch_answer(client, name, path)) == (name, path, answer)
        sessions = (await client.open_session().get("/sessions"))["sessions"]
    at_rest = [drop_added_id(each) for each in sessions if each["session_id"] not in old.answers["histories"]]
    assert at_rest == old.answers["list"]["sessions"]
    assert len(sessions) == len(at_rest) + len(old.answers["histories"])


async def test_a_retry_is_answered_as_before_and_runs_nothing(old: OldDatabase) -> None:
    async with old.serve() as (client, _):
        for name, message, chunks in old.answers["retries"]:
            assert await client.open_session(name).send(message) == chunks
            assert await old.fetch_new(client.open_session(name)) == []
        (error,) = await client.open_session("finished").send_text("Another text", id="m-1")
    assert error["metadata"]["code"] == "idempotency_conflict"


async def test_a_stream_goes_on_after_the_event_that_its_reader_saw_last(old: OldDatabase) -> None:
    first, _, rest = old.find_answer("asks", "/stream").partition("\n\n")
    headers = {"Last-Event-ID": first.partition("\n")[0].removeprefix("id: ")}
    async with old.serve() as (client, _):
        response = await client.http.get("/sessions/asks/stream?tokens=true&usage=true", headers=headers)
    assert rest.startswith("id: ")
    assert response.text == rest


@pytest.mark.parametrize("decision", ["approve", "edit"])
async def test_an_approval_is_given_and_the_call_runs(old: OldDatabase, decision: str) -> None:
    edits: dict[str, Any] = {"modified_arguments": {"content": "x = 2\n"}} if decision == "edit" else {}
    arguments = {"path": "a.py", "content": "x = 2\n" if edits else "x = 1\n"}
    async with old.serve(say_text("Written.")) as (client, llm):
        session = client.open_session("asks")
        assert await session.decide(decision, **edits) == [tool_call_chunk("write_file", **arguments)]
        assert await session.send_result("written") == [text_chunk("Written.")]
        request, asked, answer, last = await session.fetch_history()
        (entry,) = (await session.get("/sessions/{id}/audit"))["entries"]
        (call,) = (await session.get("/sessions/{id}/calls"))["calls"]
    assert (request, last) == (user("Write a.py"), assistant("Written."))
    assert json.loads(asked["tool_calls"][0]["function"]["arguments"]) == arguments
    assert answer["content"].endswith("written")
    conversation = find_conversation(llm, "Write a.py")
    assert [message.content for message in conversation[:2]] == ["Write a.py", "I will write it. "]
    assert (entry["decision"], entry["decided_by"], entry["agent"]) == (decision, "hitl_decision", "coder")
    assert (call["status"], call["decision"]) == ("answered", decision)


@pytest.mark.parametrize(
    "refusal",
    [
        {"type": "hitl_decision", "decision": "reject", "feedback": "Not now."},
        {"type": "tool_result", "error": "User rejected the call"},
    ],
)
async def test_an_approval_is_refused(old: OldDatabase, refusal: dict[str, Any]) -> None:
    async with old.serve(say_text("As you like.")) as (client, _):
        session = client.open_session("asks")
        assert await session.send({**refusal, "call_id": "call_1"}) == [text_chunk("As you like.")]
        answer, last = await old.fetch_new(session)
        (entry,) = (await session.get("/sessions/{id}/audit"))["entries"]
    assert (answer["role"], answer["tool_call_id"], last) == ("tool", "call_1", assistant("As you like."))
    assert (entry["decision"], entry["decided_by"]) == ("reject", refusal["type"])


async def test_a_result_reaches_the_call_that_waits_for_it(old: OldDatabase) -> None:
    async with old.serve(say_text("It holds one.")) as (client, _):
        session = client.open_session("sent")
        (error,) = await session.decide("approve")
        assert error["metadata"]["code"] == "call_not_open"
        assert await session.send_result("x = 1") == [text_chunk("It holds one.")]
        assert await session.send_result("x = 1") == [text_chunk("It holds one.")]
        assert await old.fetch_new(session) == [result("x = 1", "read_file"), assistant("It holds one.")]
        (call,) = (await session.get("/sessions/{id}/calls"))["calls"]
    assert call["status"] == "answered"
    assert call["sent_at"] == old.find_answer("sent", "/calls")["calls"][0]["sent_at"]


async def test_the_second_of_two_parallel_calls_is_answered(old: OldDatabase) -> None:
    async with old.serve(say_text("Both are read.")) as (client, llm):
        session = client.open_session("parallel", parallel_tools=True)
        assert [call["call_id"] for call in (await session.get("/sessions/{id}/view"))["open_calls"]] == ["call_1"]
        assert await session.send_result("of a") == [text_chunk("Both are read.")]
        history = await session.fetch_history()
        assert (await session.get("/sessions/{id}/view"))["open_calls"] == []
    assert list_open_calls(history) == set()
    assert history[-1] == assistant("Both are read.")
    assert sorted(list_results(find_conversation(llm, "Read both"))) == ["of a", "of b"]


async def test_a_rejected_call_is_refused_when_the_model_makes_it_again(old: OldDatabase) -> None:
    again = call_tool("write_file", "", "call_3", path="a.py", content="x")
    async with old.serve(again, say_text("Then not.")) as (client, llm):
        session = client.open_session("rejected", parallel_tools=True)
        error, answer = await session.send_result("of b", "call_2")
        calls = (await session.get("/sessions/{id}/calls"))["calls"]
    assert (error["metadata"]["code"], error["metadata"]["rule"]) == ("tool_denied", "user.rejected")
    assert answer == text_chunk("Then not.")
    assert [(call["call_id"], call["status"]) for call in calls] == [
        ("call_1", "rejected"),
        ("call_2", "answered"),
        ("call_3", "refused"),
    ]
    rejection = "The user rejected this call. They said: Not this one."
    assert list_results(find_conversation(llm, "Write a.py and read b.py")) == [rejection, "of b", rejection]


async def test_the_own_question_of_the_service_is_approved(old: OldDatabase) -> None:
    (call_id,) = old.find_answer("budget", "/view")["pending_approvals"]
    async with old.serve(call_tool("read_file", "", "call_2", path="b.py"), say_text("All is read.")) as (client, llm):
        session = client.open_session("budget")
        assert await session.decide("approve", call_id) == [tool_call_chunk("read_file", "call_2", path="b.py")]
        assert await session.send_result("y = 1", "call_2") == [text_chunk("All is read.")]
        agreement, _, _, answer = await old.fetch_new(session)
        (entry,) = (await session.get("/sessions/{id}/audit"))["entries"]
        budget = (await session.get("/sessions/{id}/usage"))["budget"]
    assert agreement == result("The user agreed to go on.", "continue_work", call_id)
    assert answer == assistant("All is read.")
    conversation = find_conversation(llm, "Read all of it")
    assert [message.type for message in conversation] == ["human", "ai", "tool", "ai", "tool"]
    assert (entry["tool_name"], entry["decision"], entry["rule"]) == ("continue_work", "approve", "budget.turn_tokens")
    before = old.find_answer("budget", "/usage")["budget"]
    assert budget["turn_tokens"]["used"] == before["turn_tokens"]["used"] + 2 * 15
    assert budget["max_model_calls"]["used"] == before["max_model_calls"]["used"] + 2


async def test_the_own_question_of_the_service_is_rejected(old: OldDatabase) -> None:
    (call_id,) = old.find_answer("budget", "/view")["pending_approvals"]
    stop = "Stopped here: 815 of 1000 tokens of this turn are used. Send a message to go on."
    async with old.serve(say_text("Here I am.")) as (client, _):
        session = client.open_session("budget")
        assert await session.decide("reject", call_id) == [text_chunk(stop)]
        assert await session.send_text("Go on") == [text_chunk("Here I am.")]
        assert (await old.fetch_new(session))[1:] == [assistant(stop), user("Go on"), assistant("Here I am.")]


async def test_a_model_does_not_hear_what_the_service_and_its_user_said(old: OldDatabase) -> None:
    async with old.serve(say_text("Here I am.")) as (client, llm):
        assert await client.open_session("stopped").send_text("Go on") == [text_chunk("Here I am.")]
    conversation = find_conversation(llm, "Go on")
    assert [message.content for message in conversation] == ["Read all of it", "", "x = 1", "(no answer)", "Go on"]


@pytest.mark.parametrize("way", ["message", "cancel"])
async def test_open_calls_are_closed(old: OldDatabase, way: str) -> None:
    async with old.serve(*[say_text("Fine.")] * len(PAUSES)) as (client, _):
        for name in PAUSES:
            session = client.open_session(name)
            if way == "cancel":
                (await client.http.post(f"/sessions/{name}/cancel")).raise_for_status()
                assert list_open_calls(await session.fetch_history()) == set()
            assert await session.send_text("Never mind") == [text_chunk("Fine.")]
            *answers, request, last = await old.fetch_new(session)
            assert {answer["content"] for answer in answers} == {"cancelled: the user went on"}
            assert (request, last) == (user("Never mind"), assistant("Fine."))
            assert list_open_calls(await session.fetch_history()) == set()
            assert (await session.get("/sessions/{id}/view"))["open_calls"] == []
            (error,) = await session.send_result("late")
            assert error["metadata"]["code"] == "call_not_open"


async def test_a_grant_still_agrees_until_it_is_revoked(old: OldDatabase) -> None:
    (grant,) = old.find_answer("granted", "/grants")["grants"]
    about = {"rule": f"grant.{grant['id']}", "reason": "The user allowed calls like this one.", "passed_by": "grant"}
    third, fourth = [call_tool("write_file", "", f"call_{n}", path=f"docs/{n}.md", content="c") for n in (3, 4)]
    async with old.serve(third, say_text("Written."), fourth) as (client, _):
        session = client.open_session("granted")
        assert await session.send_text("One more") == [
            {**tool_call_chunk("write_file", "call_3", path="docs/3.md", content="c"), "metadata": about}
        ]
        assert await session.send_result("written", "call_3") == [text_chunk("Written.")]
        (now,) = (await session.get("/sessions/{id}/grants"))["grants"]
        *entries, last = (await session.get("/sessions/{id}/audit"))["entries"]
        (await client.http.delete(f"/sessions/granted/grants/{grant['id']}")).raise_for_status()
        assert await session.send_text("And another") == [write_approval_chunk("docs/4.md", "c", "call_4")]
    assert now == {**grant, "uses_left": grant["uses_left"] - 1}
    assert entries == old.find_answer("granted", "/audit")["entries"]
    assert (last["call_id"], last["decided_by"]) == ("call_3", "grant")


async def test_a_model_hears_of_all_earlier_decisions(old: OldDatabase) -> None:
    reason = "Creating a folder needs the user's approval."
    async with old.serve(call_tool("create_directory", "", "call_5", path="docs")) as (client, llm):
        (call,) = await client.open_session("edited").send_text("And the docs?")
    assert call == approval_chunk("create_directory", "write.directory", reason, "call_5", path="docs")
    before = [message["content"] for message in old.find_history("edited") if message["role"] == "tool"]
    assert list_results(find_conversation(llm, "And the docs?")) == before


async def test_usage_is_added_up_and_a_choice_can_still_be_corrected(old: OldDatabase) -> None:
    async with old.serve(say_text("Let me see.")) as (client, _):
        session = client.open_session("routed", usage=True)
        *_, usage, answer = await session.switch("coder", content="Repair it")
        now = await session.get("/sessions/{id}/usage")
        export = await session.get("/sessions/{id}/export")
    before = old.find_answer("routed", "/usage")
    assert (usage["type"], usage["total_tokens"], usage["currency"]) == ("usage", 15, "EUR")
    assert answer == text_chunk("Let me see.")
    assert now["total_tokens"] == before["total_tokens"] + 15
    assert now["model_calls"] == before["model_calls"] + 1
    assert now["cost"] == pytest.approx(before["cost"] + (10 * 2 + 5 * 8) / 1_000_000)
    assert now["runs"][1:] == before["runs"]
    assert now["agents"] == {**before["agents"], "coder": now["agents"]["coder"]}
    *routings, last = old.find_answer("routed", "/export")["routings"]
    assert export["routings"] == [*routings, {**last, "override": "coder"}]
    assert export["session"]["title"] == "Größe"


async def test_a_killed_run_is_taken_up(old: OldDatabase) -> None:
    async with old.serve(say_text("Welcome.")) as (client, _):
        for name, request in (("killed", "Add 1 and 2."), ("killed-first", "Hello, who are you?")):
            session = client.open_session(name)
            assert (await join_run(session))[-1] == text_chunk(UNFINISHED[request])
            assert await old.fetch_new(session) == [user(request), assistant(UNFINISHED[request])]
            assert (await session.get("/sessions/{id}/view"))["running"] is False
            run = (await session.get("/sessions/{id}/export"))["runs"][-1]
            assert (run["status"], run["attempts"]) == ("done", 2)
        assert await client.open_session("killed").send_text("Thanks") == [text_chunk("Welcome.")]


async def test_a_killed_run_of_a_result_is_taken_up(old: OldDatabase) -> None:
    async with old.serve() as (client, _):
        session = client.open_session("killed-result")
        assert await join_run(session) == [text_chunk("It holds x.")]
        assert await session.send_result("x = 1") == [text_chunk("It holds x.")]
        assert await old.fetch_new(session) == [result("x = 1", "read_file"), assistant("It holds x.")]


async def test_an_outcome_that_was_not_stored_is_read_off_the_thread(old: OldDatabase) -> None:
    """Tell again, without a model, the service's own question after a call that came a third time."""
    async with old.serve() as (client, llm):
        session = client.open_session("unstored")
        *_, question = await join_run(session)
        assert await old.fetch_new(session) == []
        assert (await session.get("/sessions/{id}"))["current_agent"] == "ask"
    assert question["content"].startswith("I was about to call calculator a third time")
    assert question["metadata"]["repeated"] == {"tool_name": "calculator", "times": 3}
    assert "Add 1 and 1." not in [find_request(prompt) for prompt in llm.prompts]


async def test_a_queued_message_runs_after_the_one_before_it(old: OldDatabase) -> None:
    async with old.serve() as (client, _):
        session = client.open_session("queued")
        await join_run(session)
        assert await join_run(session) == [text_chunk("Two.")]
        assert await old.fetch_new(session) == [
            user("The first of two."),
            assistant("One."),
            user("The second of two."),
            assistant("Two."),
        ]
        assert (await session.get("/sessions/{id}/view"))["waiting"] == 0


async def test_a_run_that_was_handed_over_goes_on_where_it_was(old: OldDatabase) -> None:
    """Go on behind the tool that the run had called: the model is asked once more, and not from the start."""
    async with old.serve() as (client, llm):
        session = client.open_session("handed")
        assert await join_run(session) == [text_chunk("It is 7.")]
        request, call, answer, last = await old.fetch_new(session)
    assert (request, last) == (user("Add 3 and 4."), assistant("It is 7."))
    assert [each["function"]["name"] for each in call["tool_calls"]] == ["calculator"]
    assert answer == result("7", "calculator")
    (prompt,) = [prompt for prompt in llm.prompts if find_request(prompt) == "Add 3 and 4."]
    assert [message.content for message in prompt[1:]] == ["Hello", "Hi.", "Add 3 and 4.", "", "7"]


async def test_turns_are_taken_back_one_after_the_other(old: OldDatabase) -> None:
    async with old.serve(say_text("Three."), say_text("Hi.")) as (client, _):
        undone, finished = client.open_session("undone"), client.open_session("finished")
        assert (await undo(undone))["undone"] == "Second"
        assert await undone.send_text("Third") == [text_chunk("Three.")]
        assert [message["content"] for message in await undone.fetch_history()] == ["First", "One.", "Third", "Three."]
        assert await undo(finished) == {
            "session_id": "finished",
            "undone": "Add two to it.\nThen tell me.",
            "message_count": 4,
            "current_agent": "ask",
        }
        assert await finished.fetch_history() == old.find_history("finished")[:4]
        assert (await undo(finished))["current_agent"] == "orchestrator"
        # The id of a message that was taken back is free again.
        assert await finished.send_text("Hello", id="m-1") == [
            agent_switch_chunk("orchestrator", "ask"),
            text_chunk("Hi."),
        ]
        assert await finished.fetch_history() == [user("Hello"), assistant("Hi.")]


async def test_an_open_call_is_taken_back_with_its_turn(old: OldDatabase) -> None:
    async with old.serve() as (client, _):
        for name in PAUSES:
            session = client.open_session(name)
            await undo(session)
            assert await session.fetch_history() == []
            assert (await session.get("/sessions/{id}/view"))["open_calls"] == []


async def test_copies_go_their_own_way(old: OldDatabase) -> None:
    async with old.serve(say_text("Copied."), say_text("Also copied.")) as (client, _):
        source, pause = client.open_session("finished"), client.open_session("parallel")
        first, whole = await fork(source, turn=1), await fork(source)
        assert await first.fetch_history() == old.find_history("finished")[:4]
        assert await whole.fetch_history() == old.find_history("finished")
        assert await first.send_text("Go on") == [text_chunk("Copied.")]
        copy = await fork(pause)
        assert list_open_calls(await copy.fetch_history()) == set()
        assert await copy.send_text("Go on") == [text_chunk("Also copied.")]
        assert await old.fetch_new(source) == await old.fetch_new(pause) == []


async def test_a_deleted_session_stays_deleted_and_its_id_begins_anew(old: OldDatabase) -> None:
    async with old.serve(call_tool("write_file", path="b.py", content="y"), choice="coder") as (client, _):
        session = client.open_session("deleted")
        for path in ("", "/history", "/view", "/audit", "/calls", "/usage", "/grants", "/export", "/stream"):
            response = await client.http.get(f"/sessions/deleted{path}")
            assert (response.status_code, response.json()) == (404, {"error": "Session deleted not found"})
        (error,) = await session.send_result("another result")
        assert error["metadata"]["code"] == "call_not_open"
        assert await session.send_text("Write b.py") == [
            agent_switch_chunk("orchestrator", "coder"),
            write_approval_chunk("b.py", "y"),
        ]
        assert await session.decide("approve") == [tool_call_chunk("write_file", path="b.py", content="y")]
        assert [message["role"] for message in await session.fetch_history()] == ["user", "assistant"]
        entries = (await session.get("/sessions/{id}/audit"))["entries"]
    assert [entry["original_arguments"]["path"] for entry in entries] == ["a.py", "b.py"]


async def test_sessions_are_erased(old: OldDatabase) -> None:
    async with old.serve() as (client, _):
        for name in ("deleted", "granted", "pruned", "sent"):
            (await client.http.delete(f"/sessions/{name}?hard=true")).raise_for_status()
            assert (await client.http.get(f"/sessions/{name}")).status_code == 404
            assert (await client.http.delete(f"/sessions/{name}?hard=true")).status_code == 404
        total = (await client.open_session().get("/sessions"))["total"]
    assert total == len(old.answers["sessions"]) + len(old.answers["histories"]) - 3


async def test_a_pruned_session_goes_on(old: OldDatabase) -> None:
    async with old.serve(say_text("Four."), say_text("Copied.")) as (client, llm):
        session = client.open_session("pruned")
        assert await session.send_text("Fourth") == [text_chunk("Four.")]
        assert [message.content for message in find_conversation(llm, "Fourth")] == [
            *("First", "One.", "Second", "", "x = 1", "Two.", "Third", "Three.", "Fourth")
        ]
        assert await old.fetch_new(session) == [user("Fourth"), assistant("Four.")]
        assert [(await undo(session))["undone"] for _ in range(2)] == ["Fourth", "Third"]
        copy = await fork(session, turn=1)
        assert await copy.send_text("Other") == [text_chunk("Copied.")]
        assert [message["content"] for message in await copy.fetch_history()] == ["First", "One.", "Other", "Copied."]


async def test_a_summary_is_sent_to_the_model_until_what_it_tells_is_taken_back(old: OldDatabase) -> None:
    async with old.serve(say_text("All of them."), say_text("Nothing yet.")) as (client, llm):
        session = client.open_session("summarised")
        assert await session.send_text("Which files?") == [text_chunk("All of them.")]
        opening, *rest = find_conversation(llm, "Which files?")
        assert "\n> The files hold the number one.\n" in str(opening.content)
        assert len(rest) < len(old.find_history("summarised"))
        assert await old.fetch_new(session) == [user("Which files?"), assistant("All of them.")]
        while (await session.get("/sessions/{id}"))["message_count"]:
            await undo(session)
        assert await session.send_text("And now?") == [
            agent_switch_chunk("orchestrator", "ask"),
            text_chunk("Nothing yet."),
        ]
    assert [message.content for message in find_conversation(llm, "And now?")] == ["And now?"]


async def test_the_audits_are_whole_and_go_on(old: OldDatabase) -> None:
    lines = say_text("Written."), say_text("Fine."), call_tool("write_file", path="b.py", content="y")
    async with old.serve(*lines, say_text("Written as well."), choice="coder") as (client, _):
        asks, deleted = client.open_session("asks"), client.open_session("deleted")
        await asks.decide("approve")
        await asks.send_result("written")
        await client.open_session("budget").send_text("Never mind")
        await undo(client.open_session("sent"))
        await deleted.send_text("Write b.py")
        await deleted.decide("approve")
        assert await deleted.send_result("written") == [text_chunk("Written as well.")]
    assert old.verify() == "10 of 10 sessions are whole, 16 entries were read.\n"
