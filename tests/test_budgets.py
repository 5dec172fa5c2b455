"""Budgets: at the warning the user is asked whether to go on, at the limit the work ends and nothing is lost."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from langchain_core.messages import AIMessageChunk

from tests.scripted import ScriptedModel, asks, calls, chooses, costs, model, roles, says
from tests.service import Session, service, settings_for, text, tool_call

pytestmark = pytest.mark.anyio

PRICES = {"big": {"prompt": 1, "completion": 1}}
USED = "800 of 1000 tokens of this turn"
REASON = f"The work has used {USED}. Approve to go on up to the limit, reject to stop here."
STOPPED = f"Stopped here: {USED} are used. Send a message to go on."
CANCELLED = "cancelled: the user went on"


def reads(number: int, tokens: int) -> AIMessageChunk:
    return costs(calls("read_file", call_id=f"c{number}", path=f"{number}.py"), tokens, 0)


def question(call: dict[str, Any], used: str, setting: str) -> dict[str, Any]:
    """The chunk that asks whether to go on."""
    reason = f"The work has used {used}. Approve to go on up to the limit, reject to stop here."
    asked = tool_call("continue_work", call["call_id"], used=used)
    return {**asked, "requires_approval": True, "metadata": {"rule": f"budget.{setting}", "reason": reason}}


@asynccontextmanager
async def asked(url: str | Path, llm: ScriptedModel, **changes: Any) -> AsyncIterator[tuple[Session, str]]:
    """A session whose turn has used 800 of its 1000 tokens, and the id of the call that asks whether to go on."""
    async with service(llm, settings_for(url, turn_tokens=1000, **changes)) as client:
        session = client.session()
        await session.switch("ask", content="Read it")
        (call,) = await session.result("x", "c0")
        assert call == question(call, USED, "turn_tokens")
        yield session, call["call_id"]


async def test_a_turn_asks_once_before_it_uses_all_that_it_may(database: str) -> None:
    llm = model(reads(0, 800), reads(1, 100), costs(says("Done."), 99, 0))
    async with asked(database, llm) as (session, call_id):
        pending = (await session.get("/sessions/{id}/pending-approvals"))["pending_approvals"]
        assert [(call["call_id"], call["tool_name"], call["reason"]) for call in pending] == [
            (call_id, "continue_work", REASON)
        ]
        assert await session.decide("approve", call_id) == [tool_call("read_file", "c1", path="1.py")]
        assert await session.result("y", "c1") == [text("Done.")]
        history = await session.history()
        (entry,) = (await session.get("/sessions/{id}/audit"))["entries"]
        budget = (await session.get("/sessions/{id}/usage"))["budget"]
        made = (await session.get("/sessions/{id}/calls"))["calls"]
    assert [(m["role"], m.get("content")) for m in history[3:5]] == [
        ("assistant", None),
        ("tool", "The user agreed to go on."),
    ]
    assert [roles(heard) for heard in llm.heard[1:]] == [
        ["system", "human", "ai", "tool"],
        ["system", "human", "ai", "tool", "ai", "tool"],
    ]
    assert (entry["tool_name"], entry["decision"], entry["decided_by"], entry["rule"]) == (
        "continue_work",
        "approve",
        "hitl_decision",
        "budget.turn_tokens",
    )
    assert budget == {
        "max_model_calls": {"limit": 100, "used": 3, "left": 97},
        "turn_tokens": {"limit": 1000, "used": 999, "left": 1},
    }
    assert [(call["tool_name"], call["status"]) for call in made] == [
        ("read_file", "answered"),
        ("continue_work", "approved"),
        ("read_file", "answered"),
    ]


@pytest.mark.parametrize("result", [{"result": "ok"}, {"error": "Unknown tool: continue_work"}])
async def test_a_result_is_an_agreement(tmp_path: Path, result: dict[str, Any]) -> None:
    """Today's IDE asks its user, and then finds that it has no such tool."""
    async with asked(tmp_path, model(reads(0, 800), says("Done."))) as (session, call_id):
        assert await session.send({"type": "tool_result", "call_id": call_id, **result}) == [text("Done.")]
        (entry,) = (await session.get("/sessions/{id}/audit"))["entries"]
        assert (await session.history())[4]["content"] == "The user agreed to go on."
    assert (entry["decision"], entry["decided_by"]) == ("approve", "tool_result")


@pytest.mark.parametrize(
    "refusal",
    [
        {"type": "hitl_decision", "decision": "reject", "feedback": "Enough."},
        {"type": "tool_result", "error": "User rejected the call"},
    ],
)
async def test_a_refusal_ends_the_turn(database: str, refusal: dict[str, Any]) -> None:
    llm = model(reads(0, 800), costs(says("Here I am."), 10, 0))
    async with asked(database, llm) as (session, call_id):
        assert await session.send({**refusal, "call_id": call_id}) == [text(STOPPED)]
        assert await session.send({**refusal, "call_id": call_id}) == [text(STOPPED)]
        (entry,) = (await session.get("/sessions/{id}/audit"))["entries"]
        assert await session.user("Go on") == [text("Here I am.")]
        assert [m["role"] for m in await session.history()] == [
            *("user", "assistant", "tool", "assistant", "tool", "assistant", "user", "assistant")
        ]
    assert (entry["decision"], entry["decided_by"]) == ("reject", refusal["type"])
    assert roles(llm.heard[-1]) == ["system", "human", "ai", "tool", "human"]


