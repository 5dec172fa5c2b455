"""The IDE's tools return their results, explain their errors, and keep to their limits."""

import asyncio
import os
from typing import Any

import pytest

from ide.process import OUTPUT_LIMIT
from ide.tools import run_tool
from ide.workspace import Workspace


async def get_result(workspace: Workspace, tool: str, **arguments: Any) -> Any:
    return (await run_tool(workspace, tool, arguments))["result"]


async def get_error(workspace: Workspace, tool: str, **arguments: Any) -> str:
    return str((await run_tool(workspace, tool, arguments))["error"])


def create_files(workspace: Workspace) -> None:
    for name in ("a.py", "src/b.py", "src/c.txt", ".hidden/d.py", "node_modules/e.py", ".mypy_cache/f.py"):
        path = workspace.root / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(f"first\nNeedle in {name}\n")


async def test_read_file_returns_the_text_or_a_range_of_lines(workspace: Workspace) -> None:
    (workspace.root / "a.txt").write_bytes("один\r\nдва\nthree\n".encode())
    assert await get_result(workspace, "read_file", path="a.txt", encoding=None) == "один\r\nдва\nthree\n"
    assert await get_result(workspace, "read_file", path="a.txt", start_line=2, end_line=2) == "два\n"
    (workspace.root / "b.txt").write_bytes("привет".encode("cp1251"))
    assert await get_result(workspace, "read_file", path="b.txt", encoding="cp1251") == "привет"


async def test_long_file_is_truncated_with_a_line_number(workspace: Workspace) -> None:
    (workspace.root / "long.txt").write_text("0123456789" * 10 + "\n" + "x\n" * 200_000)
    text = await get_result(workspace, "read_file", path="long.txt")
    assert len(text) < 201_000
    cut = int(text.rpartition("cut in line ")[2].split(";")[0])
    assert (await get_result(workspace, "read_file", path="long.txt", start_line=cut, end_line=cut)) == "x\n"


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"path": "nothing.txt"}, "There is no 'nothing.txt'"),
        ({"path": "."}, "is a folder"),
        ({"path": "binary"}, "binary"),
        ({"path": "latin"}, "not text in utf-8"),
        ({"path": "latin", "encoding": "klingon"}, "no encoding 'klingon'"),
        ({"path": "latin", "encoding": "latin-1", "start_line": 9}, "has 1 lines"),
        ({"path": 7}, "must be of type str"),
        ({"path": "binary", "start_line": True}, "must be of type int"),
        ({"file": "binary"}, "missing a required argument: 'path'"),
        ({"path": "bad\ud800"}, "no valid text"),
    ],
)
async def test_read_file_explains_its_errors(workspace: Workspace, arguments: dict[str, Any], says: str) -> None:
    (workspace.root / "binary").write_bytes(b"\x7fELF\0\0")
    (workspace.root / "latin").write_bytes(b"caf\xe9")
    assert says in await get_error(workspace, "read_file", **arguments)


async def test_write_file_creates_and_replaces(workspace: Workspace) -> None:
    assert "missing" in await get_error(workspace, "write_file", path="new/a.txt", content="one")
    await get_result(workspace, "write_file", path="new/a.txt", content="one", create_dirs=True)
    await get_result(workspace, "write_file", path="new/a.txt", content="two\r\n", backup=False)
    assert (workspace.root / "new/a.txt").read_bytes() == b"two\r\n"
    assert os.listdir(workspace.root / "new") == ["a.txt"]


async def test_list_files_shows_folders_and_skips_hidden_files(workspace: Workspace) -> None:
    create_files(workspace)
    assert await get_result(workspace, "list_files") == ["a.py", "node_modules/", "src/"]
    assert await get_result(workspace, "list_files", path="src", include_hidden=True) == ["src/b.py", "src/c.txt"]
    (workspace.root / "build").mkdir()
    everything = await get_result(workspace, "list_files", recursive=True, include_hidden=True)
    assert everything == [
        *(".hidden/", ".mypy_cache/", "a.py", "build/", "node_modules/", "src/"),
        *(".hidden/d.py", "src/b.py", "src/c.txt"),
    ]
    assert await get_result(workspace, "list_files", recursive=True, pattern="**/*.py") == ["a.py", "src/b.py"]


async def test_create_directory_creates_parents(workspace: Workspace) -> None:
    assert "missing" in await get_error(workspace, "create_directory", path="a/b", recursive=False)
    assert await get_result(workspace, "create_directory", path="a/b") == "Created a/b."
    assert await get_result(workspace, "create_directory", path="a/b") == "a/b exists."
    assert "leads out" in await get_error(workspace, "create_directory", path="../c")


