"""Each kind of turn gives the client, the model and the history the right messages."""

import json
from pathlib import Path
from typing import Any

import pytest
from langchain_core.messages import ToolMessage

from graph.errors import LLMUnavailable
from sessions.store.audit import first_broken_entry
from tests.support.scripted import call_tool, call_tools, choose_agent, list_roles, make_model, say_text, with_usage
from tests.support.service import (
    agent_switch_chunk,
    settings_for,
    start_service,
    text_chunk,
    tool_call_chunk,
    write_approval_chunk,
)


def get_tool_contents(llm: Any) -> list[str]:
    """Return the results of calls in the model's last request."""
    return [str(message.content) for message in llm.prompts[-1] if isinstance(message, ToolMessage)]


async def test_a_question_is_routed_and_answered(tmp_path: Path) -> None:
    llm = make_model(choose_agent("ask"), say_text("It greets."))
    async with start_service(llm, settings_for(tmp_path)) as client:
        assert await client.open_session().send_text("What does hello.py do?") == [
            agent_switch_chunk("orchestrator", "ask"),
            text_chunk("It greets."),
        ]
    assert [list_roles(heard) for heard in llm.prompts] == [["system", "human"], ["system", "human"]]
    assert llm.call_parameters[0] == {"temperature": 0.3}
    assert llm.call_parameters[1]["parallel_tool_calls"] is False


