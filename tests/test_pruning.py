"""What a thread was is dropped, what it is stays: a pruned session cannot be told from its unpruned twin."""

from collections.abc import Callable
from random import Random
from typing import Any

import pytest
from fastapi import FastAPI
from langchain_core.messages import AIMessageChunk, BaseMessage

from server import create_app
from sessions.store import sessions as session_rows
from tests.scripted import Line, asks, calls, chooses, model, says
from tests.service import Session, given, service, settings_for, text
from tests.test_persistence import rows
from tests.test_removal import left
from tests.test_rewinding import undone

pytestmark = pytest.mark.anyio
OFTEN = {"prune_after_runs": 1}


async def test_a_pruned_thread_is_one_checkpoint_and_goes_on(database: str) -> None:
    llm = model(chooses("ask"), says("One."), says("Two."), says("Three."), says("Four."), says("Five."))
    settings = settings_for(database, **OFTEN)
    app = create_app(settings, given(llm))
    async with service(None, settings, app) as client:
        session = client.session()
        await session.user("First")
        await app.state.janitor.prune()
        assert (await left(app))["checkpoints"] > 1
        await session.user("Second")
        before = await seen(session)
        await app.state.janitor.prune()
        assert await seen(session) == before
        assert await threads(app) == [1, 0]
        assert await session.user("Third") == [text("Three.")]
        assert (await undone(session))["undone"] == "Third"
        now = await seen(session)
        assert now == {**before, "last_activity": now["last_activity"], "usage": now["usage"]}  # spent stays spent
        await app.state.janitor.prune()
        assert await session.user("Fourth") == [text("Four.")]
        copied = (await client.http.post("/sessions/s-1/fork", json={"turn": 2})).json()["session_id"]
        assert len(await client.session(copied).history()) == 4
    async with service(llm, settings) as client:
        assert await client.session().user("Fifth") == [text("Five.")]
    assert [m.content for m in llm.heard[-1][1:]] == ["First", "One.", "Second", "Two.", "Fourth", "Four.", "Fifth"]


async def seen(session: Session) -> dict[str, Any]:
    view: dict[str, Any] = await session.get("/sessions/{id}/view")
    del view["last_event_id"]
    return view


async def threads(app: FastAPI, session_id: str = "s-1") -> list[int]:
    """How many checkpoints and writes there are."""
    counts = await left(app, session_id)
    return [counts["checkpoints"], counts.get("writes", 0) + counts.get("checkpoint_writes", 0)]


async def test_a_session_that_waits_for_its_user_is_left_alone(database: str) -> None:
    settings = settings_for(database, **OFTEN)
    lines = (chooses("coder"), says("Hi."), says("Hi."), calls("write_file", path="a.py", content="x"), says("Fine."))
    app = create_app(settings, given(model(*lines)))
    async with service(None, settings, app) as client:
        session = client.session()
        for content in ("Hello", "Hello", "Write a.py"):
            await session.user(content)
        before = await left(app)
        await app.state.janitor.prune()
        assert await left(app) == before
        assert await session.decide("reject") == [text("Fine.")]
        await app.state.janitor.prune()
        assert await threads(app) == [1, 0]


async def test_a_prune_that_fails_in_the_middle_changes_nothing_and_can_be_done_again(database: str) -> None:
    settings = settings_for(database, log_level="CRITICAL", **OFTEN)
    llm = model(chooses("ask"), says("One."), says("Two."), says("Three."))
    async with service(llm, settings) as client:
        await client.session().user("First")
        await client.session().user("Second")
        history = await client.session().history()
    for statement in REFUSE["sqlite" if database.startswith("sqlite") else "postgres"]:
        rows(database, statement)
    app = create_app(settings, given(llm))
    async with service(None, settings, app) as client:
        before = await left(app)
        await app.state.janitor.prune()
        halfway = await left(app)
        assert await client.session().history() == history
    assert halfway["checkpoints"] > before["checkpoints"]
    rows(database, f"drop trigger refuse{'' if database.startswith('sqlite') else ' on checkpoints'}")
    app = create_app(settings, given(llm))
    async with service(None, settings, app) as client:
        await app.state.database.transact(lambda c: session_rows.update_session(c, "s-1", unpruned=9))
        await app.state.janitor.prune()
        assert await threads(app) == [1, 0]
        assert await client.session().user("Third") == [text("Three.")]
        assert (await client.session().history())[:4] == history


