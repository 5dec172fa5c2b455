"""A command has limits of memory, files, processes and time, gets no input, and leaves nothing behind."""

import asyncio
import os
import sys
import time
from pathlib import Path

import pytest

from ide.commands import UNASKED_LIMITS, execute_unasked_command
from ide.process import MEGABYTE, CommandResult, Limits
from ide.tools import run_tool
from ide.workspace import ToolError, Workspace
from tests.support.eventually import eventually
from tests.support.paths import PROJECT_ROOT

SOON = 10
"""Seconds that are far more than these commands need, and far fewer than their time limit."""


async def run_unasked(
    workspace: Workspace, script: str, seconds: int = 20, limits: Limits = UNASKED_LIMITS
) -> CommandResult:
    """Run a script of the shell in the sandbox of this system. The check of the paths takes it for one word."""
    assert "'" not in script
    return await execute_unasked_command(workspace, f"sh -c '{script}'", timeout=seconds, limits=limits)


DOUBLING = "awk 'BEGIN { x = 1; while (1) x = x x }'"
HOLDING = 'awk "BEGIN { x = \\"a\\"; while (i++ < 25) x = x x; system(\\"sleep 60\\") }"'
"""It takes all memory that it gets; it takes 32 MB and waits."""


@pytest.mark.parametrize(
    "command",
    [
        *("awk '{$99999999=1}' a.txt", "awk '{NF=999999999}' a.txt", "nl -w 999999999 a.txt"),
        *("grep -E 'a{1,32767}' a.txt", DOUBLING),
    ],
)
async def test_command_that_takes_gigabytes_ends(workspace: Workspace, command: str) -> None:
    """A process may take 90 MB here; how it fails then is its own affair."""
    (workspace.root / "a.txt").write_text("aaa\n")
    limits = UNASKED_LIMITS._replace(memory=90 * MEGABYTE, total_memory=0, address_space=2_000 * MEGABYTE)
    outcome = await execute_unasked_command(workspace, command, timeout=20, limits=limits)
    assert (outcome["exit_code"] != 0, outcome["timed_out"]) == (True, False)


@pytest.mark.parametrize(
    ("script", "limits", "excess"),
    [
        (
            f"for n in 1 2 3 4; do {HOLDING} & done; wait",
            {"total_memory": 60 * MEGABYTE},
            "the processes take too much memory",
        ),
        ("for n in 1 2 3 4 5 6; do sleep 60 & done; wait", {"processes": 5}, "there are too many processes"),
        (
            "for n in 1 2 3 4; do setsid sleep 60 & setsid sleep 60 & done; sleep 60",
            {"processes": 5},
            "there are too many processes",
        ),
        (
            "for n in 1 2 3; do head -c 900000 /dev/zero > $TMPDIR/$n; done; sleep 60",
            {"temporary_size": 2 * MEGABYTE},
            "the temporary files are too large",
        ),
        (
            "exec 3> $TMPDIR/x; rm $TMPDIR/x; head -c 3000000 /dev/zero >&3; sleep 60",
            {"temporary_size": 2 * MEGABYTE},
            "the temporary files are too large",
        ),
    ],
)
async def test_limits_hold_for_all_processes_together(
    workspace: Workspace, script: str, limits: dict[str, int], excess: str
) -> None:
    outcome = await run_unasked(workspace, script, limits=UNASKED_LIMITS._replace(**limits))
    assert outcome == {"exit_code": -9, "stdout": "", "stderr": f"\nstopped: {excess}\n", "timed_out": False}


async def test_file_is_not_written_beyond_its_limit(workspace: Workspace) -> None:
    script = "head -c 3000000 /dev/zero > $TMPDIR/x; wc -c < $TMPDIR/x"
    outcome = await run_unasked(workspace, script, limits=UNASKED_LIMITS._replace(file_size=MEGABYTE))
    assert outcome["stdout"].strip() == f"{MEGABYTE}"


async def test_time_limit_of_an_unasked_command_is_explained(workspace: Workspace) -> None:
    outcome = await run_unasked(workspace, "sleep 60", seconds=300, limits=UNASKED_LIMITS._replace(seconds=1))
    assert (outcome["timed_out"], outcome["stderr"]) == (
        True,
        "\nstopped: a command that the user did not approve has 1 s\n",
    )


@pytest.mark.parametrize(
    "command",
    [
        *("cat -", "cat", "tr a b", "rg x -", "diff - a.txt", "xxd -", "cmp - a.txt", "wc -c -", "sort -", "jq . -"),
        *("cat - a.txt | cat", "head -n 1 -", "grep x", "sh", "bash -i", "sed p -", "read_nothing"),
    ],
)
async def test_command_that_waits_for_input_ends_at_once(workspace: Workspace, command: str) -> None:
    (workspace.root / "a.txt").touch()
    begun = time.monotonic()
    for approved in (True, False):
        outcome = (await run_tool(workspace, "execute_command", {"command": command}, approved=approved))["result"]
        assert not outcome["timed_out"]
    assert time.monotonic() - begun < SOON


