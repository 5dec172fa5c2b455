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


VARIANTS = (
    *("rm -rf x/", "rm -rf .//x", "rm -rf x/.", "rm -fr x", "rm -r -f x", "rm -f -r x", "rm -rf -- x", "rm x -rf"),
    *("rm -Rf x", "rm --recursive --force x", "rm -rf x;", "rm -rf x # clean", "true && rm -rf x", "cd . && rm -rf x"),
    *("/bin/rm -rf x", "command rm -rf x", "rm -rf x || true", "rm -rf x; true", "rm -rf x 2>/dev/null", "\\rm -rf x"),
    *("rm -rf x > /dev/null 2>&1", "rm -rf x &>/dev/null", "(rm -rf x)", "bash -c 'rm -rf x'", 'rm -rf "$PWD/x"'),
)


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
        *(command(text) for text in VARIANTS),
        *(command("rm -rf x", shell=True), command("rm -rf x", cwd="sub/..")),
        *(command("rm -rf x", cwd="."), command("rm -rf x", cwd=None), command("rm -rf x", cwd="./")),
    ],
)
def test_a_variant_of_a_command_is_the_same_call(variant: Any) -> None:
    assert variant == command("rm -rf x")


@pytest.mark.parametrize(
    "other",
    [
        *(command("rm -rf y"), command("rm -r x"), command("rm -rf x", cwd="sub"), command("rm -rf x; ls")),
        *(command("cd x && rm -rf x"), command("rm -rf x > y"), command("rm -rf x | tee y"), command("rm -rf 'x y'")),
    ],
)
def test_another_command_is_another_call(other: Any) -> None:
    assert other != command("rm -rf x")


def test_a_folder_is_the_same_by_cd_and_by_argument() -> None:
    assert command("cd ./sub/ && make -j4 test") == command("make -j4 test", cwd="sub")


def test_a_path_has_one_form() -> None:
    assert write("./a/../a//b.py", encoding="utf-8") == write("a/b.py")
    assert write("A/b.py", encoding="utf8", content="x\n") == write("a/b.py")
    assert write("a/b.py", content="y") != write("a/b.py")
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


async def count_questions(tmp_path: Path, answers: list[str]) -> int:
    """Let a model alternate a read and a command; decide as `answers` say. Return how many commands were asked for."""
    lines = [
        line
        for n in range(len(answers) + 1)
        for line in (call_tool("read_file", path=f"{n}.py"), call_tool("execute_command", command=f"rm -rf {n}"))
    ]
    asked = 0
    async with start_service(make_model(choose_agent("coder"), *lines), settings_for(tmp_path)) as client:
        session = client.open_session()
        chunk = (await session.send_text("Clean up"))[-1]
        for answer in answers:
            while chunk["type"] == "tool_call" and not chunk["requires_approval"]:
                chunk = (await session.send_result("text", chunk["call_id"]))[-1]
            if chunk["type"] != "tool_call":
                assert chunk["metadata"]["question"]
                break
            asked += 1
            chunk = (await session.decide(answer, chunk["call_id"]))[-1]
    return asked


async def test_reads_between_rejections_do_not_end_their_row(tmp_path: Path) -> None:
    assert await count_questions(tmp_path, ["reject"] * 6) == 3


async def test_an_approval_ends_the_row(tmp_path: Path) -> None:
    assert await count_questions(tmp_path, ["reject", "reject", "approve", "reject", "reject", "reject", "reject"]) == 6


async def test_a_rejected_call_is_refused_in_another_form(tmp_path: Path) -> None:
    variants = [call_tool("execute_command", command=text) for text in ("rm -rf x", "rm  -rf 'x' ")]
    llm = make_model(choose_agent("coder"), *variants, say_text("I leave it."))
    async with start_service(llm, settings_for(tmp_path)) as client:
        session = client.open_session()
        asked = await session.send_text("Clean up")
        chunks = await session.decide("reject", asked[-1]["call_id"])
    assert [chunk["type"] for chunk in chunks] == ["error", "assistant_message"]
    assert chunks[0]["metadata"]["rule"] == "user.rejected"
