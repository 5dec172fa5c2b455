"""The calculator, the specification of a tool, and the defaults that a call gets before it is judged."""

import json
from pathlib import Path
from typing import Any

import pytest
from langchain_core.messages import AIMessage

from graph.tools.calculator import calculate
from graph.tools.catalog import specification
from ide.commands import DEFAULT_COMMAND_SECONDS
from tests.support.scripted import call_tool, make_model, say_text
from tests.support.service import settings_for, start_service, tool_call_chunk


@pytest.mark.parametrize(
    ("expression", "value"),
    [("2*(3+4)", "14"), ("7 // 2 - -1", "4"), ("1/4", "0.25"), ("2**64", "18446744073709551616"), (" 5 % 3 ", "2")],
)
def test_calculator_evaluates_arithmetic(expression: str, value: str) -> None:
    assert calculate(expression) == value


@pytest.mark.parametrize(
    "expression",
    [
        "",
        "x",
        "1+",
        "abs(1)",
        "'a'*9",
        "1/0",
        "9**9**9",
        "10**5000",
        "1e308*1e308**9",
        "1e308*10",
        "1e308*10-1e308*10",
        "(-1)**0.5",
        "((-1)**0.5) % 2",
        "((-1)**0.5) // 1 * 0",
        "(" * 200,
        "True",
    ],
)
def test_invalid_expression_is_refused_with_a_sentence(expression: str) -> None:
    with pytest.raises(ValueError, match=r"is not arithmetic|too large|by zero|not a real number"):
        calculate(expression)


def test_tool_specification_contains_no_internal_docs() -> None:
    assert specification("list_files") == {
        "type": "function",
        "function": {
            "name": "list_files",
            "description": "List the files and folders of a folder.",
            "parameters": {
                "type": "object",
                "additionalProperties": False,
                "properties": {
                    "path": {"type": "string", "default": ".", "description": "Relative to the workspace."},
                    "recursive": {"type": "boolean", "default": False},
                    "include_hidden": {"type": "boolean", "default": False},
                    "pattern": {"type": "string", "description": "A glob the names must match, such as *.py."},
                },
            },
        },
    }


@pytest.mark.parametrize(
    "said",
    [{}, {"recursive": True}, {"path": None, "pattern": "*.py"}, {"path": ""}, {"path": "."}],
)
async def test_call_has_the_defaults_that_an_ide_requires(tmp_path: Path, said: dict[str, Any]) -> None:
    """The IDE refuses a list_files without a path. The history and the next request have what the IDE got."""
    sent = {**said, "path": "."}
    llm = make_model(call_tool("list_files", **said), say_text("Done."))
    async with start_service(llm, settings_for(tmp_path, multi_agent_mode=False)) as client:
        session = client.open_session()
        assert (await session.send_text("List"))[-1] == tool_call_chunk("list_files", **sent)
        await session.send_result(["a.py"])
        call = (await session.fetch_history())[1]["tool_calls"][0]
    assert json.loads(call["function"]["arguments"]) == sent
    assert [message.tool_calls[0]["args"] for message in llm.prompts[1] if isinstance(message, AIMessage)] == [sent]


async def test_edited_call_has_the_defaults_that_an_ide_requires(tmp_path: Path) -> None:
    policy = tmp_path / "policy.yaml"
    policy.write_text("rules:\n  - {id: every, decision: ask, reason: Every call needs approval.}\n")
    llm = make_model(call_tool("list_files", path="src"), say_text("Done."))
    settings = settings_for(tmp_path, multi_agent_mode=False, policy_file=str(policy))
    async with start_service(llm, settings) as client:
        session = client.open_session()
        await session.send_text("List")
        (sent,) = await session.decide("edit", modified_arguments={"path": ""})
    assert sent["arguments"] == {"path": "."}


def test_schema_has_the_ides_time_limit_of_a_command() -> None:
    timeout = specification("execute_command")["function"]["parameters"]["properties"]["timeout"]
    assert timeout["default"] == DEFAULT_COMMAND_SECONDS == 60
