"""A call in an answer that was cut off does not run, and malformed calls end the turn before they cost much."""

import json
from pathlib import Path
from typing import Any

import pytest

from graph.completion.finish_reasons import FinishKind, classify_finish_reason
from tests.llm.test_model_failures import UNIVERSAL_SWITCH, start_scripted_service
from tests.support.llm_server import (
    ScriptedReply,
    cut_off,
    respond_raw,
    respond_raw_tool_call,
    respond_text,
    respond_tool_call,
)
from tests.support.service import text_chunk, tool_call_chunk

CUT_CALL = (
    "not run: your answer was cut off at the output limit, so this call may be incomplete. "
    "Make the call shorter, and send long content in smaller pieces, over several calls."
)
FILTERED_CALL = (
    "not run: the content filter of your service stopped your answer, so this call may be incomplete. "
    "Send it in other words, or without the part that was stopped."
)
CUT_QUESTION = "Three of my answers in a row were cut off at the output limit of the model, so nothing was done. "
CUT_QUESTION += "How should I go on?"
UNREADABLE_QUESTION = "I made three calls in a row that could not be read. How should I go on?"
INVALID_QUESTION = "I made three calls in a row that were not valid. How should I go on?"


def question_chunk(text: str) -> dict[str, Any]:
    suggestions = ["Go on in smaller steps.", "Try another way.", "Stop here."]
    return text_chunk(text, metadata={"question": True, "suggestions": suggestions})


def get_results(request: Any) -> list[str]:
    """Return the results of calls in a request, oldest first."""
    return [message["content"] for message in request.body["messages"] if message["role"] == "tool"]


@pytest.mark.parametrize(
    ("kind", "reasons"),
    [
        ("complete", ["", "stop", "STOP", "tool_calls", "function_call", "end_turn", "stop_sequence", "tool_use"]),
        (
            "complete",
            ["eos", "eos_token", "COMPLETE", "FinishReason.STOP", "FINISH_REASON_UNSPECIFIED", "harmony_end", "x"],
        ),
        ("length", ["length", "LENGTH", "max_tokens", "MAX_TOKENS", "FinishReason.MAX_TOKENS", "maxTokens"]),
        ("length", ["model_length", "max_output_tokens", "token_limit", "stopped_limit", "ERROR_LIMIT", "incomplete"]),
        ("length", ["model_context_window_exceeded", "context_length_exceeded", "max_new_tokens", "max-tokens"]),
        ("length", ["context_overflow", "max_time", "time_limit"]),
        ("content_filter", ["content_filter", "content_filtered", "contentFilter", "SAFETY", "safety", "RECITATION"]),
        ("content_filter", ["BLOCKLIST", "PROHIBITED_CONTENT", "SPII", "sensitive", "refusal", "ERROR_TOXIC"]),
        ("content_filter", ["guardrail_intervened", "IMAGE_SAFETY", "LANGUAGE", "content_filter: PROHIBITED_CONTENT"]),
        ("content_filter", ["MODEL_ARMOR", "JAILBREAK", "self_harm"]),
        ("error", ["error", "ERROR", "abort", "cancelled", "network_error", "insufficient_system_resource", "OTHER"]),
        ("error", ["MALFORMED_FUNCTION_CALL", "function_call_filter: UNEXPECTED_TOOL_CALL", "timeout", "failed"]),
    ],
)
def test_every_spelling_of_an_end_is_known(kind: FinishKind, reasons: list[str]) -> None:
    assert {reason: classify_finish_reason(reason) for reason in reasons} == dict.fromkeys(reasons, kind)