async def test_pipe_without_a_writer_ends_at_the_time_limit(workspace: Workspace) -> None:
    """The pipe is in no word of the command, so that its check cannot see it."""
    os.mkfifo(workspace.root / "pipe")
    assert (await run_unasked(workspace, "cat pi?e", seconds=1))["timed_out"]
    with pytest.raises(ToolError, match=r"^'pipe' leads to a pipe"):
        await execute_unasked_command(workspace, "cat pipe")


@pytest.mark.parametrize("approved", [True, False])
@pytest.mark.parametrize("ending", ["true", "exit 3", "kill -9 $$", "sleep 60"])
async def test_all_processes_end_with_the_command(workspace: Workspace, approved: bool, ending: str) -> None:
    """Some left the group of the command, or lost their parent."""
    seconds = f"{1_000_000 + os.getpid()}"  # no other test waits for as long
    waiting = f"sleep {seconds}"
    script = f'setsid {waiting} & setsid sh -c "{waiting} & {waiting}" & {waiting} & echo began; {ending}'
    arguments = {"command": f"sh -c '{script}'", "timeout": 1}
    outcome = (await run_tool(workspace, "execute_command", arguments, approved=approved))["result"]
    assert outcome["timed_out"] == (ending == "sleep 60")
    assert outcome["stdout"] == "began\n"
    assert ["sleep", seconds, ""] not in list_commands()


def list_commands() -> list[list[str]]:
    """Return the words of all processes of the system."""
    found = []
    for name in filter(str.isdigit, os.listdir("/proc")):
        try:
            found.append(Path(f"/proc/{name}/cmdline").read_text(errors="replace").split("\0"))
        except OSError:
            continue
    return found


@pytest.mark.parametrize("approved", [True, False])
@pytest.mark.parametrize("ending", ["true", "kill -9 $$", "sleep 60"])
async def test_temporary_folder_is_removed(workspace: Workspace, approved: bool, ending: str) -> None:
    """It is also removed after a kill, and with a folder in it that nobody may enter."""
    script = (
        f"echo $TMPDIR; mkdir -p $TMPDIR/a/b; touch $TMPDIR/a/b/c; ln -s / $TMPDIR/a/l; chmod 0 $TMPDIR/a; {ending}"
    )
    arguments = {"command": f"sh -c '{script}'", "timeout": 1}
    outcome = (await run_tool(workspace, "execute_command", arguments, approved=approved))["result"]
    folder = outcome["stdout"].strip()
    assert ("/ide-" in folder, is_there(folder)) == (True, False)


async def test_deep_temporary_folder_is_removed(workspace: Workspace) -> None:
    script = "cd $TMPDIR && pwd && mkdir -p $(printf a/%.0s $(seq 1100))"
    outcome = (await run_tool(workspace, "execute_command", {"command": script}))["result"]
    assert outcome["stderr"] == ""
    assert not is_there(outcome["stdout"].strip())


IDE = """
import asyncio, sys
from ide.tools import run_tool
from ide.workspace import Workspace
print(asyncio.run(run_tool(Workspace(sys.argv[1]), "execute_command", {"command": sys.argv[2], "timeout": 300})))
"""


async def start_ide(workspace: Workspace, command: str) -> asyncio.subprocess.Process:
    """Start a process that runs the command as an IDE does, with an input that stays open."""
    argv = (sys.executable, "-c", IDE, str(workspace.root), command)
    pipe = asyncio.subprocess.PIPE
    return await asyncio.create_subprocess_exec(*argv, cwd=PROJECT_ROOT, stdin=pipe, stdout=pipe)


async def test_command_does_not_read_the_input_of_the_ide(workspace: Workspace) -> None:
    process = await start_ide(workspace, "cat; cat /dev/stdin; cat /proc/self/fd/0")
    assert process.stdin
    assert process.stdout
    process.stdin.write(b"typed by the user\n")
    result = await process.stdout.read()
    assert result == b"{'result': {'exit_code': 0, 'stdout': '', 'stderr': '', 'timed_out': False}}\n"
    await process.wait()


async def test_all_processes_end_when_the_ide_is_killed(workspace: Workspace) -> None:
    command = "setsid sleep 300 & echo $! $TMPDIR > began; mv began pids; wait"
    process = await start_ide(workspace, command)
    await eventually((workspace.root / "pids").exists, "the command began")
    pid, folder = (workspace.root / "pids").read_text().split()
    assert [path for path in (f"/proc/{pid}", folder) if not is_there(path)] == []
    process.kill()
    await process.wait()
    await eventually(lambda: not is_there(folder), "the temporary folder was removed")
    assert not is_there(f"/proc/{pid}")


def is_there(path: str) -> bool:
    return os.path.lexists(path)