async def test_a_refusal_is_streamed_as_any_text(tmp_path: Path) -> None:
    async with asked(tmp_path, model(reads(0, 800))) as (session, call_id):
        session.stream = {"tokens": True, "usage": True}
        token, usage, last = await session.decide("reject", call_id)
    assert token == {"type": "assistant_message", "token": STOPPED, "is_final": False}
    assert usage["model_calls"] == 0
    assert last == {"type": "assistant_message", "content": STOPPED, "is_final": True}


@pytest.mark.parametrize(
    ("decision", "code"),
    [
        ({"decision": "edit", "modified_arguments": {"used": "nothing"}}, "edit_refused"),
        ({"decision": "approve", "remember": {"scope": "session"}}, "invalid_decision"),
    ],
)
async def test_it_can_be_neither_edited_nor_remembered(tmp_path: Path, decision: dict[str, Any], code: str) -> None:
    async with asked(tmp_path, model(reads(0, 800), says("Done."))) as (session, call_id):
        (error,) = await session.send({"type": "hitl_decision", "call_id": call_id, **decision})
        assert error["metadata"]["code"] == code
        assert await session.decide("approve", call_id) == [text("Done.")]


async def test_a_new_message_closes_the_question(database: str) -> None:
    llm = model(reads(0, 800), costs(says("Here I am."), 10, 0))
    async with asked(database, llm) as (session, call_id):
        assert await session.user("Never mind") == [text("Here I am.")]
        (entry,) = (await session.get("/sessions/{id}/audit"))["entries"]
        (late,) = await session.decide("approve", call_id)
        told = [m["content"] for m in await session.history() if m["role"] == "tool"]
    assert (entry["decision"], late["metadata"]["code"]) == ("cancel", "call_not_open")
    assert told == ["x", CANCELLED]
    assert roles(llm.heard[-1]) == ["system", "human", "ai", "tool", "human"]


async def test_the_question_is_closed_by_a_cancel(database: str) -> None:
    async with asked(database, model(reads(0, 800), says("Here I am."))) as (session, _):
        await session.http.post("/sessions/s-1/cancel")
        assert (await session.get("/sessions/{id}/pending-approvals"))["count"] == 0
        assert await session.user("Go on") == [text("Here I am.")]


async def test_the_question_expires(database: str) -> None:
    llm = model(reads(0, 800), says("Here I am."))
    async with asked(database, llm, approval_timeout_seconds=1e-6) as (session, call_id):
        (late,) = await session.decide("approve", call_id)
        (entry,) = (await session.get("/sessions/{id}/audit"))["entries"]
        assert await session.user("Go on") == [text("Here I am.")]
    assert (late["metadata"]["code"], entry["decision"]) == ("call_not_open", "expire")


async def test_the_question_outlives_its_process(database: str) -> None:
    async with asked(database, model(reads(0, 800))) as (_, call_id):
        pass
    llm = model(reads(1, 100), costs(says("Done."), 99, 0))
    async with service(llm, settings_for(database, turn_tokens=1000)) as client:
        session = client.session()
        assert (await session.get("/sessions/{id}/view"))["pending_approvals"] == [call_id]
        assert await session.decide("approve", call_id) == [tool_call("read_file", "c1", path="1.py")]
        assert await session.result("y", "c1") == [text("Done.")]


async def test_a_turn_ends_at_its_limit_and_keeps_what_was_done(database: str) -> None:
    """The answer that goes beyond it is paid for: its tool runs, and its result is there when the work goes on."""
    llm = model(reads(0, 800), reads(1, 300), costs(says("Both are empty."), 10, 0))
    async with asked(database, llm) as (session, call_id):
        await session.decide("approve", call_id)
        (error,) = await session.result("y", "c1")
        assert error["error"] == "The turn was stopped at its limit of 1000 tokens. Send a message to go on."
        assert error["metadata"]["code"] == "limit_reached"
        assert await session.user("Go on") == [text("Both are empty.")]
    assert [m.content for m in llm.heard[-1][1:]] == ["Read it", "", "x", "", "y", "Go on"]


async def test_a_session_that_has_used_up_its_tokens_asks_no_model(database: str) -> None:
    settings = settings_for(database, session_tokens=1000, budget_warning=1)
    llm = model(costs(says("Hi."), 600, 0), costs(says("Well."), 400, 0))
    said = "The session has used up its limit of 1000 tokens. Begin a new one, or have SESSION_TOKENS raised."
    async with service(llm, settings) as client:
        session = client.session()
        await session.switch("ask", content="Hello")
        await session.user("Well?")
        for send in (session.user("More"), session.switch("orchestrator", content="More")):
            error = (await send)[-1]
            assert (error["error"], error["metadata"]["code"]) == (said, "limit_reached")
        assert len(llm.heard) == 2
        assert await client.session("s-2").switch("orchestrator")
    raised = settings_for(database, session_tokens=2000)
    llm = model(costs(chooses("coder"), 1, 0), costs(says("Here I am."), 1, 0))
    async with service(llm, raised) as client:
        assert (await client.session().user("Now?"))[-1] == text("Here I am.")
        said_before = [m["content"] for m in await client.session().history()]
    assert said_before == ["Hello", "Hi.", "Well?", "Well.", "More", "More", "Now?", "Here I am."]


