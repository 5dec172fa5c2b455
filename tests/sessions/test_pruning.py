"""Pruning drops the earlier states of a thread; a pruned session behaves like an unpruned twin."""

from collections.abc import Callable
from random import Random
from typing import Any

import pytest
from fastapi import FastAPI
from langchain_core.messages import AIMessageChunk, BaseMessage

from server import create_app
from sessions.store import sessions as session_rows
from tests.support.rewind import undo_last_turn
from tests.support.rows import count_rows
from tests.support.scripted import ScriptLine, call_tool, call_tools, choose_agent, make_model, say_text
from tests.support.service import SessionClient, provide_model, settings_for, start_service, text_chunk
from tests.support.storage import execute_script

PRUNE_EVERY_RUN = {"prune_after_runs": 1}


async def test_pruned_thread_has_one_checkpoint_and_still_works(database: str) -> None:
    llm = make_model(
        choose_agent("ask"),
        say_text("One."),
        say_text("Two."),
        say_text("Three."),
        say_text("Four."),
        say_text("Five."),
    )
    settings = settings_for(database, **PRUNE_EVERY_RUN)
    app = create_app(settings, provide_model(llm))
    async with start_service(None, settings, app) as client:
        session = client.open_session()
        await session.send_text("First")
        await app.state.janitor.prune_sessions()
        assert (await count_rows(app))["checkpoints"] > 1
        await session.send_text("Second")
        before = await fetch_view(session)
        await app.state.janitor.prune_sessions()
        assert await fetch_view(session) == before
        assert await count_checkpoints(app) == [1, 0]
        assert await session.send_text("Third") == [text_chunk("Three.")]
        assert (await undo_last_turn(session))["undone"] == "Third"
        now = await fetch_view(session)
        assert now == {**before, "last_activity": now["last_activity"], "usage": now["usage"]}  # spent stays spent
        await app.state.janitor.prune_sessions()
        assert await session.send_text("Fourth") == [text_chunk("Four.")]
        copied = (await client.http.post("/sessions/s-1/fork", json={"turn": 2})).json()["session_id"]
        assert len(await client.open_session(copied).fetch_history()) == 4
    async with start_service(llm, settings) as client:
        assert await client.open_session().send_text("Fifth") == [text_chunk("Five.")]
    assert [m.content for m in llm.prompts[-1][1:]] == ["First", "One.", "Second", "Two.", "Fourth", "Four.", "Fifth"]


async def fetch_view(session: SessionClient) -> dict[str, Any]:
    view: dict[str, Any] = await session.get("/sessions/{id}/view")
    del view["last_event_id"]
    return view


async def count_checkpoints(app: FastAPI, session_id: str = "s-1") -> list[int]:
    """Return the numbers of checkpoints and of writes."""
    counts = await count_rows(app, session_id)
    return [counts["checkpoints"], counts.get("writes", 0) + counts.get("checkpoint_writes", 0)]


async def test_paused_session_is_not_pruned(database: str) -> None:
    settings = settings_for(database, **PRUNE_EVERY_RUN)
    lines = (
        choose_agent("coder"),
        say_text("Hi."),
        say_text("Hi."),
        call_tool("write_file", path="a.py", content="x"),
        say_text("Fine."),
    )
    app = create_app(settings, provide_model(make_model(*lines)))
    async with start_service(None, settings, app) as client:
        session = client.open_session()
        for content in ("Hello", "Hello", "Write a.py"):
            await session.send_text(content)
        before = await count_rows(app)
        await app.state.janitor.prune_sessions()
        assert await count_rows(app) == before
        assert await session.decide("reject") == [text_chunk("Fine.")]
        await app.state.janitor.prune_sessions()
        assert await count_checkpoints(app) == [1, 0]


async def test_failed_prune_changes_no_history_and_can_be_repeated(database: str) -> None:
    settings = settings_for(database, log_level="CRITICAL", **PRUNE_EVERY_RUN)
    llm = make_model(choose_agent("ask"), say_text("One."), say_text("Two."), say_text("Three."))
    async with start_service(llm, settings) as client:
        await client.open_session().send_text("First")
        await client.open_session().send_text("Second")
        history = await client.open_session().fetch_history()
    for statement in REFUSING_TRIGGERS["sqlite" if database.startswith("sqlite") else "postgres"]:
        execute_script(database, statement)
    app = create_app(settings, provide_model(llm))
    async with start_service(None, settings, app) as client:
        before = await count_rows(app)
        await app.state.janitor.prune_sessions()
        halfway = await count_rows(app)
        assert await client.open_session().fetch_history() == history
    assert halfway["checkpoints"] > before["checkpoints"]
    execute_script(database, f"drop trigger refuse{'' if database.startswith('sqlite') else ' on checkpoints'}")
    app = create_app(settings, provide_model(llm))
    async with start_service(None, settings, app) as client:
        await app.state.deps.database.transact(lambda c: session_rows.update_session(c, "s-1", runs_since_prune=9))
        await app.state.janitor.prune_sessions()
        assert await count_checkpoints(app) == [1, 0]
        assert await client.open_session().send_text("Third") == [text_chunk("Three.")]
        assert (await client.open_session().fetch_history())[:4] == history


