"""The offline model answers requests and results with sensible calls and texts."""

import json
import re
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import pytest
from langchain_core.messages import AIMessage, AnyMessage, BaseMessage, HumanMessage, SystemMessage, ToolMessage
from langchain_core.messages.ai import add_ai_message_chunks

from graph.offline import OfflineModel
from graph.offline.stories import draft_content
from graph.routing.classifier import classify
from graph.tools.catalog import specification, validation_error
from prompts import AGENTS, select_team

FILES = {
    "README.md": "# Shop\n\nIt sells.\n",
    "tests/test_shop.py": "def test_x():\n    total = 1\n    assert total == 2\n",
}
MARKDOWN_ONLY_REASON = "Architect may write only *.md files; 'x.py' is not one."


class OfflineAction(NamedTuple):
    agent: str
    text: str
    tool: str = ""
    arguments: dict[str, Any] = {}  # noqa: RUF012


def execute_tool(agent: str, name: str, arguments: dict[str, Any]) -> str:
    match name, arguments:
        case "read_file", {"path": str(path)}:
            return FILES.get(path, f"Error: There is no {path!r}.")
        case "write_file", {"path": str(path)} if agent == "architect" and not path.endswith(".md"):
            return MARKDOWN_ONLY_REASON
        case "list_files", _:
            return json.dumps([{"path": path, "size": 1} for path in FILES])
        case "search_in_code", {"query": str(query)}:
            found = [(path, line) for path, text in FILES.items() for line in text.splitlines() if query in line]
            return json.dumps([{"path": path, "line": 1, "content": line} for path, line in found])
        case "execute_command", _:
            return json.dumps({"exit_code": 1, "stdout": "F\n1 failed\n", "stderr": "", "timed_out": False})
        case "calculator", _:
            return "14"
        case "echo", {"text": str(text)}:
            return text
    return "Done."


def play_turn(
    agent: str,
    request: str,
    answer: Callable[[str, str, dict[str, Any]], str] = execute_tool,
    tools: Sequence[str] | None = None,
) -> list[OfflineAction]:
    """Play one turn to its end; return its actions."""
    messages: list[AnyMessage] = [HumanMessage(request)]
    steps: list[OfflineAction] = []
    while len(steps) < 12:
        model = OfflineModel().bind_tools([specification(tool) for tool in tools or AGENTS[agent].tools])
        said = model.invoke([SystemMessage(AGENTS[agent].prompt), *messages])
        messages.append(said)
        if not said.tool_calls:
            return [*steps, OfflineAction(agent, str(said.text))]
        [call] = said.tool_calls
        assert call["id"] == f"call_{len([s for s in steps if s.tool]) + 1}"
        assert call["name"] in (tools or AGENTS[agent].tools)
        assert validation_error(call["name"], call["args"]) is None
        steps.append(OfflineAction(agent, str(said.text), call["name"], call["args"]))
        if call["name"] in ("attempt_completion", "ask_followup_question"):
            return steps
        agent = call["args"]["mode"] if call["name"] == "switch_mode" else agent
        told = answer(agent, call["name"], call["args"])
        failed = told.startswith(("Error", "The user rejected", "Architect may"))
        messages.append(ToolMessage(told, tool_call_id=call["id"], status="error" if failed else "success"))
    raise AssertionError("the turn does not end")


READ_ARGUMENTS = {"path": "README.md"}
TEST_ARGUMENTS = {"command": "python -m pytest -q"}


