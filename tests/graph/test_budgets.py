"""At a budget's warning the user is asked to approve more; at its limit the turn ends and nothing is lost."""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from langchain_core.messages import AIMessageChunk

from tests.support.scripted import (
    ScriptedModel,
    call_tool,
    call_tools,
    choose_agent,
    list_roles,
    make_model,
    say_text,
    with_usage,
)
from tests.support.service import SessionClient, settings_for, start_service, text_chunk, tool_call_chunk

PRICES = {"big": {"prompt": 1, "completion": 1}}
USED_BUDGET = "800 of 1000 tokens of this turn"
QUESTION_REASON = f"The work has used {USED_BUDGET}. Approve to go on up to the limit, reject to stop here."
STOP_MESSAGE = f"Stopped here: {USED_BUDGET} are used. Send a message to go on."
PLAIN_QUESTION = f"The work has used {USED_BUDGET}. Should I go on, up to the limit?"
CANCELLED_RESULT = "cancelled: the user went on"


def call_read_file(number: int, tokens: int) -> AIMessageChunk:
    return with_usage(call_tool("read_file", call_id=f"c{number}", path=f"{number}.py"), tokens - 1, 1)


def question_chunk(call: dict[str, Any], used: str, setting: str) -> dict[str, Any]:
    """Return the chunk of the budget question."""
    reason = f"The work has used {used}. Approve to go on up to the limit, reject to stop here."
    asked = tool_call_chunk("continue_work", call["call_id"], used=used)
    return {**asked, "requires_approval": True, "metadata": {"rule": f"budget.{setting}", "reason": reason}}


@asynccontextmanager
async def open_budget_question(
    url: str | Path, llm: ScriptedModel, **changes: Any
) -> AsyncIterator[tuple[SessionClient, str]]:
    """Yield a session whose turn has used 800 of its 1000 tokens, and the call id of its budget question."""
    async with start_service(llm, settings_for(url, max_turn_tokens=1000, **changes)) as client:
        session = client.open_session()
        await session.switch("ask", content="Read it")
        (call,) = await session.send_result("x", "c0")
        assert call == question_chunk(call, USED_BUDGET, "turn_tokens")
        yield session, call["call_id"]