async def test_the_ide_reads_a_file_for_the_model(tmp_path: Path) -> None:
    llm = make_model(choose_agent("ask"), call_tool("read_file", path="a.py"), say_text("It is empty."))
    async with start_service(llm, settings_for(tmp_path)) as client:
        session = client.open_session()
        assert await session.send_text("Read a.py") == [
            agent_switch_chunk("orchestrator", "ask"),
            tool_call_chunk("read_file", path="a.py"),
        ]
        assert await session.send_result({"lines": 0}) == [text_chunk("It is empty.")]
        assert await session.fetch_history() == [
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


async def test_tool_error_is_sent_to_the_model(tmp_path: Path) -> None:
    llm = make_model(choose_agent("ask"), call_tool("read_file", path="a.py"), say_text("There is none."))
    async with start_service(llm, settings_for(tmp_path)) as client:
        await client.open_session().send_text("Read a.py")
        assert await client.open_session().send_result(None, error="No such file") == [text_chunk("There is none.")]
    assert get_tool_contents(llm) == ["Error: No such file"]


@pytest.mark.parametrize("error", ["", False, {}, [], 0])
async def test_empty_error_is_ignored(tmp_path: Path, error: Any) -> None:
    llm = make_model(choose_agent("ask"), call_tool("read_file", path="a.py"), say_text("Read."))
    async with start_service(llm, settings_for(tmp_path)) as client:
        await client.open_session().send_text("Read a.py")
        await client.open_session().send_result("x = 1", error=error)
    assert get_tool_contents(llm) == ["x = 1"]


async def test_null_fields_of_the_shipped_ide_are_accepted(tmp_path: Path) -> None:
    llm = make_model(choose_agent("ask"), call_tool("read_file", path="a.py"), say_text("Read."))
    nulls = dict.fromkeys(["role", "content", "error", "agent_type", "decision", "modified_arguments", "metadata"])
    async with start_service(llm, settings_for(tmp_path)) as client:
        session = client.open_session()
        await session.send({**nulls, "call_id": None, "type": "user_message", "content": "Read a.py", "role": "system"})
        sent = {**nulls, "type": "tool_result", "call_id": "call_1", "result": "x = 1", "token": "?"}
        assert await session.send(sent) == [text_chunk("Read.")]
        assert (await session.fetch_history())[0] == {"role": "user", "content": "Read a.py"}


async def test_an_approved_write_waits_for_the_user_then_for_the_ide(tmp_path: Path) -> None:
    llm = make_model(
        choose_agent("coder"), call_tool("write_file", "I will.", path="a.py", content="x"), say_text("Written.")
    )
    async with start_service(llm, settings_for(tmp_path)) as client:
        session = client.open_session()
        assert await session.send_text("Write a.py") == [
            agent_switch_chunk("orchestrator", "coder"),
            text_chunk("I will.", is_final=False),
            write_approval_chunk("a.py", "x"),
        ]
        (pending,) = (await session.get("/sessions/{id}/pending-approvals"))["pending_approvals"]
        assert pending.pop("created_at").endswith("+00:00")
        assert pending == {
            "call_id": "call_1",
            "tool_name": "write_file",
            "arguments": {"path": "a.py", "content": "x"},
            "reason": "Writing a file needs the user's approval.",
        }
        assert await session.decide("approve") == [tool_call_chunk("write_file", path="a.py", content="x")]
        assert (await session.get("/sessions/{id}/pending-approvals"))["count"] == 0
        assert await session.send_result("done") == [text_chunk("Written.")]


async def test_edited_arguments_are_executed_and_stored(tmp_path: Path) -> None:
    llm = make_model(choose_agent("coder"), call_tool("write_file", path="a.py", content="x"), say_text("Written."))
    async with start_service(llm, settings_for(tmp_path)) as client:
        session = client.open_session()
        await session.send_text("Write a.py")
        assert await session.decide("edit", modified_arguments={"path": "b.py"}) == [
            tool_call_chunk("write_file", path="b.py", content="x")
        ]
        assert await session.send_result("done") == [text_chunk("Written.")]
        call = (await session.fetch_history())[1]["tool_calls"][0]["function"]
    assert json.loads(call["arguments"]) == {"path": "b.py", "content": "x"}
    assert get_tool_contents(llm) == ["The user edited the arguments before agreeing; the call holds what ran.\ndone"]


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"path": "../b.md"}, "The path '../b.md' is refused: '..' could leave the workspace."),
        ({"path": "b.py"}, "Architect may write only *.md files; 'b.py' is not one."),
        ({"owner": "me"}, "The arguments of write_file are not valid: owner: Extra inputs are not permitted."),
    ],
)
async def test_edit_that_breaks_a_rule_leaves_the_approval_pending(
    tmp_path: Path, changes: dict[str, str], why: str
) -> None:
    llm = make_model(choose_agent("architect"), call_tool("write_file", path="a.md", content="x"), say_text("Written."))
    async with start_service(llm, settings_for(tmp_path)) as client:
        session = client.open_session()
        await session.send_text("Write a.md")
        (refusal,) = await session.decide("edit", modified_arguments=changes)
        assert refusal["error"].startswith(f"The edit was refused, the approval is still open. {why}")
        assert refusal["metadata"]["code"] == "edit_refused"
        assert (await session.get("/sessions/{id}/pending-approvals"))["count"] == 1
        assert await session.decide("approve") == [tool_call_chunk("write_file", path="a.md", content="x")]
        decisions = [e["decision"] for e in (await session.get("/sessions/{id}/audit"))["entries"]]
    assert decisions == ["edit_refused", "approve"]


async def test_rejection_is_sent_to_the_model_with_its_feedback(tmp_path: Path) -> None:
    llm = make_model(
        choose_agent("coder"), call_tool("execute_command", command="rm -rf build"), say_text("Understood.")
    )
    async with start_service(llm, settings_for(tmp_path)) as client:
        await client.open_session().send_text("Clean up")
        assert await client.open_session().decide("reject", feedback="Not now.") == [text_chunk("Understood.")]
    assert get_tool_contents(llm) == ["The user rejected this call. They said: Not now."]