@pytest.mark.parametrize(
    ("agent", "request_", "calls"),
    [
        ("ask", "read README.md", ["read_file"]),
        ("ask", "прочитай README.md", ["read_file"]),
        ("ask", "Can you please explain README.md?", ["read_file"]),
        ("ask", "объясни README.md", ["read_file"]),
        ("ask", "list files", ["list_files"]),
        ("ask", "покажи файлы в tests", ["list_files"]),
        ("ask", "search for total", ["search_in_code"]),
        ("ask", "найди все использования total", ["search_in_code"]),
        ("ask", "Explain how this code works", ["list_files", "read_file"]),
        ("ask", "как устроен этот проект?", ["list_files", "read_file"]),
        ("ask", "calculate 2*(3+4)", ["calculator"]),
        ("ask", "посчитай 2*(3+4)", ["calculator"]),
        ("ask", "help", []),
        ("ask", "привет", []),
        ("ask", "", []),
        ("ask", "create a.py", ["switch_mode", "write_file", "attempt_completion"]),
        ("ask", "запусти тесты", ["switch_mode", "execute_command", "attempt_completion"]),
        ("ask", "design a cache", ["switch_mode", "write_file", "attempt_completion"]),
        ("ask", "переключись на coder", ["switch_mode"]),
        ("coder", "create hello.py that prints hi", ["write_file", "attempt_completion"]),
        ("coder", "создай hello.py, который печатает привет", ["write_file", "attempt_completion"]),
        ("coder", "write buy milk into notes.md", ["read_file", "write_file", "attempt_completion"]),
        ("coder", "допиши строку в README.md", ["read_file", "write_file", "attempt_completion"]),
        ("coder", "create folder docs", ["create_directory", "attempt_completion"]),
        ("coder", "создай папку docs", ["create_directory", "attempt_completion"]),
        ("coder", "run the tests", ["execute_command", "attempt_completion"]),
        ("coder", "запусти тесты", ["execute_command", "attempt_completion"]),
        ("coder", "выполни `ls -la`", ["execute_command", "attempt_completion"]),
        ("coder", "run ls -la", ["execute_command", "attempt_completion"]),
        ("coder", "echo hello", ["echo"]),
        ("coder", "сделай что-нибудь", ["ask_followup_question"]),
        ("coder", "switch to coder", []),
        ("debug", "why does test_x fail?", ["search_in_code", "read_file", "attempt_completion"]),
        ("debug", "почему падает тест?", ["search_in_code", "read_file", "attempt_completion"]),
        ("debug", "why does test_nothing fail?", ["search_in_code"]),
        ("debug", "why does test_x fail? Fix it.", ["search_in_code", "read_file", "switch_mode"]),
        ("debug", "почему падает test_x? исправь", ["search_in_code", "read_file", "switch_mode"]),
        ("architect", "design a cache layer", ["write_file", "attempt_completion"]),
        ("architect", "спроектируй слой кэша", ["write_file", "attempt_completion"]),
        (
            "architect",
            "design a cache and implement it",
            ["write_file", "switch_mode", "write_file", "attempt_completion"],
        ),
        ("universal", "design a cache and implement it", ["write_file", "write_file", "attempt_completion"]),
        ("universal", "why does test_x fail? Fix it.", ["search_in_code", "read_file"]),
    ],
)
def test_request_leads_to_the_expected_tool_calls(agent: str, request_: str, calls: list[str]) -> None:
    steps = play_turn(agent, request_)
    assert [step.tool for step in steps if step.tool] == calls
    last = steps[-1]
    assert last.text or last.arguments
    spoken = last.text + str(last.arguments.get("result", last.arguments.get("question", "")))
    if request_:
        assert bool(re.search("[а-я]", request_)) == bool(re.search("[а-я]", spoken))


def test_a_file_is_created() -> None:
    assert play_turn("coder", "create hello.py that prints hi") == [
        OfflineAction(
            "coder", "I will create hello.py.", "write_file", {"path": "hello.py", "content": 'print("hi")\n'}
        ),
        OfflineAction("coder", "", "attempt_completion", {"result": "Created hello.py."}),
    ]


def test_a_file_is_read() -> None:
    assert play_turn("ask", "прочитай README.md") == [
        OfflineAction("ask", "", "read_file", READ_ARGUMENTS),
        OfflineAction("ask", "README.md: строк: 3, слов: 4.\n\n> # Shop\n> It sells."),
    ]


def test_text_is_appended_to_a_file() -> None:
    written = play_turn("coder", 'append "And buys." to README.md')[1]
    assert written.arguments == {"path": "README.md", "content": "# Shop\n\nIt sells.\nAnd buys.\n"}


def test_tests_are_run_and_reported() -> None:
    run, report = play_turn("coder", "run the tests")
    assert run == OfflineAction("coder", "I will run `python -m pytest -q`.", "execute_command", TEST_ARGUMENTS)
    assert report.arguments == {"result": "`python -m pytest -q`, exit code 1:\n\nF\n1 failed"}


def test_cause_of_a_failing_test_is_named() -> None:
    result = play_turn("debug", "why does test_x fail")[-1].arguments["result"]
    assert "tests/test_shop.py:1" in result
    assert "line 3: `assert total == 2`" in result


def test_architect_hands_a_forbidden_write_to_the_coder() -> None:
    write = {"path": "x.py", "content": 'print("1")\n'}
    assert play_turn("architect", "as architect, create x.py that prints 1") == [
        OfflineAction("architect", "I will create x.py.", "write_file", write),
        OfflineAction(
            "architect",
            f"I was refused: {MARKDOWN_ONLY_REASON}",
            "switch_mode",
            {"mode": "coder", "reason": MARKDOWN_ONLY_REASON},
        ),
        OfflineAction("coder", "I will create x.py.", "write_file", write),
        OfflineAction("coder", "", "attempt_completion", {"result": "Created x.py."}),
    ]