async def test_search_in_code_finds_lines(workspace: Workspace) -> None:
    create_files(workspace)
    (workspace.root / "out").symlink_to("../secret.txt")
    found = await get_result(workspace, "search_in_code", query="needle", file_pattern="*.py")
    assert found == [
        {"path": "a.py", "line": 2, "text": "Needle in a.py"},
        {"path": ".hidden/d.py", "line": 2, "text": "Needle in .hidden/d.py"},
        {"path": "src/b.py", "line": 2, "text": "Needle in src/b.py"},
    ]
    assert len(await get_result(workspace, "search_in_code", query="needle", max_results=1)) == 1
    assert await get_result(workspace, "search_in_code", query="needle", case_sensitive=True) == []
    assert await get_result(workspace, "search_in_code", query="secret") == []
    assert len(await get_result(workspace, "search_in_code", query=r"N\w+e in", regex=True, path="src/c.txt")) == 1
    assert "not valid" in await get_error(workspace, "search_in_code", query="(", regex=True)
    assert "no 'gone'" in await get_error(workspace, "search_in_code", query="x", path="gone")


async def test_an_endless_regular_expression_can_be_stopped(workspace: Workspace) -> None:
    (workspace.root / "a.txt").write_text("a" * 40 + "b")
    search = {"query": "(a+)+$", "regex": True}
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(1):
            await run_tool(workspace, "search_in_code", search)


async def test_command_uses_a_shell_only_when_needed(workspace: Workspace) -> None:
    (workspace.root / "sub").mkdir()
    assert await get_result(workspace, "execute_command", command="pwd", cwd="sub") == {
        "exit_code": 0,
        "stdout": f"{workspace.root}/sub\n",
        "stderr": "",
        "timed_out": False,
    }
    piped = await get_result(workspace, "execute_command", command="echo one | cat; echo two >&2; exit 3")
    assert (piped["exit_code"], piped["stdout"], piped["stderr"]) == (3, "one\n", "two\n")
    assert (await get_result(workspace, "execute_command", command="nonesuch"))["exit_code"] == 127
    assert "leads out" in await get_error(workspace, "execute_command", command="ls", cwd="..")
    assert "between 1 and 300" in await get_error(workspace, "execute_command", command="ls", timeout=301)


async def test_a_command_has_no_input(workspace: Workspace) -> None:
    assert (await get_result(workspace, "execute_command", command="cat"))["stdout"] == ""


async def test_process_group_is_killed_at_the_time_limit(workspace: Workspace) -> None:
    command = "echo begun; (sleep 60; touch late) & sh -c 'echo $$ > pid; exec sleep 60'"
    outcome = await get_result(workspace, "execute_command", command=command, timeout=1)
    assert (outcome["timed_out"], outcome["stdout"]) == (True, "begun\n")
    pid = (workspace.root / "pid").read_text().strip()
    state = (await get_result(workspace, "execute_command", command=f"ps -o stat= -p {pid}"))["stdout"]
    assert state[:1] in ("", "Z"), "it is gone, or dead and not yet collected"


async def test_background_processes_do_not_delay_a_command(workspace: Workspace) -> None:
    command = "sleep 60 & setsid sh -c 'touch away; sleep 5' & until test -e away; do :; done; echo done"
    outcome = await get_result(workspace, "execute_command", command=command, timeout=20)
    assert (outcome["stdout"], outcome["timed_out"]) == ("done\n", False)


async def test_output_is_bounded_and_keeps_its_two_ends(workspace: Workspace) -> None:
    outcome = await get_result(workspace, "execute_command", command="echo first; yes | head -c 3000000; echo last")
    text = outcome["stdout"]
    assert len(text) < OUTPUT_LIMIT + 100
    assert (text[:6], text[-5:], "bytes left out" in text) == ("first\n", "last\n", True)


async def test_command_that_is_too_long_is_explained(workspace: Workspace) -> None:
    """Linux takes 128 kB in one argument. The sentence holds the beginning of the command only."""
    error = await get_error(workspace, "execute_command", command=f"echo {'x' * 200_000}")
    assert error == f"The command 'echo {'x' * 195}' is too long for this system; write it to a file, and run that."


async def test_an_unknown_tool_is_named(workspace: Workspace) -> None:
    assert "no tool 'delete_file'; it has read_file" in await get_error(workspace, "delete_file", path="a")
