"""Turns through the front door: what a client sends, what it gets, what the model heard, what is remembered."""

from pathlib import Path

import pytest

from tests.scripted import calls, chooses, model, roles, says
from tests.service import service, settings_for, switched, text, tool_call, write_approval

pytestmark = pytest.mark.anyio


async def test_a_question_is_routed_and_answered(tmp_path: Path) -> None:
    llm = model(chooses("ask"), says("It greets."))
    async with service(llm, settings_for(tmp_path)) as client:
        assert await client.session().user("What does hello.py do?") == [
            switched("orchestrator", "ask"),
            text("It greets."),
        ]
    assert [roles(heard) for heard in llm.heard] == [["system", "human"], ["system", "human"]]
    assert llm.asked_with[0]["temperature"] == 0.3
    assert llm.asked_with[1]["parallel_tool_calls"] is False


async def test_the_ide_reads_a_file_for_the_model(tmp_path: Path) -> None:
    llm = model(chooses("ask"), calls("read_file", path="a.py"), says("It is empty."))
    async with service(llm, settings_for(tmp_path)) as client:
        session = client.session()
        assert await session.user("Read a.py") == [switched("orchestrator", "ask"), tool_call("read_file", path="a.py")]
        assert await session.result("") == [text("It is empty.")]
        assert (await session.history())[1:3] == [
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
            {"role": "tool", "content": "", "tool_call_id": "call_1", "name": "read_file"},
        ]


async def test_a_write_waits_for_the_user_then_for_the_ide(tmp_path: Path) -> None:
    llm = model(
        chooses("coder"), calls("write_file", "I will write it.", path="a.py", content="x"), says("Written.")
    )
    async with service(llm, settings_for(tmp_path)) as client:
        session = client.session()
        assert await session.user("Write a.py") == [
            switched("orchestrator", "coder"),
            text("I will write it.", is_final=False),
            write_approval("a.py", "x"),
        ]
        assert await session.decide("approve") == [tool_call("write_file", path="a.py", content="x")]
        assert await session.result("done") == [text("Written.")]