@pytest.mark.parametrize(
    "error", ["User rejected the operation", "It was rejected by user", "Операция отклонена пользователем"]
)
async def test_the_shipped_ide_rejects_by_a_tool_result(tmp_path: Path, error: str) -> None:
    llm = make_model(choose_agent("coder"), call_tool("write_file", path="a.py", content="x"), say_text("Understood."))
    async with start_service(llm, settings_for(tmp_path)) as client:
        session = client.open_session()
        await session.send_text("Write a.py")
        assert await session.send_result(None, error=error) == [text_chunk("Understood.")]
        (entry,) = (await session.get("/sessions/{id}/audit"))["entries"]
    assert (entry["decision"], entry["decided_by"], entry["feedback"]) == ("reject", "tool_result", error)


@pytest.mark.parametrize(
    "error", ["Ошибка валидации: Path is outside", "Ошибка валидации: rejected by user", "disk full"]
)
async def test_an_error_is_not_the_users_approval(tmp_path: Path, error: str) -> None:
    """The shipped IDE validates a call before it asks its user. The model reads the error, and may try again."""
    llm = make_model(choose_agent("coder"), call_tool("write_file", path="a.py", content="x"), say_text("I see."))
    async with start_service(llm, settings_for(tmp_path)) as client:
        session = client.open_session()
        await session.send_text("Write a.py")
        assert await session.send_result(None, error=error) == [text_chunk("I see.")]
        audit = await session.get("/sessions/{id}/audit")
    (entry,) = audit["entries"]
    assert (entry["decision"], entry["decided_by"], entry["feedback"]) == ("failed", "tool_result", error)
    assert audit["results"] == []
    assert first_broken_entry("s-1", audit["entries"]) is None
    assert get_tool_contents(llm) == [f"Error: {error}"]


async def test_error_after_an_approval_is_the_result_of_the_call(tmp_path: Path) -> None:
    llm = make_model(choose_agent("coder"), call_tool("write_file", path="a.py", content="x"), say_text("I see."))
    async with start_service(llm, settings_for(tmp_path)) as client:
        session = client.open_session()
        await session.send_text("Write a.py")
        await session.decide("approve")
        assert await session.send_result(None, error="disk full") == [text_chunk("I see.")]
        audit = await session.get("/sessions/{id}/audit")
    assert [each["decision"] for each in audit["entries"]] == ["approve"]
    assert [each["seq"] for each in audit["results"]] == [1]


async def test_error_agrees_to_no_tool_of_the_service(tmp_path: Path) -> None:
    policy = tmp_path / "policy.yaml"
    policy.write_text("rules:\n  - {id: every, decision: ask, reason: Every call needs approval.}\n")
    llm = make_model(choose_agent("coder"), call_tool("switch_mode", mode="debug"), say_text("I stay."))
    async with start_service(llm, settings_for(tmp_path, policy_file=str(policy))) as client:
        session = client.open_session()
        await session.send_text("Hand it over")
        assert await session.send_result(None, error="Unsupported tool") == [text_chunk("I stay.")]
        assert (await session.get("/agents/{id}/current"))["current_agent"] == "coder"
    assert get_tool_contents(llm) == ["Error: Unsupported tool"]


async def test_the_shipped_ide_approves_by_a_tool_result(tmp_path: Path) -> None:
    llm = make_model(choose_agent("coder"), call_tool("write_file", path="a.py", content="x"), say_text("Written."))
    async with start_service(llm, settings_for(tmp_path)) as client:
        session = client.open_session()
        await session.send_text("Write a.py")
        assert await session.send_result("done") == [text_chunk("Written.")]
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


async def test_decision_is_applied_once(tmp_path: Path) -> None:
    llm = make_model(choose_agent("coder"), call_tool("write_file", path="a.py", content="x"), say_text("Written."))
    async with start_service(llm, settings_for(tmp_path)) as client:
        session = client.open_session()
        await session.send_text("Write a.py")
        approved = await session.decide("approve")
        assert await session.decide("approve") == approved
        (opposite,) = await session.decide("reject")
        assert opposite["metadata"]["code"] == "call_not_open"
        assert opposite["error"].endswith("Open calls: call_1.")
        answered = await session.send_result("done")
        assert (
            await session.send_result("done") == answered == await session.decide("approve") == [text_chunk("Written.")]
        )
        (other,) = await session.send_result("something else")
        assert other["error"] == "The call 'call_1' does not wait for an answer. No call is open."
        assert (await session.get("/sessions/{id}/audit"))["count"] == 1
    assert len(llm.prompts) == 3


