"""Turns through the front door: what a client sends, what it gets, what the model heard, what is remembered."""

import json
from pathlib import Path
from typing import Any

import pytest
from langchain_core.messages import ToolMessage

from graph.errors import LLMUnavailable
from tests.scripted import asks, calls, chooses, costs, model, roles, says
from tests.service import service, settings_for, switched, text, tool_call, write_approval

pytestmark = pytest.mark.anyio


def told(llm: Any) -> list[str]:
    """What the model was told of its calls, in its last request."""
    return [str(message.content) for message in llm.heard[-1] if isinstance(message, ToolMessage)]


async def test_a_question_is_routed_and_answered(tmp_path: Path) -> None:
    llm = model(chooses("ask"), says("It greets."))
    async with service(llm, settings_for(tmp_path)) as client:
        assert await client.session().user("What does hello.py do?") == [
            switched("orchestrator", "ask"),
            text("It greets."),
        ]
    assert [roles(heard) for heard in llm.heard] == [["system", "human"], ["system", "human"]]
    assert llm.asked_with[0] == {"temperature": 0.3}
    assert llm.asked_with[1]["parallel_tool_calls"] is False


async def test_the_ide_reads_a_file_for_the_model(tmp_path: Path) -> None:
    llm = model(chooses("ask"), calls("read_file", path="a.py"), says("It is empty."))
    async with service(llm, settings_for(tmp_path)) as client:
        session = client.session()
        assert await session.user("Read a.py") == [switched("orchestrator", "ask"), tool_call("read_file", path="a.py")]
        assert await session.result({"lines": 0}) == [text("It is empty.")]
        assert await session.history() == [
            {"role": "user", "content": "Read a.py"},
            {
                "role": "assistant",
                "content": None,
                "tool_calls": [
                    {
                        "id": "call_1",
                        "type": "function",
                        "function": {"name": "read_file", "arguments": '{"path": "a.py"}'},
                    }
                ],
            },
            {"role": "tool", "content": '{"lines": 0}', "tool_call_id": "call_1", "name": "read_file"},
            {"role": "assistant", "content": "It is empty."},
        ]


async def test_a_tool_that_failed_is_told_to_the_model(tmp_path: Path) -> None:
    llm = model(chooses("ask"), calls("read_file", path="a.py"), says("There is none."))
    async with service(llm, settings_for(tmp_path)) as client:
        await client.session().user("Read a.py")
        assert await client.session().result(None, error="No such file") == [text("There is none.")]
    assert told(llm) == ["Error: No such file"]


@pytest.mark.parametrize("error", ["", False, {}, [], 0])
async def test_an_empty_error_is_none(tmp_path: Path, error: Any) -> None:
    llm = model(chooses("ask"), calls("read_file", path="a.py"), says("Read."))
    async with service(llm, settings_for(tmp_path)) as client:
        await client.session().user("Read a.py")
        await client.session().result("x = 1", error=error)
    assert told(llm) == ["x = 1"]


async def test_the_shipped_ide_sends_every_field_of_its_message_class(tmp_path: Path) -> None:
    llm = model(chooses("ask"), calls("read_file", path="a.py"), says("Read."))
    nulls = dict.fromkeys(["role", "content", "error", "agent_type", "decision", "modified_arguments", "metadata"])
    async with service(llm, settings_for(tmp_path)) as client:
        session = client.session()
        await session.send({**nulls, "call_id": None, "type": "user_message", "content": "Read a.py", "role": "system"})
        sent = {**nulls, "type": "tool_result", "call_id": "call_1", "result": "x = 1", "token": "?"}
        assert await session.send(sent) == [text("Read.")]
        assert (await session.history())[0] == {"role": "user", "content": "Read a.py"}


async def test_an_approved_write_waits_for_the_user_then_for_the_ide(tmp_path: Path) -> None:
    llm = model(chooses("coder"), calls("write_file", "I will.", path="a.py", content="x"), says("Written."))
    async with service(llm, settings_for(tmp_path)) as client:
        session = client.session()
        assert await session.user("Write a.py") == [
            switched("orchestrator", "coder"),
            text("I will.", is_final=False),
            write_approval("a.py", "x"),
        ]
        (pending,) = (await session.get("/sessions/{id}/pending-approvals"))["pending_approvals"]
        assert pending.pop("created_at").endswith("+00:00")
        assert pending == {
            "call_id": "call_1",
            "tool_name": "write_file",
            "arguments": {"path": "a.py", "content": "x"},
            "reason": "Writing a file needs the user's approval.",
        }
        assert await session.decide("approve") == [tool_call("write_file", path="a.py", content="x")]
        assert (await session.get("/sessions/{id}/pending-approvals"))["count"] == 0
        assert await session.result("done") == [text("Written.")]