REFUSING_TRIGGERS = {
    "sqlite": ["create trigger refuse before update on checkpoints begin select raise(abort, 'refused'); end"],
    "postgres": [
        "create function refuse() returns trigger language plpgsql as $$ begin raise exception 'refused'; end $$",
        "create trigger refuse before update on checkpoints for each row execute function refuse()",
    ],
}
"""Triggers that refuse the last statement of a prune, after its deletions."""


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(4))
async def test_pruned_session_behaves_like_an_unpruned_one(database: str, seed: int) -> None:
    llm = make_model(*[script_by_seed(seed)] * 1000)
    settings = settings_for(database, log_level="CRITICAL", **PRUNE_EVERY_RUN)
    dice = Random(seed)
    async with start_service(llm, settings) as client:
        for name in ("pruned", "twin"):
            await client.open_session(name).switch("coder", content="Begin.")
    for _ in range(2):
        app = create_app(settings, provide_model(llm))
        async with start_service(None, settings, app) as client:
            twins = client.open_session("pruned", parallel_tools=True), client.open_session("twin", parallel_tools=True)
            for _ in range(12):
                if dice.random() < 0.5:
                    await app.state.janitor.prune_sessions()
                await play_on_both(twins, dice)
                await app.state.deps.database.transact(
                    lambda c: session_rows.update_session(c, "twin", runs_since_prune=-1000)
                )
    (pruned,), (twin,) = execute_script(
        database, "select count(*) from checkpoints group by thread_id order by thread_id"
    )
    assert pruned < twin


async def play_on_both(twins: tuple[SessionClient, SessionClient], dice: Random) -> None:
    """Make the same move in both sessions; their answers and conversations must be equal."""
    waiting = await fetch_open_calls(twins[1])
    move = dice.choice(CALL_ANSWERS if waiting and dice.random() < 0.8 else TURN_STARTS)
    call_id = dice.choice(waiting) if waiting else ""
    answers = [drop_request_id(await move(twin, call_id)) for twin in twins]
    assert answers[0] == answers[1]
    pruned, twin = [await fetch_conversation(each) for each in twins]
    assert pruned == twin


def drop_request_id(answer: Any) -> Any:
    for chunk in answer if isinstance(answer, list) else []:
        (chunk.get("metadata") or {}).pop("request_id", None)
    return answer


async def fetch_open_calls(session: SessionClient) -> list[str]:
    response = await session.http.get(f"/sessions/{session.id}/view")
    return [call["call_id"] for call in response.json().get("open_calls", [])]


async def fetch_conversation(session: SessionClient) -> Any:
    history = await session.get("/sessions/{id}/history")
    calls = (await session.get("/sessions/{id}/calls"))["calls"]
    switches = [(each["from"], each["to"]) for each in history["agent_history"]]
    told = [(call["call_id"], call["status"], call["agent"], call["arguments"]) for call in calls]
    return history["messages"], history["current_agent"], switches, told


async def try_undo_turn(session: SessionClient, _: str) -> Any:
    response = await session.http.post(f"/sessions/{session.id}/undo")
    return response.json().get("undone")


async def cancel_session(session: SessionClient, _: str) -> Any:
    return (await session.http.post(f"/sessions/{session.id}/cancel")).status_code


Move = Callable[[SessionClient, str], Any]
TURN_STARTS: list[Move] = [
    lambda session, _: session.switch("coder", content="Go on."),
    lambda session, _: session.switch("architect", content="Go on."),
    lambda session, _: session.switch("ask"),
    try_undo_turn,
    cancel_session,
]
CALL_ANSWERS: list[Move] = [
    lambda session, call_id: session.decide("approve", call_id),
    lambda session, call_id: session.decide("reject", call_id),
    lambda session, call_id: session.decide("edit", call_id, modified_arguments={"content": "better"}),
    lambda session, call_id: session.send_result("ok", call_id),
    lambda session, call_id: session.send_result("ok", call_id),
    lambda session, call_id: session.send_result(None, call_id, error="User rejected it"),
]


def script_by_seed(seed: int) -> ScriptLine:
    """Return a line of the model that is the same for the same conversation."""

    def answer_by_seed(messages: list[BaseMessage]) -> AIMessageChunk:
        dice = Random(f"{seed} {len(messages)} {messages[-1].content}")
        if dice.random() < 0.3:
            return say_text(f"Done {len(messages)}.")
        many = dice.choice([1, 1, 2])
        return call_tools(
            *[(dice.choice(TOOL_NAMES), f"call_{len(messages)}_{n}", dice.choice(ARGUMENT_TEXTS)) for n in range(many)]
        )

    return answer_by_seed


TOOL_NAMES = ["write_file", "read_file"]
ARGUMENT_TEXTS = ['{"path": "a.md", "content": "a"}', '{"path": "a.py"}', '{"path": "b.py", "content": "b"}', "[]"]
