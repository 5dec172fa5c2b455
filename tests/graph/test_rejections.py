"""A call that the user rejected is not proposed again in another form, and three rejections end the turn."""

from pathlib import Path
from typing import Any

import pytest

from graph.permissions.rejections import normalize_call
from tests.support.scripted import call_tool, choose_agent, make_model, say_text
from tests.support.service import settings_for, start_service, text_chunk


def command(text: str, **more: Any) -> Any:
    return normalize_call(
        {"name": "execute_command", "args": {"command": text, **more}, "id": "c", "type": "tool_call"}
    )


def write(path: str, **more: Any) -> Any:
    arguments = {"path": path, "content": "x", **more}
    return normalize_call({"name": "write_file", "args": arguments, "id": "c", "type": "tool_call"})


@pytest.mark.parametrize(
    "variant",
    [
        *(
            command("rm -rf x "),
            command("rm  -rf x"),
            command('rm -rf "x"'),
            command("rm -rf 'x'"),
            command(" rm -rf x"),
        ),
        *(command("rm -rf ./x"), command("rm -rf x", timeout=31), command("rm -rf x", shell=False)),
        *(command("rm -rf x", cwd="."), command("rm -rf x", cwd=None), command("rm -rf x", cwd="./")),
    ],
)
def test_a_variant_of_a_command_is_the_same_call(variant: Any) -> None:
    assert variant == command("rm -rf x")


@pytest.mark.parametrize(
    "other", [command("rm -rf y"), command("rm -r x"), command("rm -rf x", cwd="sub"), command("rm -rf x", shell=True)]
)
def test_another_command_is_another_call(other: Any) -> None:
    assert other != command("rm -rf x")


def test_a_path_has_one_form() -> None:
    assert write("./a/../a//b.py", encoding="utf-8") == write("a/b.py")
    assert write("a/b.py") != write("a/c.py")


async def test_three_rejections_in_a_row_end_the_turn_with_a_question(tmp_path: Path) -> None:
    calls = [call_tool("execute_command", command=f"rm -rf {name}") for name in "abcd"]
    llm = make_model(choose_agent("coder"), *calls, say_text("Never asked."))
    async with start_service(llm, settings_for(tmp_path)) as client:
        session = client.open_session()
        chunks = await session.send_text("Clean up")
        for _ in range(2):
            chunks = await session.decide("reject", chunks[-1]["call_id"])
            assert chunks[-1]["type"] == "tool_call"
        (question,) = await session.decide("reject", chunks[-1]["call_id"])
    assert question == text_chunk("You rejected three proposals in a row. What should I do instead?") | {
        "metadata": {
            "question": True,
            "suggestions": ["Explain what you want to do.", "Try another way.", "Stop here."],
        }
    }


async def test_a_rejected_call_is_refused_in_another_form(tmp_path: Path) -> None:
    variants = [call_tool("execute_command", command=text) for text in ("rm -rf x", "rm  -rf 'x' ")]
    llm = make_model(choose_agent("coder"), *variants, say_text("I leave it."))
    async with start_service(llm, settings_for(tmp_path)) as client:
        session = client.open_session()
        asked = await session.send_text("Clean up")
        chunks = await session.decide("reject", asked[-1]["call_id"])
    assert [chunk["type"] for chunk in chunks] == ["error", "assistant_message"]
    assert chunks[0]["metadata"]["rule"] == "user.rejected"