async def test_edited_arguments_are_what_runs_and_what_is_remembered(tmp_path: Path) -> None:
    llm = model(chooses("coder"), calls("write_file", path="a.py", content="x"), says("Written."))
    async with service(llm, settings_for(tmp_path)) as client:
        session = client.session()
        await session.user("Write a.py")
        assert await session.decide("edit", modified_arguments={"path": "b.py"}) == [
            tool_call("write_file", path="b.py", content="x")
        ]
        assert await session.result("done") == [text("Written.")]
        call = (await session.history())[1]["tool_calls"][0]["function"]
    assert json.loads(call["arguments"]) == {"path": "b.py", "content": "x"}
    assert told(llm) == ["The user edited the arguments before agreeing; the call holds what ran.\ndone"]


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"path": "../b.md"}, "The path '../b.md' is refused: '..' could leave the workspace."),
        ({"path": "b.py"}, "Architect may write only *.md files; 'b.py' is not one."),
        ({"owner": "me"}, "The arguments of write_file are not valid: owner: Extra inputs are not permitted."),
    ],
)
async def test_an_edit_that_gets_round_a_rule_leaves_the_approval_pending(
    tmp_path: Path, changes: dict[str, str], why: str
) -> None:
    llm = model(chooses("architect"), calls("write_file", path="a.md", content="x"), says("Written."))
    async with service(llm, settings_for(tmp_path)) as client:
        session = client.session()
        await session.user("Write a.md")
        (refusal,) = await session.decide("edit", modified_arguments=changes)
        assert refusal["error"].startswith(f"The edit was refused, the approval is still open. {why}")
        assert refusal["metadata"]["code"] == "edit_refused"
        assert (await session.get("/sessions/{id}/pending-approvals"))["count"] == 1
        assert await session.decide("approve") == [tool_call("write_file", path="a.md", content="x")]
        decisions = [e["decision"] for e in (await session.get("/sessions/{id}/audit"))["entries"]]
    assert decisions == ["edit_refused", "approve"]


async def test_a_rejection_goes_back_to_the_model_with_the_feedback(tmp_path: Path) -> None:
    llm = model(chooses("coder"), calls("execute_command", command="rm -rf build"), says("Understood."))
    async with service(llm, settings_for(tmp_path)) as client:
        await client.session().user("Clean up")
        assert await client.session().decide("reject", feedback="Not now.") == [text("Understood.")]
    assert told(llm) == ["The user rejected this call. They said: Not now."]


@pytest.mark.parametrize(
    "error", ["User rejected the operation", "It was rejected by user", "Операция отклонена пользователем"]
)
async def test_the_shipped_ide_rejects_by_a_tool_result(tmp_path: Path, error: str) -> None:
    llm = model(chooses("coder"), calls("write_file", path="a.py", content="x"), says("Understood."))
    async with service(llm, settings_for(tmp_path)) as client:
        session = client.session()
        await session.user("Write a.py")
        assert await session.result(None, error=error) == [text("Understood.")]
        (entry,) = (await session.get("/sessions/{id}/audit"))["entries"]
    assert (entry["decision"], entry["decided_by"], entry["feedback"]) == ("reject", "tool_result", error)


async def test_the_shipped_ide_approves_by_a_tool_result(tmp_path: Path) -> None:
    llm = model(chooses("coder"), calls("write_file", path="a.py", content="x"), says("Written."))
    async with service(llm, settings_for(tmp_path)) as client:
        session = client.session()
        await session.user("Write a.py")
        assert await session.result("done") == [text("Written.")]
        (entry,) = (await session.get("/sessions/{id}/audit"))["entries"]
    assert (entry.pop("hash"), entry.pop("timestamp")) != ("", "")
    assert entry == {
        "seq": 1,
        "call_id": "call_1",
        "tool_name": "write_file",
        "agent": "coder",
        "original_arguments": {"path": "a.py", "content": "x"},
        "decision": "approve",
        "modified_arguments": None,
        "feedback": None,
        "decided_by": "tool_result",
        "rule": "write.file",
    }