@pytest.mark.parametrize(
    ("told", "ending"),
    [
        ("The user rejected this call. They said: call it hallo.py", "I leave it at that. {}"),
        ("Error: User rejected the operation", "I leave it at that. {}"),
        ("Error: The disk is full.", "I leave it at that. {}"),
    ],
)
@pytest.mark.parametrize("agent", ["coder", "architect", "universal"])
def test_failed_call_is_reported_and_not_retried(agent: str, told: str, ending: str) -> None:
    steps = play_turn(agent, "create hello.md", lambda *_: told)
    assert [step.tool for step in steps] == ["write_file", ""]
    assert steps[-1].text == ending.format(told)


def test_missing_tool_is_reported() -> None:
    assert play_turn("ask", "create a.py", tools=["read_file"]) == [
        OfflineAction("ask", "I cannot do that here: I have no write_file.")
    ]


def test_edited_arguments_are_reported() -> None:
    edited = {"path": "hallo.py", "content": "x"}
    call = {"name": "write_file", "args": edited, "id": "call_1"}
    told = "The user edited the arguments before agreeing; the call holds what ran.\nDone."
    said = ask_offline_model(
        "coder",
        HumanMessage("create hello.py"),
        AIMessage("", tool_calls=[call]),
        ToolMessage(told, tool_call_id="call_1"),
    )
    assert said.tool_calls[0]["args"] == {"result": "Created hallo.py."}


def test_new_request_gets_new_call_ids() -> None:
    call = {"name": "read_file", "args": READ_ARGUMENTS, "id": "call_1"}
    before = [HumanMessage("read README.md"), AIMessage("", tool_calls=[call]), ToolMessage("x", tool_call_id="call_1")]
    [call_2] = ask_offline_model("ask", *before, AIMessage("It is x."), HumanMessage("read b.md")).tool_calls
    assert (call_2["id"], call_2["args"]) == ("call_2", {"path": "b.md"})


def ask_offline_model(agent: str, *messages: BaseMessage) -> AIMessage:
    return OfflineModel().bind_tools([specification(tool) for tool in AGENTS[agent].tools]).invoke([*messages])


@pytest.mark.parametrize(
    ("path", "body", "written"),
    [
        ("a.py", ' that prints it\'s "on"', 'print("it\'s \\"on\\"")\n'),
        ("a.py", "", '"""A."""\n'),
        ("a.py", " with x = {1}", "x = {1}\n"),
        ("a.sh", " that prints it's ok", "#!/bin/sh\necho 'it'\"'\"'s ok'\n"),
        ("a.md", " about cats", "# A\n\nabout cats\n"),
        ("to_do.md", ": buy milk", "# To do\n\nbuy milk\n"),
        ("a.txt", " с текстом «привет»", "привет\n"),
        ("a.txt", "", ""),
    ],
)
def test_new_file_content_follows_the_request(path: str, body: str, written: str) -> None:
    assert draft_content(path, body) == written


@pytest.mark.parametrize("request_", ["create hello.py that prints hi", "help", "read README.md"])
async def test_streamed_answer_equals_the_whole_answer(request_: str) -> None:
    model = OfflineModel().bind_tools([specification(tool) for tool in AGENTS["coder"].tools])
    whole = await model.ainvoke(request_)
    there = list(model.stream(request_))
    chunks: list[Any] = [chunk async for chunk in model.astream(request_)]
    assert [c.text for c in chunks] == [c.text for c in there]
    merged = add_ai_message_chunks(*chunks)
    assert (merged.text, merged.tool_calls, merged.usage_metadata) == (
        whole.text,
        whole.tool_calls,
        whole.usage_metadata,
    )
    assert whole.usage_metadata
    assert whole.usage_metadata["total_tokens"] > 0


@pytest.mark.parametrize(
    ("text", "agent"),
    [
        ("read README.md", "ask"),
        ("почему падает тест?", "debug"),
        ("design a cache", "architect"),
        ("create hello.py that prints hi", "coder"),
    ],
)
async def test_offline_model_classifies_requests(text: str, agent: str) -> None:
    choice = await classify(OfflineModel(), text, select_team(multi_agent=True))
    assert (choice.agent, choice.method) == (agent, "llm")


def test_offline_model_chooses_from_the_given_team() -> None:
    system = SystemMessage("- ask: Answers.\n- coder: Writes.\n")
    said = json.loads(str(OfflineModel().invoke([system, HumanMessage("why does test_x fail")]).text))
    assert said["agent"] == "ask"