async def test_turn_requests_approval_once_at_its_budget_warning(database: str) -> None:
    llm = make_model(call_read_file(0, 800), call_read_file(1, 100), with_usage(say_text("Done."), 98, 1))
    async with open_budget_question(database, llm) as (session, call_id):
        pending = (await session.get("/sessions/{id}/pending-approvals"))["pending_approvals"]
        assert [(call["call_id"], call["tool_name"], call["reason"]) for call in pending] == [
            (call_id, "continue_work", QUESTION_REASON)
        ]
        assert await session.decide("approve", call_id) == [tool_call_chunk("read_file", "c1", path="1.py")]
        assert await session.send_result("y", "c1") == [text_chunk("Done.")]
        history = await session.fetch_history()
        (entry,) = (await session.get("/sessions/{id}/audit"))["entries"]
        budget = (await session.get("/sessions/{id}/usage"))["budget"]
        made = (await session.get("/sessions/{id}/calls"))["calls"]
    assert [(m["role"], m.get("content")) for m in history[3:5]] == [
        ("assistant", None),
        ("tool", "The user agreed to go on."),
    ]
    assert [list_roles(heard) for heard in llm.prompts[1:]] == [
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


async def test_tool_result_accepts_the_budget_warning(tmp_path: Path) -> None:
    async with open_budget_question(tmp_path, make_model(call_read_file(0, 800), say_text("Done."))) as (
        session,
        call_id,
    ):
        assert await session.send_result("ok", call_id) == [text_chunk("Done.")]
        (entry,) = (await session.get("/sessions/{id}/audit"))["entries"]
        assert (await session.fetch_history())[4]["content"] == "The user agreed to go on."
    assert (entry["decision"], entry["decided_by"]) == ("approve", "tool_result")


@pytest.mark.parametrize(
    "error",
    [
        "Ошибка валидации: Unsupported tool: continue_work",
        "Unknown tool: continue_work",
        "Ошибка валидации: 'rejected by user' is no tool",
        {"code": -32601},
    ],
)
async def test_error_does_not_accept_the_budget_warning(database: str, error: Any) -> None:
    """The shipped IDE validates a call before it asks its user, who has not seen this question yet."""
    llm = make_model(call_read_file(0, 800), with_usage(say_text("Here I am."), 9, 1))
    async with open_budget_question(database, llm) as (session, call_id):
        asked = text_chunk(PLAIN_QUESTION, metadata={"question": True, "suggestions": ["Go on."]})
        assert await session.send_result(None, call_id, error=error) == [asked]
        assert await session.send_result(None, call_id, error=error) == [asked]
        assert len(llm.prompts) == 1
        (entry,) = (await session.get("/sessions/{id}/audit"))["entries"]
        call = (await session.get("/sessions/{id}/calls"))["calls"][-1]
        assert (await session.get("/sessions/{id}/pending-approvals"))["count"] == 0
        assert await session.send_text("Go on") == [text_chunk("Here I am.")]
    text = error if isinstance(error, str) else json.dumps(error)
    assert (entry["decision"], entry["decided_by"], entry["feedback"]) == ("failed", "tool_result", text)
    assert (call["tool_name"], call["status"], call["decision"]) == ("continue_work", "failed", "failed")
    assert list_roles(llm.prompts[-1]) == ["system", "human", "ai", "tool", "ai", "human"]
    assert str(llm.prompts[-1][-2].content) == PLAIN_QUESTION


async def test_message_accepts_a_session_warning_that_was_asked_in_plain_text(database: str) -> None:
    """A client that cannot show the question could not use its session beyond the warning otherwise."""
    lines = [with_usage(say_text(f"{n}."), 99, 1) for n in range(3)]
    llm = make_model(with_usage(call_read_file(0, 0), 799, 1), *lines)
    async with start_service(llm, settings_for(database, max_session_tokens=1100)) as client:
        session = client.open_session()
        await session.switch("ask", content="Read it")
        await session.send_result("x", "c0")
        (question,) = await session.send_text("More")
        assert question["tool_name"] == "continue_work"
        await session.send_result(None, question["call_id"], error="Ошибка валидации: Unsupported tool")
        await session.switch("coder")
        assert await session.send_text("Go on") == [text_chunk("1.")]
        assert await session.send_text("And on") == [text_chunk("2.")]
        assert (await session.send_text("And on"))[-1]["metadata"]["code"] == "limit_reached"


@pytest.mark.parametrize(
    "refusal",
    [
        {"type": "hitl_decision", "decision": "reject", "feedback": "Enough."},
        {"type": "tool_result", "error": "User rejected the call"},
    ],
)
async def test_rejected_budget_warning_ends_the_turn(database: str, refusal: dict[str, Any]) -> None:
    llm = make_model(call_read_file(0, 800), with_usage(say_text("Here I am."), 9, 1))
    async with open_budget_question(database, llm) as (session, call_id):
        assert await session.send({**refusal, "call_id": call_id}) == [text_chunk(STOP_MESSAGE)]
        assert await session.send({**refusal, "call_id": call_id}) == [text_chunk(STOP_MESSAGE)]
        (entry,) = (await session.get("/sessions/{id}/audit"))["entries"]
        assert await session.send_text("Go on") == [text_chunk("Here I am.")]
        assert [m["role"] for m in await session.fetch_history()] == [
            *("user", "assistant", "tool", "assistant", "tool", "assistant", "user", "assistant")
        ]
    assert (entry["decision"], entry["decided_by"]) == ("reject", refusal["type"])
    assert list_roles(llm.prompts[-1]) == ["system", "human", "ai", "tool", "ai", "human"]


async def test_stop_message_is_streamed_like_any_text(tmp_path: Path) -> None:
    async with open_budget_question(tmp_path, make_model(call_read_file(0, 800))) as (session, call_id):
        session.stream = {"tokens": True, "usage": True}
        token, usage, last = await session.decide("reject", call_id)
    assert token == {"type": "assistant_message", "token": STOP_MESSAGE, "is_final": False}
    assert usage["model_calls"] == 0
    assert last == {"type": "assistant_message", "content": STOP_MESSAGE, "is_final": True}


@pytest.mark.parametrize(
    ("decision", "code"),
    [
        ({"decision": "edit", "modified_arguments": {"used": "nothing"}}, "edit_refused"),
        ({"decision": "approve", "remember": {"scope": "session"}}, "invalid_decision"),
    ],
)
async def test_budget_question_can_be_neither_edited_nor_remembered(
    tmp_path: Path, decision: dict[str, Any], code: str
) -> None:
    async with open_budget_question(tmp_path, make_model(call_read_file(0, 800), say_text("Done."))) as (
        session,
        call_id,
    ):
        (error,) = await session.send({"type": "hitl_decision", "call_id": call_id, **decision})
        assert error["metadata"]["code"] == code
        assert await session.decide("approve", call_id) == [text_chunk("Done.")]


async def test_new_message_closes_the_budget_question(database: str) -> None:
    llm = make_model(call_read_file(0, 800), with_usage(say_text("Here I am."), 9, 1))
    async with open_budget_question(database, llm) as (session, call_id):
        assert await session.send_text("Never mind") == [text_chunk("Here I am.")]
        (entry,) = (await session.get("/sessions/{id}/audit"))["entries"]
        (late,) = await session.decide("approve", call_id)
        told = [m["content"] for m in await session.fetch_history() if m["role"] == "tool"]
    assert (entry["decision"], late["metadata"]["code"]) == ("cancel", "call_not_open")
    assert told == ["x", CANCELLED_RESULT]
    assert list_roles(llm.prompts[-1]) == ["system", "human", "ai", "tool", "ai", "human"]


async def test_cancel_closes_the_budget_question(database: str) -> None:
    async with open_budget_question(database, make_model(call_read_file(0, 800), say_text("Here I am."))) as (
        session,
        _,
    ):
        await session.http.post("/sessions/s-1/cancel")
        assert (await session.get("/sessions/{id}/pending-approvals"))["count"] == 0
        assert await session.send_text("Go on") == [text_chunk("Here I am.")]


async def test_budget_question_expires(database: str) -> None:
    llm = make_model(call_read_file(0, 800), say_text("Here I am."))
    async with open_budget_question(database, llm, approval_timeout_seconds=1e-6) as (session, call_id):
        (late,) = await session.decide("approve", call_id)
        (entry,) = (await session.get("/sessions/{id}/audit"))["entries"]
        assert await session.send_text("Go on") == [text_chunk("Here I am.")]
    assert (late["metadata"]["code"], entry["decision"]) == ("call_not_open", "expire")


async def test_budget_question_survives_a_restart(database: str) -> None:
    async with open_budget_question(database, make_model(call_read_file(0, 800))) as (_, call_id):
        pass
    llm = make_model(call_read_file(1, 100), with_usage(say_text("Done."), 98, 1))
    async with start_service(llm, settings_for(database, max_turn_tokens=1000)) as client:
        session = client.open_session()
        assert (await session.get("/sessions/{id}/view"))["pending_approvals"] == [call_id]
        assert await session.decide("approve", call_id) == [tool_call_chunk("read_file", "c1", path="1.py")]
        assert await session.send_result("y", "c1") == [text_chunk("Done.")]


async def test_turn_ends_at_its_budget_limit_and_keeps_its_results(database: str) -> None:
    """The answer that exceeds the budget is paid for: its tool runs, and the next turn has the result."""
    llm = make_model(call_read_file(0, 800), call_read_file(1, 300), with_usage(say_text("Both are empty."), 9, 1))
    async with open_budget_question(database, llm) as (session, call_id):
        await session.decide("approve", call_id)
        (error,) = await session.send_result("y", "c1")
        assert error["error"] == "The turn was stopped at its limit of 1000 tokens. Send a message to go on."
        assert error["metadata"]["code"] == "limit_reached"
        assert await session.send_text("Go on") == [text_chunk("Both are empty.")]
    assert [m.content for m in llm.prompts[-1][1:]] == ["Read it", "", "x", "", "y", "(no answer)", "Go on"]


async def test_session_over_its_token_limit_makes_no_model_call(database: str) -> None:
    settings = settings_for(database, max_session_tokens=1000, budget_warning=1)
    llm = make_model(with_usage(say_text("Hi."), 599, 1), with_usage(say_text("Well."), 399, 1))
    said = "The session has used up its limit of 1000 tokens. Start a new session, or have MAX_SESSION_TOKENS raised."
    async with start_service(llm, settings) as client:
        session = client.open_session()
        await session.switch("ask", content="Hello")
        await session.send_text("Well?")
        for send in (session.send_text("More"), session.switch("orchestrator", content="More")):
            error = (await send)[-1]
            assert (error["error"], error["metadata"]["code"]) == (said, "limit_reached")
        assert len(llm.prompts) == 2
        assert await client.open_session("s-2").switch("orchestrator")
    raised = settings_for(database, max_session_tokens=2000)
    llm = make_model(with_usage(choose_agent("coder"), 1, 1), with_usage(say_text("Here I am."), 1, 1))
    async with start_service(llm, raised) as client:
        assert (await client.open_session().send_text("Now?"))[-1] == text_chunk("Here I am.")
        said_before = [m["content"] for m in await client.open_session().fetch_history()]
    assert said_before == ["Hello", "Hi.", "Well?", "Well.", "More", "More", "Now?", "Here I am."]


async def test_session_budget_question_repeats_until_it_is_approved(database: str) -> None:
    lines = [with_usage(say_text(f"{n}."), 99, 1) for n in range(4)]
    used = "0.0008 of 0.001 USD of this session"
    settings = settings_for(database, max_session_cost="0.001", llm_model="big", prices=PRICES)
    async with start_service(make_model(with_usage(say_text("Hi."), 799, 1), *lines), settings) as client:
        session = client.open_session()
        await session.switch("ask", content="Hello")
        (first,) = await session.send_text("More")
        assert first == question_chunk(first, used, "session_money")
        await session.decide("reject", first["call_id"])
        (second,) = await session.send_text("More")
        assert second == question_chunk(second, used, "session_money")
        assert await session.decide("approve", second["call_id"]) == [text_chunk("0.")]
        assert await session.send_text("More") == [text_chunk("1.")]
        (error,) = await session.send_text("More")
        budget = (await session.get("/sessions/{id}/usage"))["budget"]["session_money"]
    assert error["error"].startswith("The session has used up its limit of 0.001 USD.")
    assert budget == {"limit": 0.001, "used": 0.001, "left": 0.0}


async def test_fallback_model_calls_count_towards_the_money_budget(tmp_path: Path) -> None:
    """A model without a price counts as the dearest one, so no name avoids the budget."""
    prices = {**PRICES, "small": {"prompt": 0.1, "completion": 0.1}}
    settings = settings_for(tmp_path, max_turn_cost="0.001", budget_warning=1, llm_model="small", prices=prices)
    for by, money in (("big", 0.0008), ("small", 0.00008), ("unheard-of", 0.0008), ("", 0.00008)):
        async with start_service(make_model(with_usage(say_text("Hi."), 799, 1, model_name=by)), settings) as client:
            session = client.open_session(f"s-{by}")
            await session.switch("ask", content="Hello")
            assert (await session.get("/sessions/{id}/usage"))["budget"]["turn_money"]["used"] == money


async def test_several_budget_warnings_make_one_question(tmp_path: Path) -> None:
    settings = settings_for(
        tmp_path, max_turn_tokens=1000, max_session_tokens=1000, max_turn_model_calls=2, budget_warning=0.5
    )
    async with start_service(make_model(call_read_file(0, 800), say_text("Done.")), settings) as client:
        session = client.open_session()
        await session.switch("ask", content="Read it")
        (call,) = await session.send_result("x", "c0")
        of = "1 of 2 model calls of this turn, 800 of 1000 tokens of this turn, 800 of 1000 tokens of this session"
        assert call == question_chunk(call, of, "max_model_calls")
        assert await session.decide("approve", call["call_id"]) == [text_chunk("Done.")]


async def test_budget_question_comes_after_all_parallel_results(tmp_path: Path) -> None:
    both = call_tools(("read_file", "c1", '{"path": "a"}'), ("read_file", "c2", '{"path": "b"}'))
    async with start_service(
        make_model(with_usage(both, 799, 1), say_text("Done.")), settings_for(tmp_path, max_turn_tokens=1000)
    ) as client:
        session = client.open_session(parallel_tools=True)
        await session.switch("ask", content="Read both")
        assert await session.send_result("y", "c2") == []
        (call,) = await session.send_result("x", "c1")
        assert call == question_chunk(call, USED_BUDGET, "turn_tokens")
        assert await session.decide("approve", call["call_id"]) == [text_chunk("Done.")]


async def test_budget_warning_applies_in_single_agent_mode(tmp_path: Path) -> None:
    llm = make_model(call_read_file(0, 800), say_text("Done."))
    async with start_service(llm, settings_for(tmp_path, multi_agent_mode=False, max_turn_tokens=1000)) as client:
        session = client.open_session()
        await session.send_text("Read it")
        (call,) = await session.send_result("x", "c0")
        assert call == question_chunk(call, USED_BUDGET, "turn_tokens")
        assert await session.decide("approve", call["call_id"]) == [text_chunk("Done.")]


async def test_model_cannot_call_continue_work(tmp_path: Path) -> None:
    llm = make_model(call_tool("continue_work", used="nothing"), say_text("I see."))
    async with start_service(llm, settings_for(tmp_path)) as client:
        assert (await client.open_session().switch("coder", content="Go on"))[1:] == [text_chunk("I see.")]
    assert list_roles(llm.prompts[-1]) == ["system", "human", "ai", "tool"]
    assert str(llm.prompts[-1][-1].content).startswith("There is no tool 'continue_work'.")


async def test_estimated_usage_counts_towards_the_budget(tmp_path: Path) -> None:
    async with start_service(
        make_model(say_text("Hi.")), settings_for(tmp_path, max_session_tokens=500, budget_warning=1)
    ) as client:
        session = client.open_session()
        await session.switch("ask", content="Hello")
        (error,) = await session.send_text("More")
    assert error["metadata"]["code"] == "limit_reached"