async def test_a_decision_is_taken_once(tmp_path: Path) -> None:
    llm = model(chooses("coder"), calls("write_file", path="a.py", content="x"), says("Written."))
    async with service(llm, settings_for(tmp_path)) as client:
        session = client.session()
        await session.user("Write a.py")
        approved = await session.decide("approve")
        assert await session.decide("approve") == approved
        (opposite,) = await session.decide("reject")
        assert opposite["metadata"]["code"] == "call_not_open"
        assert opposite["error"].endswith("Open calls: call_1.")
        answered = await session.result("done")
        assert await session.result("done") == answered == await session.decide("approve") == [text("Written.")]
        (other,) = await session.result("something else")
        assert other["error"] == "The call 'call_1' does not wait for an answer. No call is open."
        assert (await session.get("/sessions/{id}/audit"))["count"] == 1
    assert len(llm.heard) == 3


async def test_text_never_counts_as_approval(tmp_path: Path) -> None:
    llm = model(chooses("coder"), calls("write_file", path="a.py", content="x"), says("Left alone."))
    async with service(llm, settings_for(tmp_path)) as client:
        session = client.session()
        await session.user("Write a.py")
        assert await session.user("yes, approve") == [text("Left alone.")]
        assert (await session.get("/sessions/{id}/pending-approvals"))["count"] == 0
        (entry,) = (await session.get("/sessions/{id}/audit"))["entries"]
        (late,) = await session.decide("approve")
    assert (entry["decision"], entry["decided_by"]) == ("cancel", "system")
    assert late["metadata"]["code"] == "call_not_open"
    assert roles(llm.heard[-1]) == ["system", "human", "ai", "tool", "human"]
    assert told(llm) == ["cancelled: the user went on"]


async def test_a_refused_tool_is_told_to_the_model_and_to_the_user(tmp_path: Path) -> None:
    llm = model(chooses("architect"), calls("write_file", path="x.py", content="x"), says("I may not."))
    why = "Architect may write only *.md files; 'x.py' is not one."
    about = {"code": "tool_denied", "call_id": "call_1", "tool_name": "write_file", "rule": "agent.may_write"}
    async with service(llm, settings_for(tmp_path)) as client:
        assert (await client.session().user("Write x.py"))[1:] == [
            {"type": "error", "error": why, "metadata": about, "is_final": False},
            text("I may not."),
        ]
    assert told(llm) == [why]


@pytest.mark.parametrize(
    ("request_", "why"),
    [
        (("read_file", None, '{"path": "a.py"}'), None),
        (("fly", "call_1", "{}"), "There is no tool 'fly'. There are: "),
        (("read_file", "call_1", '{"path": "a.py'), "The arguments are not a JSON object: "),
        (("read_file", "call_1", '["a.py"]'), "The arguments are not a JSON object: "),
        (("read_file", "call_1", '{"path": 1}'), "The arguments of read_file are not valid: path: Input should be"),
        (("read_file", "call_1", "{}"), "The arguments of read_file are not valid: path: Field required."),
        (("read_file", "call_1", '{"path": "a", "start_line": 1e999}'), "The arguments of read_file are not valid: "),
        (("read_file", "call_1", '{"path": "a", "start_line": NaN}'), "The arguments of read_file are not valid: "),
    ],
)
async def test_a_call_that_makes_no_sense_goes_back_to_the_model(
    tmp_path: Path, request_: tuple[str, str | None, str], why: str | None
) -> None:
    llm = model(chooses("ask"), asks(request_), says("Sorry."))
    async with service(llm, settings_for(tmp_path)) as client:
        said = await client.session().user("Read a.py")
        if why is None:
            assert said[-1]["call_id"].startswith("call_")
            said = await client.session().result("x", call_id=said[-1]["call_id"])
        assert said[-1] == text("Sorry.")
        call = (await client.session().history())[1]["tool_calls"][0]["function"]
    assert told(llm)[0].startswith(why or "x")
    assert "Infinity" not in call["arguments"]