async def test_text_never_counts_as_approval(tmp_path: Path) -> None:
    llm = make_model(choose_agent("coder"), call_tool("write_file", path="a.py", content="x"), say_text("Left alone."))
    async with start_service(llm, settings_for(tmp_path)) as client:
        session = client.open_session()
        await session.send_text("Write a.py")
        assert await session.send_text("yes, approve") == [text_chunk("Left alone.")]
        assert (await session.get("/sessions/{id}/pending-approvals"))["count"] == 0
        (entry,) = (await session.get("/sessions/{id}/audit"))["entries"]
        (late,) = await session.decide("approve")
    assert (entry["decision"], entry["decided_by"]) == ("cancel", "system")
    assert late["metadata"]["code"] == "call_not_open"
    assert list_roles(llm.prompts[-1]) == ["system", "human", "ai", "tool", "ai", "human"]
    assert get_tool_contents(llm) == ["cancelled: the user went on"]


async def test_denied_call_is_reported_to_the_model_and_the_user(tmp_path: Path) -> None:
    llm = make_model(
        choose_agent("architect"), call_tool("write_file", path="x.py", content="x"), say_text("I may not.")
    )
    why = "Architect may write only *.md files; 'x.py' is not one."
    about = {"code": "tool_denied", "call_id": "call_1", "tool_name": "write_file", "rule": "agent.may_write"}
    async with start_service(llm, settings_for(tmp_path)) as client:
        assert (await client.open_session().send_text("Write x.py"))[1:] == [
            {"type": "error", "error": why, "metadata": about, "is_final": False},
            text_chunk("I may not."),
        ]
    assert get_tool_contents(llm) == [why]


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
async def test_malformed_call_is_returned_to_the_model(
    tmp_path: Path, request_: tuple[str, str | None, str], why: str | None
) -> None:
    llm = make_model(choose_agent("ask"), call_tools(request_), say_text("Sorry."))
    async with start_service(llm, settings_for(tmp_path)) as client:
        said = await client.open_session().send_text("Read a.py")
        if why is None:
            assert said[-1]["call_id"].startswith("call_")
            said = await client.open_session().send_result("x", call_id=said[-1]["call_id"])
        assert said[-1] == text_chunk("Sorry.")
        call = (await client.open_session().fetch_history())[1]["tool_calls"][0]["function"]
    assert get_tool_contents(llm)[0].startswith(why or "x")
    assert "Infinity" not in call["arguments"]


async def test_first_of_several_calls_is_kept(tmp_path: Path) -> None:
    both = call_tools(("read_file", "call_1", '{"path": "a.py"}'), ("read_file", "call_2", '{"path": "b.py"}'))
    llm = make_model(choose_agent("ask"), both, say_text("Read."))
    async with start_service(llm, settings_for(tmp_path)) as client:
        assert (await client.open_session().send_text("Read"))[1:] == [tool_call_chunk("read_file", path="a.py")]
        assert await client.open_session().send_result("x") == [text_chunk("Read.")]
        assert len((await client.open_session().fetch_history())[1]["tool_calls"]) == 1