@pytest.mark.parametrize("is_streaming", [True, False], ids=["streamed", "a document"])
@pytest.mark.parametrize(
    "call",
    [
        respond_raw_tool_call("write_file", '{"path": "a.md", "content": "# T\\n\\nlong'),
        respond_raw_tool_call("write_file", '{"content": "# T"}'),
        respond_raw_tool_call("write_file", '{"path": "a.md", "content": "# T"}'),
        respond_raw_tool_call("attempt_completion", '{"result": "I changed'),
        respond_raw_tool_call("attempt_completion", '{"result": "I changed"}'),
        respond_raw_tool_call("execute_command", '{"command": "rm -rf build'),
        respond_raw_tool_call("list_files", ""),
        respond_raw_tool_call("", ""),
    ],
    ids=[
        "half a string",
        "a field less",
        "whole",
        "half a result",
        "a whole result",
        "half a command",
        "none",
        "blank",
    ],
)
async def test_cut_call_is_never_run_and_the_third_in_a_row_is_a_question(
    tmp_path: Path, call: ScriptedReply, is_streaming: bool
) -> None:
    steps = [cut_off(call, reason) for reason in ("length", "MAX_TOKENS", "model_length")]
    async with start_scripted_service(tmp_path, *steps, llm_streaming=is_streaming) as (llm, client):
        session = client.open_session()
        assert await session.send_text("Write it") == [UNIVERSAL_SWITCH, question_chunk(CUT_QUESTION)]
        assert [get_results(request) for request in llm.requests] == [[], [CUT_CALL], [CUT_CALL] * 2]
        llm.steps.append(respond_text("I start with the heading."))
        assert await session.send_text("Smaller, please") == [text_chunk("I start with the heading.")]
        heard = llm.requests[-1].body["messages"]
    assert [message["role"] for message in heard[-3:]] == ["tool", "assistant", "user"]
    assert heard[-2]["content"] == CUT_QUESTION


@pytest.mark.parametrize(
    ("arguments", "is_half"),
    [
        ('{"path": "a.md", "content": "# T\\n\\nlong', True),
        ('{"path": "a.md", "content":', True),
        ('{"path": "a.md"', True),
        ('{"path": "say "hi" there"}', False),
        ('["a.md"', False),
        ("a.md", False),
    ],
)
async def test_service_that_hides_the_limit_gets_the_hint(tmp_path: Path, arguments: str, is_half: bool) -> None:
    """Some services end each answer with "stop". Half an object shows that a limit may have cut it off."""
    call = cut_off(respond_raw_tool_call("write_file", arguments), "stop")
    async with start_scripted_service(tmp_path, call, respond_text("Sorry.")) as (llm, client):
        await client.open_session().send_text("Write")
        (told,) = get_results(llm.requests[-1])
    hint = "They end in the middle. If your answer was cut off, make the call shorter, and send long content in smaller"
    assert told.startswith(f"The arguments are not a JSON object: {arguments}")
    assert (hint in told) is is_half


async def test_call_that_was_cut_in_another_choice_is_not_run(tmp_path: Path) -> None:
    """Some services send the text in the first choice and its call in the second one."""
    calls = respond_tool_call("write_file", path="a.md", content="# T").tool_calls
    first = {"finish_reason": "tool_calls", "message": {"role": "assistant", "content": "I write."}}
    second = {"finish_reason": "length", "message": {"role": "assistant", "tool_calls": calls}}
    whole = respond_raw(json.dumps({"choices": [first, second]}).encode())
    async with start_scripted_service(tmp_path, whole, respond_text("Sorry.")) as (llm, client):
        answer = await client.open_session().send_text("Write")
        assert answer == [UNIVERSAL_SWITCH, text_chunk("I write.", is_final=False), text_chunk("Sorry.")]
        assert get_results(llm.requests[-1]) == [CUT_CALL]


async def test_call_that_a_content_filter_cut_is_not_run(tmp_path: Path) -> None:
    call = cut_off(respond_text("I write.") & respond_tool_call("write_file", path="a", content="b"), "content_filter")
    async with start_scripted_service(tmp_path, call, respond_text("I leave it.")) as (llm, client):
        assert await client.open_session().send_text("Write") == [
            UNIVERSAL_SWITCH,
            text_chunk("I write.", is_final=False),
            text_chunk("I leave it."),
        ]
        assert get_results(llm.requests[-1]) == [FILTERED_CALL]


@pytest.mark.parametrize("is_parallel", [True, False])
async def test_whole_calls_before_the_cut_one_run(tmp_path: Path, is_parallel: bool) -> None:
    """The limit cut off the last call of an answer; those before it are whole."""
    both = respond_tool_call("read_file", path="a.py") & respond_raw_tool_call("read_file", '{"path": "b', "call_2")
    async with start_scripted_service(tmp_path, cut_off(both), respond_text("Read.")) as (llm, client):
        session = client.open_session(parallel_tools=is_parallel)
        assert await session.send_text("Read") == [UNIVERSAL_SWITCH, tool_call_chunk("read_file", path="a.py")]
        assert await session.send_result("x = 1") == [text_chunk("Read.")]
        assert sorted(get_results(llm.requests[-1])) == [CUT_CALL] * is_parallel + ["x = 1"]