async def test_a_session_asks_until_it_may_go_on_and_then_no_more(database: str) -> None:
    lines = [costs(says(f"{n}."), 100, 0) for n in range(4)]
    used = "0.0008 of 0.001 USD of this session"
    settings = settings_for(database, session_money="0.001", llm_model="big", prices=PRICES)
    async with service(model(costs(says("Hi."), 800, 0), *lines), settings) as client:
        session = client.session()
        await session.switch("ask", content="Hello")
        (first,) = await session.user("More")
        assert first == question(first, used, "session_money")
        await session.decide("reject", first["call_id"])
        (second,) = await session.user("More")
        assert second == question(second, used, "session_money")
        assert await session.decide("approve", second["call_id"]) == [text("0.")]
        assert await session.user("More") == [text("1.")]
        (error,) = await session.user("More")
        budget = (await session.get("/sessions/{id}/usage"))["budget"]["session_money"]
    assert error["error"].startswith("The session has used up its limit of 0.001 USD.")
    assert budget == {"limit": 0.001, "used": 0.001, "left": 0.0}


async def test_what_the_fallback_model_costs_counts(tmp_path: Path) -> None:
    """And a model without a price as the dearest that has one: a budget is not got round by a name."""
    prices = {**PRICES, "small": {"prompt": 0.1, "completion": 0.1}}
    settings = settings_for(tmp_path, turn_money="0.001", budget_warning=1, llm_model="small", prices=prices)
    for by, money in (("big", 0.0008), ("small", 0.00008), ("unheard-of", 0.0008), ("", 0.00008)):
        async with service(model(costs(says("Hi."), 800, 0, by=by)), settings) as client:
            session = client.session(f"s-{by}")
            await session.switch("ask", content="Hello")
            assert (await session.get("/sessions/{id}/usage"))["budget"]["turn_money"]["used"] == money


async def test_several_budgets_ask_together(tmp_path: Path) -> None:
    settings = settings_for(tmp_path, turn_tokens=1000, session_tokens=1000, max_model_calls=2, budget_warning=0.5)
    async with service(model(reads(0, 800), says("Done.")), settings) as client:
        session = client.session()
        await session.switch("ask", content="Read it")
        (call,) = await session.result("x", "c0")
        of = "1 of 2 model calls of this turn, 800 of 1000 tokens of this turn, 800 of 1000 tokens of this session"
        assert call == question(call, of, "max_model_calls")
        assert await session.decide("approve", call["call_id"]) == [text("Done.")]


async def test_the_question_comes_after_parallel_calls_are_answered(tmp_path: Path) -> None:
    both = asks(("read_file", "c1", '{"path": "a"}'), ("read_file", "c2", '{"path": "b"}'))
    async with service(model(costs(both, 800, 0), says("Done.")), settings_for(tmp_path, turn_tokens=1000)) as client:
        session = client.session(parallel_tools=True)
        await session.switch("ask", content="Read both")
        assert await session.result("y", "c2") == []
        (call,) = await session.result("x", "c1")
        assert call == question(call, USED, "turn_tokens")
        assert await session.decide("approve", call["call_id"]) == [text("Done.")]


async def test_a_single_agent_asks_as_well(tmp_path: Path) -> None:
    llm = model(reads(0, 800), says("Done."))
    async with service(llm, settings_for(tmp_path, multi_agent_mode=False, turn_tokens=1000)) as client:
        session = client.session()
        await session.user("Read it")
        (call,) = await session.result("x", "c0")
        assert call == question(call, USED, "turn_tokens")
        assert await session.decide("approve", call["call_id"]) == [text("Done.")]


async def test_no_model_can_ask_for_it(tmp_path: Path) -> None:
    llm = model(calls("continue_work", used="nothing"), says("I see."))
    async with service(llm, settings_for(tmp_path)) as client:
        assert (await client.session().switch("coder", content="Go on"))[1:] == [text("I see.")]
    assert roles(llm.heard[-1]) == ["system", "human", "ai", "tool"]
    assert str(llm.heard[-1][-1].content).startswith("There is no tool 'continue_work'.")


async def test_a_model_that_keeps_silent_about_its_usage_gets_round_no_budget(tmp_path: Path) -> None:
    async with service(model(says("Hi.")), settings_for(tmp_path, session_tokens=500, budget_warning=1)) as client:
        session = client.session()
        await session.switch("ask", content="Hello")
        (error,) = await session.user("More")
    assert error["metadata"]["code"] == "limit_reached"