async def test_parallel_calls_are_sent_together_and_answered_in_any_order(tmp_path: Path) -> None:
    both = call_tools(
        ("read_file", "call_1", '{"path": "a.py"}'),
        ("write_file", "call_2", '{"path": "b.py", "content": "x"}'),
        ("calculator", "call_3", '{"expr": "2**10"}'),
    )
    llm = make_model(choose_agent("coder"), both, say_text("All done."))
    async with start_service(llm, settings_for(tmp_path)) as client:
        session = client.open_session(parallel_tools=True)
        assert (await session.send_text("Do it"))[1:] == [
            tool_call_chunk("read_file", path="a.py") | {"is_final": False},
            write_approval_chunk("b.py", "x", "call_2"),
        ]
        assert await session.decide("approve", "call_2") == [
            tool_call_chunk("write_file", "call_2", path="b.py", content="x")
        ]
        assert await session.send_result("written", "call_2") == []
        assert await session.send_result("read", "call_1") == [text_chunk("All done.")]
    assert llm.call_parameters[1]["parallel_tool_calls"] is True
    assert sorted(get_tool_contents(llm)) == ["1024", "read", "written"]


async def test_tokens_are_streamed_to_clients_that_opted_in(tmp_path: Path) -> None:
    finish = call_tool("attempt_completion", "I looked.", result="All is well.")
    llm = make_model(choose_agent("coder"), call_tool("read_file", "I will read.", path="a.py"), finish)
    async with start_service(llm, settings_for(tmp_path)) as client:
        session = client.open_session(tokens=True)
        chunks = (await session.send_text("Check"))[1:] + await session.send_result("x", stream={"tokens": True})
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


async def test_text_beside_a_failed_ending_call_is_streamed(tmp_path: Path) -> None:
    broken = call_tools(("attempt_completion", "call_1", "[1]"), text="I will see.")
    refused = call_tool("ask_followup_question", "Let me ask.", call_id="call_2", question="Which?")
    async with start_service(
        make_model(choose_agent("ask"), broken, refused, say_text("Done.")), settings_for(tmp_path)
    ) as client:
        said = await client.open_session().send_text("Check")
    assert [chunk["content"] for chunk in said if chunk["type"] == "assistant_message"] == [
        "I will see.",
        "Let me ask.",
        "Done.",
    ]


async def test_usage_is_sent_to_clients_that_opted_in(tmp_path: Path) -> None:
    llm = make_model(with_usage(choose_agent("ask"), 30, 5), with_usage(say_text("Hi."), 7, 2))
    async with start_service(llm, settings_for(tmp_path)) as client:
        usage, final = (await client.open_session(usage=True).send_text("Hello"))[1:]
    spent = {"prompt_tokens": 37, "cached_tokens": 0, "completion_tokens": 7, "total_tokens": 44, "model_calls": 2}
    assert usage == {"type": "usage", **spent, "is_final": False}
    assert final == text_chunk("Hi.")


async def test_attempt_completion_ends_the_turn_with_text_and_result(tmp_path: Path) -> None:
    llm = make_model(
        choose_agent("coder"), call_tool("attempt_completion", "Tests pass.", result="Fixed."), say_text("Welcome.")
    )
    async with start_service(llm, settings_for(tmp_path)) as client:
        session = client.open_session()
        assert (await session.send_text("Fix it"))[1:] == [
            text_chunk("Tests pass.\n\nFixed.", metadata={"completion": True})
        ]
        assert await session.send_text("Thanks") == [text_chunk("Welcome.")]
    assert list_roles(llm.prompts[-1]) == ["system", "human", "ai", "tool", "ai", "human"]


async def test_followup_question_ends_the_turn(tmp_path: Path) -> None:
    asked = call_tool("ask_followup_question", question="Which?", suggestions=["a", "b"])
    llm = make_model(choose_agent("coder"), asked, say_text("Then a."))
    async with start_service(llm, settings_for(tmp_path)) as client:
        session = client.open_session()
        assert (await session.send_text("Write it"))[1:] == [
            text_chunk("Which?", metadata={"question": True, "suggestions": ["a", "b"]})
        ]
        assert await session.send_text("a") == [text_chunk("Then a.")]