async def test_of_several_calls_the_first_is_kept(tmp_path: Path) -> None:
    both = asks(("read_file", "call_1", '{"path": "a.py"}'), ("read_file", "call_2", '{"path": "b.py"}'))
    llm = model(chooses("ask"), both, says("Read."))
    async with service(llm, settings_for(tmp_path)) as client:
        assert (await client.session().user("Read"))[1:] == [tool_call("read_file", path="a.py")]
        assert await client.session().result("x") == [text("Read.")]
        assert len((await client.session().history())[1]["tool_calls"]) == 1


async def test_parallel_calls_are_sent_together_and_answered_in_any_order(tmp_path: Path) -> None:
    both = asks(
        ("read_file", "call_1", '{"path": "a.py"}'),
        ("write_file", "call_2", '{"path": "b.py", "content": "x"}'),
        ("calculator", "call_3", '{"expr": "2**10"}'),
    )
    llm = model(chooses("coder"), both, says("All done."))
    async with service(llm, settings_for(tmp_path)) as client:
        session = client.session(parallel_tools=True)
        assert (await session.user("Do it"))[1:] == [
            tool_call("read_file", path="a.py") | {"is_final": False},
            write_approval("b.py", "x", "call_2"),
        ]
        assert await session.decide("approve", "call_2") == [
            tool_call("write_file", "call_2", path="b.py", content="x")
        ]
        assert await session.result("written", "call_2") == []
        assert await session.result("read", "call_1") == [text("All done.")]
    assert llm.asked_with[1]["parallel_tool_calls"] is True
    assert sorted(told(llm)) == ["1024", "read", "written"]


async def test_tokens_are_streamed_to_clients_that_opted_in(tmp_path: Path) -> None:
    finish = calls("attempt_completion", "I looked.", result="All is well.")
    llm = model(chooses("coder"), calls("read_file", "I will read.", path="a.py"), finish)
    async with service(llm, settings_for(tmp_path)) as client:
        session = client.session(tokens=True)
        chunks = (await session.user("Check"))[1:] + await session.result("x", stream={"tokens": True})
    joined = ""
    for chunk in [chunk for chunk in chunks if chunk["type"] == "assistant_message"]:
        if "content" in chunk:
            assert (joined, "token" in chunk) == (chunk["content"], False)
            joined = ""
        else:
            joined += chunk["token"]
    contents = [chunk["content"] for chunk in chunks if "content" in chunk]
    assert contents == ["I will read.", "I looked.\n\nAll is well."]
    assert len(chunks) > 6


async def test_text_beside_a_call_that_does_not_end_the_turn_is_told(tmp_path: Path) -> None:
    broken = asks(("attempt_completion", "call_1", "[1]"), text="I will see.")
    refused = calls("ask_followup_question", "Let me ask.", call_id="call_2", question="Which?")
    async with service(model(chooses("ask"), broken, refused, says("Done.")), settings_for(tmp_path)) as client:
        said = await client.session().user("Check")
    assert [chunk["content"] for chunk in said if chunk["type"] == "assistant_message"] == [
        "I will see.",
        "Let me ask.",
        "Done.",
    ]


async def test_usage_is_told_to_clients_that_opted_in(tmp_path: Path) -> None:
    llm = model(costs(chooses("ask"), 30, 5), costs(says("Hi."), 7, 2))
    async with service(llm, settings_for(tmp_path)) as client:
        usage, final = (await client.session(usage=True).user("Hello"))[1:]
    spent = {"prompt_tokens": 37, "cached_tokens": 0, "completion_tokens": 7, "total_tokens": 44, "model_calls": 2}
    assert usage == {"type": "usage", **spent, "is_final": False}
    assert final == text("Hi.")


async def test_attempt_completion_ends_the_turn_with_text_and_result(tmp_path: Path) -> None:
    llm = model(chooses("coder"), calls("attempt_completion", "Tests pass.", result="Fixed."), says("Welcome."))
    async with service(llm, settings_for(tmp_path)) as client:
        session = client.session()
        assert (await session.user("Fix it"))[1:] == [text("Tests pass.\n\nFixed.", metadata={"completion": True})]
        assert await session.user("Thanks") == [text("Welcome.")]
    assert roles(llm.heard[-1]) == ["system", "human", "ai", "tool", "human"]


async def test_a_question_to_the_user_ends_the_turn_and_the_next_message_is_its_answer(tmp_path: Path) -> None:
    asked = calls("ask_followup_question", question="Which?", suggestions=["a", "b"])
    llm = model(chooses("coder"), asked, says("Then a."))
    async with service(llm, settings_for(tmp_path)) as client:
        session = client.session()
        assert (await session.user("Write it"))[1:] == [
            text("Which?", metadata={"question": True, "suggestions": ["a", "b"]})
        ]
        assert await session.user("a") == [text("Then a.")]