async def test_repaired_call_behind_an_unreadable_one_is_not_run(tmp_path: Path) -> None:
    """The limit cut off the last call. The service completed its text, and the call before it cannot be read."""
    repaired = respond_tool_call("read_file", "call_2", path="b")
    both = cut_off(respond_raw_tool_call("read_file", "a.py") & repaired)
    async with start_scripted_service(tmp_path, both, respond_text("I see.")) as (llm, client):
        answer = await client.open_session(parallel_tools=True).send_text("Read")
        assert answer == [UNIVERSAL_SWITCH, text_chunk("I see.")]
        calls = next(each["tool_calls"] for each in llm.requests[-1].body["messages"] if "tool_calls" in each)
        assert [call["id"] for call in calls] == ["call_1", "call_2"]
        assert get_results(llm.requests[-1])[1] == CUT_CALL


@pytest.mark.parametrize(
    ("texts", "question"),
    [
        (['```json\n{"path": "a.py"}\n```'] * 3, UNREADABLE_QUESTION),
        (['{"path": "a', '{"path": "ab', '{"path": "abc'], UNREADABLE_QUESTION),
        (['["a.py"]', '{"path": "a.py"}{"path": "b.py"}', "a.py"], UNREADABLE_QUESTION),
        ([f'{{"path": "a.py", "start_line": "line {n}"}}' for n in range(3)], INVALID_QUESTION),
        (['{"path": "a.py"', '{"file": "a.py"}', '{"path": 7}'], INVALID_QUESTION),
    ],
    ids=["a code fence", "half objects", "other values", "another invalid value each time", "mixed"],
)
async def test_third_malformed_call_in_a_row_is_a_question(tmp_path: Path, texts: list[str], question: str) -> None:
    steps = [respond_raw_tool_call("read_file", text) for text in texts]
    async with start_scripted_service(tmp_path, *steps) as (llm, client):
        session = client.open_session()
        assert await session.send_text("Read") == [UNIVERSAL_SWITCH, question_chunk(question)]
        assert len(llm.requests) == 3
        llm.steps += [*steps[:2], respond_text("I cannot.")]
        assert await session.send_text("Try again") == [text_chunk("I cannot.")]


async def test_unknown_tools_of_any_name_count(tmp_path: Path) -> None:
    steps = [respond_tool_call(name) for name in ("cat", "open", "view")]
    async with start_scripted_service(tmp_path, *steps) as (_, client):
        answer = await client.open_session().send_text("Read")
    assert answer == [UNIVERSAL_SWITCH, question_chunk(INVALID_QUESTION)]


async def test_call_that_ran_starts_the_count_again(tmp_path: Path) -> None:
    bad, good = respond_raw_tool_call("read_file", "a.py"), respond_tool_call("calculator", expr="1+1")
    steps = [bad, bad, good, bad, bad, good, respond_text("2")]
    async with start_scripted_service(tmp_path, *steps) as (_, client):
        assert await client.open_session().send_text("Go") == [UNIVERSAL_SWITCH, text_chunk("2")]


async def test_several_malformed_calls_of_one_answer_count_once(tmp_path: Path) -> None:
    pair = respond_tool_call("cat", "call_1") & respond_tool_call("open", "call_2") & respond_tool_call("vi", "call_3")
    async with start_scripted_service(tmp_path, pair, respond_text("I see.")) as (_, client):
        answer = await client.open_session(parallel_tools=True).send_text("Go")
    assert answer == [UNIVERSAL_SWITCH, text_chunk("I see.")]


async def test_denied_call_is_neither_malformed_nor_a_success(tmp_path: Path) -> None:
    bad, denied = respond_raw_tool_call("read_file", "a.py"), respond_tool_call("read_file", path="../a")
    async with start_scripted_service(tmp_path, bad, denied, bad, denied, bad) as (llm, client):
        *_, last = await client.open_session().send_text("Go")
        assert last == question_chunk(UNREADABLE_QUESTION)
        assert len(llm.requests) == 5


async def test_question_about_malformed_calls_is_replayed(tmp_path: Path) -> None:
    steps = [respond_raw_tool_call("read_file", "a.py")] * 3
    async with start_scripted_service(tmp_path, *steps, multi_agent_mode=True) as (_, client):
        session = client.open_session(tokens=True)
        _, token, last = await session.switch("coder", content="Read")
        assert token == {"type": "assistant_message", "token": UNREADABLE_QUESTION, "is_final": False}
        assert last == {k: v for k, v in question_chunk(UNREADABLE_QUESTION).items() if k != "token"}
        joined = await client.http.get("/sessions/s-1/stream")
    assert json.dumps(UNREADABLE_QUESTION) in joined.text