async def test_agent_keeps_the_conversation_until_its_handoff(tmp_path: Path) -> None:
    llm = make_model(
        choose_agent("debug"),
        say_text("It is line 3."),
        call_tool("switch_mode", mode="coder", reason="It needs a fix."),
        call_tool("read_file", call_id="call_2", path="a.py"),
        say_text("Fixed."),
    )
    async with start_service(llm, settings_for(tmp_path)) as client:
        session = client.open_session()
        await session.send_text("Why does it fail?")
        chunk = agent_switch_chunk("debug", "coder", "It needs a fix.")
        del chunk["metadata"]["confidence"], chunk["metadata"]["classification_method"]
        assert await session.send_text("Fix it") == [chunk, tool_call_chunk("read_file", "call_2", path="a.py")]
        await session.send_result("x", "call_2")
        current = await session.get("/agents/{id}/current")
    assert current["current_agent"] == "coder"
    assert current["switch_count"] == 2
    assert [(s["from"], s["to"], s["reason"]) for s in current["agent_history"]] == [
        ("orchestrator", "debug", "It fits."),
        ("debug", "coder", "It needs a fix."),
    ]


async def test_handoff_to_the_orchestrator_classifies_again(tmp_path: Path) -> None:
    llm = make_model(
        choose_agent("ask"), call_tool("switch_mode", mode="orchestrator"), choose_agent("coder"), say_text("Written.")
    )
    async with start_service(llm, settings_for(tmp_path)) as client:
        said = await client.open_session().send_text("Write a.py")
    hops = [(c["metadata"]["from_agent"], c["metadata"]["to_agent"]) for c in said[:-1]]
    assert hops == [("orchestrator", "ask"), ("ask", "orchestrator"), ("orchestrator", "coder")]
    assert said[-1] == text_chunk("Written.")
    assert llm.prompts[2][-1].content == "Write a.py"


async def test_user_can_switch_the_agent(tmp_path: Path) -> None:
    llm = make_model(say_text("A plan."), say_text("Code."))
    chosen = agent_switch_chunk("orchestrator", "architect", "The user chose it.")
    chosen["metadata"] = {key: chosen["metadata"][key] for key in ("from_agent", "to_agent", "reason")}
    async with start_service(llm, settings_for(tmp_path)) as client:
        session = client.open_session()
        assert await session.switch("architect") == [chosen | {"is_final": True}]
        assert await session.send_text("Plan it") == [text_chunk("A plan.")]
        hop, answer = await session.switch("coder", content="Build it", reason="Enough planned.")
        assert (hop["metadata"]["from_agent"], hop["metadata"]["reason"]) == ("architect", "Enough planned.")
        assert answer == text_chunk("Code.")
    assert list_roles(llm.prompts[0]) == ["system", "human"]


async def test_single_agent_mode_has_only_universal(tmp_path: Path) -> None:
    llm = make_model(say_text("Hi."))
    async with start_service(llm, settings_for(tmp_path, multi_agent_mode=False)) as client:
        hop, answer = await client.open_session().send_text("Hello")
        (refused,) = await client.open_session().switch("coder")
        listed = [agent["type"] for agent in await client.open_session().get("/agents")]
    assert (hop["metadata"]["to_agent"], answer) == ("universal", text_chunk("Hi."))
    assert refused["metadata"]["code"] == "invalid_message"
    assert listed == ["orchestrator", "universal"]


async def test_session_follows_the_current_agent_mode(tmp_path: Path) -> None:
    async with start_service(make_model(choose_agent("coder"), say_text("Hi.")), settings_for(tmp_path)) as client:
        await client.open_session().send_text("Hello")
    async with start_service(make_model(say_text("Again.")), settings_for(tmp_path, multi_agent_mode=False)) as client:
        hop, answer = await client.open_session().send_text("Hello again")
    assert (hop["metadata"]["from_agent"], hop["metadata"]["to_agent"]) == ("coder", "universal")
    assert answer == text_chunk("Again.")