async def test_an_agent_keeps_the_conversation_until_it_hands_it_on(tmp_path: Path) -> None:
    llm = model(
        chooses("debug"),
        says("It is line 3."),
        calls("switch_mode", mode="coder", reason="It needs a fix."),
        calls("read_file", call_id="call_2", path="a.py"),
        says("Fixed."),
    )
    async with service(llm, settings_for(tmp_path)) as client:
        session = client.session()
        await session.user("Why does it fail?")
        chunk = switched("debug", "coder", "It needs a fix.")
        del chunk["metadata"]["confidence"], chunk["metadata"]["classification_method"]
        assert await session.user("Fix it") == [chunk, tool_call("read_file", "call_2", path="a.py")]
        await session.result("x", "call_2")
        current = await session.get("/agents/{id}/current")
    assert current["current_agent"] == "coder"
    assert current["switch_count"] == 2
    assert [(s["from"], s["to"], s["reason"]) for s in current["agent_history"]] == [
        ("orchestrator", "debug", "It fits."),
        ("debug", "coder", "It needs a fix."),
    ]


async def test_handed_to_the_orchestrator_the_message_is_classified_again(tmp_path: Path) -> None:
    llm = model(chooses("ask"), calls("switch_mode", mode="orchestrator"), chooses("coder"), says("Written."))
    async with service(llm, settings_for(tmp_path)) as client:
        said = await client.session().user("Write a.py")
    hops = [(c["metadata"]["from_agent"], c["metadata"]["to_agent"]) for c in said[:-1]]
    assert hops == [("orchestrator", "ask"), ("ask", "orchestrator"), ("orchestrator", "coder")]
    assert said[-1] == text("Written.")
    assert llm.heard[2][-1].content == "Write a.py"


async def test_the_user_picks_an_agent(tmp_path: Path) -> None:
    llm = model(says("A plan."), says("Code."))
    chosen = switched("orchestrator", "architect", "The user chose it.")
    chosen["metadata"] = {key: chosen["metadata"][key] for key in ("from_agent", "to_agent", "reason")}
    async with service(llm, settings_for(tmp_path)) as client:
        session = client.session()
        assert await session.switch("architect") == [chosen | {"is_final": True}]
        assert await session.user("Plan it") == [text("A plan.")]
        hop, answer = await session.switch("coder", content="Build it", reason="Enough planned.")
        assert (hop["metadata"]["from_agent"], hop["metadata"]["reason"]) == ("architect", "Enough planned.")
        assert answer == text("Code.")
    assert roles(llm.heard[0]) == ["system", "human"]


async def test_in_single_agent_mode_universal_stands_alone(tmp_path: Path) -> None:
    llm = model(says("Hi."))
    async with service(llm, settings_for(tmp_path, multi_agent_mode=False)) as client:
        hop, answer = await client.session().user("Hello")
        (refused,) = await client.session().switch("coder")
        listed = [agent["type"] for agent in await client.session().get("/agents")]
    assert (hop["metadata"]["to_agent"], answer) == ("universal", text("Hi."))
    assert refused["metadata"]["code"] == "invalid_message"
    assert listed == ["orchestrator", "universal"]


async def test_a_session_follows_the_mode_it_is_served_in(tmp_path: Path) -> None:
    async with service(model(chooses("coder"), says("Hi.")), settings_for(tmp_path)) as client:
        await client.session().user("Hello")
    async with service(model(says("Again.")), settings_for(tmp_path, multi_agent_mode=False)) as client:
        hop, answer = await client.session().user("Hello again")
    assert (hop["metadata"]["from_agent"], hop["metadata"]["to_agent"]) == ("coder", "universal")
    assert answer == text("Again.")


async def test_a_classification_that_cannot_be_read_falls_back_to_keywords(tmp_path: Path) -> None:
    llm = model(says("Let me think."), says("Because."))
    async with service(llm, settings_for(tmp_path)) as client:
        hop, answer = await client.session().user("почему падает тест?")
    assert (hop["metadata"]["to_agent"], hop["metadata"]["classification_method"]) == ("debug", "keywords")
    assert answer == text("Because.")