REFUSE = {
    "sqlite": ["create trigger refuse before update on checkpoints begin select raise(abort, 'refused'); end"],
    "postgres": [
        "create function refuse() returns trigger language plpgsql as $$ begin raise exception 'refused'; end $$",
        "create trigger refuse before update on checkpoints for each row execute function refuse()",
    ],
}
"""After the deletions, before the last statement."""


@pytest.mark.parametrize("seed", range(4))
async def test_whatever_is_said_a_pruned_session_is_as_its_twin(database: str, seed: int) -> None:
    llm = model(*[spoken(seed)] * 1000)
    settings = settings_for(database, log_level="CRITICAL", **OFTEN)
    dice = Random(seed)
    async with service(llm, settings) as client:
        for name in ("pruned", "twin"):
            await client.session(name).switch("coder", content="Begin.")
    for _ in range(2):
        app = create_app(settings, given(llm))
        async with service(None, settings, app) as client:
            twins = client.session("pruned", parallel_tools=True), client.session("twin", parallel_tools=True)
            for _ in range(12):
                if dice.random() < 0.5:
                    await app.state.janitor.prune()
                await both(twins, dice)
                await app.state.database.transact(lambda c: session_rows.update_session(c, "twin", unpruned=-1000))
    (pruned,), (twin,) = rows(database, "select count(*) from checkpoints group by thread_id order by thread_id")
    assert pruned < twin


async def both(twins: tuple[Session, Session], dice: Random) -> None:
    """The same to both, with the same answer."""
    waiting = await open_calls(twins[1])
    move = dice.choice(ANSWERS if waiting and dice.random() < 0.8 else STARTS)
    call_id = dice.choice(waiting) if waiting else ""
    answers = [without_request_id(await move(twin, call_id)) for twin in twins]
    assert answers[0] == answers[1]
    pruned, twin = [await remembered(each) for each in twins]
    assert pruned == twin


def without_request_id(answer: Any) -> Any:
    for chunk in answer if isinstance(answer, list) else []:
        (chunk.get("metadata") or {}).pop("request_id", None)
    return answer


async def open_calls(session: Session) -> list[str]:
    response = await session.http.get(f"/sessions/{session.id}/view")
    return [call["call_id"] for call in response.json().get("open_calls", [])]


async def remembered(session: Session) -> Any:
    history = await session.get("/sessions/{id}/history")
    calls = (await session.get("/sessions/{id}/calls"))["calls"]
    switches = [(each["from"], each["to"]) for each in history["agent_history"]]
    told = [(call["call_id"], call["status"], call["agent"], call["arguments"]) for call in calls]
    return history["messages"], history["current_agent"], switches, told


async def taken_back(session: Session, _: str) -> Any:
    response = await session.http.post(f"/sessions/{session.id}/undo")
    return response.json().get("undone")


async def stopped(session: Session, _: str) -> Any:
    return (await session.http.post(f"/sessions/{session.id}/cancel")).status_code


Move = Callable[[Session, str], Any]
STARTS: list[Move] = [
    lambda session, _: session.switch("coder", content="Go on."),
    lambda session, _: session.switch("architect", content="Go on."),
    lambda session, _: session.switch("ask"),
    taken_back,
    stopped,
]
ANSWERS: list[Move] = [
    lambda session, call_id: session.decide("approve", call_id),
    lambda session, call_id: session.decide("reject", call_id),
    lambda session, call_id: session.decide("edit", call_id, modified_arguments={"content": "better"}),
    lambda session, call_id: session.result("ok", call_id),
    lambda session, call_id: session.result("ok", call_id),
    lambda session, call_id: session.result(None, call_id, error="User rejected it"),
]


def spoken(seed: int) -> Line:
    """The same to the same conversation."""

    def line(messages: list[BaseMessage]) -> AIMessageChunk:
        dice = Random(f"{seed} {len(messages)} {messages[-1].content}")
        if dice.random() < 0.3:
            return says(f"Done {len(messages)}.")
        many = dice.choice([1, 1, 2])
        return asks(*[(dice.choice(TOOLS), f"call_{len(messages)}_{n}", dice.choice(BODIES)) for n in range(many)])

    return line


TOOLS = ["write_file", "read_file"]
BODIES = ['{"path": "a.md", "content": "a"}', '{"path": "a.py"}', '{"path": "b.py", "content": "b"}', "[]"]