async def test_unreadable_classification_falls_back_to_keywords(tmp_path: Path) -> None:
    llm = make_model(say_text("Let me think."), say_text("Because."))
    async with start_service(llm, settings_for(tmp_path)) as client:
        hop, answer = await client.open_session().send_text("почему падает тест?")
    assert (hop["metadata"]["to_agent"], hop["metadata"]["classification_method"]) == ("debug", "keywords")
    assert answer == text_chunk("Because.")


async def test_unsafe_characters_in_a_classification_are_replaced(tmp_path: Path) -> None:
    odd = say_text('{"agent": "ask", "confidence": "sure", "reasoning": "x\\ud800\\u0000"}')
    async with start_service(make_model(odd, say_text("Hi.")), settings_for(tmp_path)) as client:
        hop, answer = await client.open_session().send_text("Hello")
    assert (hop["metadata"]["reason"], hop["metadata"]["confidence"]) == ("x\ufffd\ufffd", "medium")
    assert answer == text_chunk("Hi.")


async def test_model_failure_ends_the_turn_and_the_next_turn_works(tmp_path: Path) -> None:
    llm = make_model(choose_agent("ask"), LLMUnavailable("The model is away."), say_text(""), say_text("Back."))
    async with start_service(llm, settings_for(tmp_path)) as client:
        session = client.open_session()
        failed = (await session.send_text("Hello"))[-1]
        assert (failed["error"], failed["metadata"]["code"]) == ("The model is away.", "llm_unavailable")
        (empty,) = await session.send_text("Again")
        assert empty["metadata"]["code"] == "llm_invalid_answer"
        assert await session.send_text("And again") == [text_chunk("Back.")]


async def test_internal_error_hides_its_text_and_the_next_turn_works(tmp_path: Path) -> None:
    llm = make_model(choose_agent("ask"), ZeroDivisionError("a secret"), say_text("Back."))
    async with start_service(llm, settings_for(tmp_path, log_level="CRITICAL")) as client:
        session = client.open_session()
        failed = (await session.send_text("Hello"))[-1]
        assert "secret" not in failed["error"]
        assert (failed["metadata"]["code"], len(failed["metadata"]["request_id"])) == ("internal", 32)
        assert await session.send_text("Again") == [text_chunk("Back.")]


async def test_internal_error_leaves_no_open_call(tmp_path: Path) -> None:
    llm = make_model(call_tool("write_file", path="a.py", content="x"), ZeroDivisionError(), say_text("Back."))
    async with start_service(llm, settings_for(tmp_path, log_level="CRITICAL")) as client:
        session = client.open_session()
        await session.switch("coder", content="Write a.py")
        await session.switch("orchestrator", content="Go on")
        assert [message["role"] for message in await session.fetch_history()] == ["user", "assistant", "tool", "user"]
        assert (await session.switch("coder", content="Again"))[-1] == text_chunk("Back.")


async def test_turn_stops_at_its_model_call_limit(tmp_path: Path) -> None:
    again = [call_tool("calculator", call_id=f"call_{n}", expr=f"{n}") for n in range(3)]
    llm = make_model(choose_agent("coder"), *again, say_text("Go on."))
    async with start_service(llm, settings_for(tmp_path, max_turn_model_calls=3)) as client:
        session = client.open_session()
        (stopped,) = (await session.send_text("Compute"))[1:]
        assert stopped["error"] == "The turn was stopped after 3 model calls. Send a message to go on."
        assert stopped["metadata"]["code"] == "limit_reached"
        assert await session.send_text("Go on") == [text_chunk("Go on.")]


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
async def test_invalid_message_is_an_error_and_the_next_one_works(
    tmp_path: Path, message: dict[str, Any], code: str
) -> None:
    async with start_service(make_model(choose_agent("ask"), say_text("Hi.")), settings_for(tmp_path)) as client:
        (error,) = await client.open_session().send(message)
        assert error["metadata"]["code"] == code
        assert (await client.open_session().send_text("Hello"))[-1] == text_chunk("Hi.")