async def test_a_classification_may_say_what_cannot_be_stored(tmp_path: Path) -> None:
    odd = says('{"agent": "ask", "confidence": "sure", "reasoning": "x\\ud800\\u0000"}')
    async with service(model(odd, says("Hi.")), settings_for(tmp_path)) as client:
        hop, answer = await client.session().user("Hello")
    assert (hop["metadata"]["reason"], hop["metadata"]["confidence"]) == ("x\ufffd\ufffd", "medium")
    assert answer == text("Hi.")


async def test_a_model_that_fails_ends_the_turn_and_the_next_message_works(tmp_path: Path) -> None:
    llm = model(chooses("ask"), LLMUnavailable("The model is away."), says(""), says("Back."))
    async with service(llm, settings_for(tmp_path)) as client:
        session = client.session()
        failed = (await session.user("Hello"))[-1]
        assert (failed["error"], failed["metadata"]["code"]) == ("The model is away.", "llm_unavailable")
        (empty,) = await session.user("Again")
        assert empty["metadata"]["code"] == "llm_invalid_answer"
        assert await session.user("And again") == [text("Back.")]


async def test_a_fault_of_ours_is_told_without_its_words_and_nothing_is_stuck(tmp_path: Path) -> None:
    llm = model(chooses("ask"), ZeroDivisionError("a secret"), says("Back."))
    async with service(llm, settings_for(tmp_path, log_level="CRITICAL")) as client:
        session = client.session()
        failed = (await session.user("Hello"))[-1]
        assert "secret" not in failed["error"]
        assert (failed["metadata"]["code"], len(failed["metadata"]["request_id"])) == ("internal", 32)
        assert await session.user("Again") == [text("Back.")]


async def test_a_fault_of_ours_leaves_no_call_open_that_nobody_can_answer(tmp_path: Path) -> None:
    llm = model(calls("write_file", path="a.py", content="x"), ZeroDivisionError(), says("Back."))
    async with service(llm, settings_for(tmp_path, log_level="CRITICAL")) as client:
        session = client.session()
        await session.switch("coder", content="Write a.py")
        await session.switch("orchestrator", content="Go on")
        assert [message["role"] for message in await session.history()] == ["user", "assistant", "tool", "user"]
        assert (await session.switch("coder", content="Again"))[-1] == text("Back.")


async def test_a_turn_is_bounded(tmp_path: Path) -> None:
    again = [calls("calculator", call_id=f"call_{n}", expr=f"{n}") for n in range(3)]
    llm = model(chooses("coder"), *again, says("Go on."))
    async with service(llm, settings_for(tmp_path, max_model_calls=3)) as client:
        session = client.session()
        (stopped,) = (await session.user("Compute"))[1:]
        assert stopped["error"] == "The turn was stopped after 3 model calls. Send a message to go on."
        assert stopped["metadata"]["code"] == "limit_reached"
        assert await session.user("Go on") == [text("Go on.")]


@pytest.mark.parametrize(
    ("message", "code"),
    [
        ({"type": "dance"}, "invalid_message"),
        ({}, "invalid_message"),
        ({"type": "user_message"}, "invalid_message"),
        ({"type": "user_message", "content": " "}, "invalid_message"),
        ({"type": "user_message", "content": 5}, "invalid_message"),
        ({"type": "switch_agent", "agent_type": "poet"}, "invalid_message"),
        ({"type": "switch_agent", "agent_type": "universal"}, "invalid_message"),
        ({"type": "tool_result", "result": "x"}, "invalid_message"),
        ({"type": "tool_result", "call_id": "call_1", "result": "x"}, "call_not_open"),
        ({"type": "hitl_decision", "call_id": "call_1", "decision": "approve"}, "call_not_open"),
        ({"type": "hitl_decision", "call_id": "call_1", "decision": "maybe"}, "invalid_decision"),
        ({"type": "hitl_decision", "call_id": "call_1", "decision": "edit"}, "invalid_decision"),
    ],
)
async def test_a_message_that_makes_no_sense_is_told_so_and_the_next_one_works(
    tmp_path: Path, message: dict[str, Any], code: str
) -> None:
    async with service(model(chooses("ask"), says("Hi.")), settings_for(tmp_path)) as client:
        (error,) = await client.session().send(message)
        assert error["metadata"]["code"] == code
        assert (await client.session().user("Hello"))[-1] == text("Hi.")
