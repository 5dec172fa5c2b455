"""The terminal IDE works as a process: with piped input, at a terminal, and with a service that it starts itself."""

import asyncio
import os
import pty
import signal
import sys
import termios
from pathlib import Path
from typing import Any

import pytest

from ide.sandbox import find_sandbox
from ide.server_process import CannotStart, ensure_service, is_reachable
from ide.workspace import Workspace
from tests.support.paths import PROJECT_ROOT
from tests.support.scripted_service import STALL, ScriptedService, error_chunk, text_chunk, token_chunk, tool_call_chunk


async def start_ide(
    service: ScriptedService, workspace: Workspace, *options: str, lines: str = ""
) -> tuple[int | None, str]:
    """Run the IDE with these lines as its input; return its exit code and its output."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "ide", str(workspace.root), "--url", service.url, *options),
        cwd=PROJECT_ROOT,
        env={**os.environ, "AGENT_RUNTIME__INTERNAL_API_KEY": "k3y"},
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    shown, _ = await process.communicate(lines.encode())
    return process.returncode, shown.decode()


async def test_piped_lines_are_messages_and_yes_approves(service: ScriptedService, workspace: Workspace) -> None:
    command: dict[str, Any] = {"command": "env | grep -c k3y > count; true"}
    service.add_scripts(
        [tool_call_chunk("execute_command", requires_approval=True, **command)],
        [tool_call_chunk("execute_command", **command)],
        [text_chunk("Ok")],
    )
    service.add_scripts([token_chunk("Tw"), text_chunk("Two.")])
    code, shown = await start_ide(
        service, workspace, "--yes", "--session", "s-1", "--agent", "coder", lines="go\n/quit\nno\n"
    )
    assert code == 0
    assert "every command is approved" in shown
    assert "\x1b" not in shown
    again = f'make chat DIR={workspace.root} ARGS="--session s-1 --url {service.url}"'
    assert shown.splitlines()[-1] == f"Session s-1. To continue it: {again}"
    assert {r.headers["x-internal-auth"] for r in service.requests} == {"k3y"}
    assert (workspace.root / "count").read_text() == "0\n", "the command must not see the service's key"


@pytest.mark.parametrize(("last", "code"), [(text_chunk("Hello"), 0), (error_chunk("llm_unavailable"), 1)])
async def test_the_exit_code_is_that_of_the_last_run(
    service: ScriptedService, workspace: Workspace, last: dict[str, object], code: int
) -> None:
    service.add_scripts([error_chunk("limit_reached")], [last])
    assert (await start_ide(service, workspace, lines="one\ntwo"))[0] == code


async def test_list_shows_the_sessions(service: ScriptedService, workspace: Workspace) -> None:
    service.rest["/sessions"] = {"sessions": [], "total": 0}
    assert await start_ide(service, workspace, "--list") == (0, "There are no sessions yet.\n")


async def test_resume_command_leaves_out_the_configured_address(
    service: ScriptedService, workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AGENT_RUNTIME__PORT", str(service.port))
    monkeypatch.setenv("AGENT_RUNTIME__HOST", "0.0.0.0")
    shown = (await start_ide(service, workspace, "--session", "s-1", lines="/quit\n"))[1]
    assert shown.endswith(f'make chat DIR={workspace.root} ARGS="--session s-1"\n')


async def test_unknown_agent_ends_the_program(service: ScriptedService, workspace: Workspace) -> None:
    service.add_scripts([error_chunk("invalid_message", "The agent bogus is not available.")])
    code, shown = await start_ide(service, workspace, "--agent", "bogus", lines="go\n")
    assert (code, [m["type"] for m in service.messages]) == (1, ["switch_agent"])
    assert "The agent bogus is not available." in shown


async def test_start_says_which_sandbox_confines_commands(service: ScriptedService, workspace: Workspace) -> None:
    assert find_sandbox().describe() in (await start_ide(service, workspace, lines="/quit\n"))[1].splitlines()


async def test_removed_workspace_is_explained_to_the_model(service: ScriptedService, workspace: Workspace) -> None:
    """Each tool answers with a sentence, and the program goes on."""
    calls = [
        tool_call_chunk("search_in_code", query="x"),
        tool_call_chunk("list_files"),
        tool_call_chunk("execute_command", command="ls"),
        tool_call_chunk("execute_command", requires_approval=True, command="ls"),
    ]
    remove = tool_call_chunk("execute_command", command='rmdir "$PWD"')
    service.add_scripts(
        [{**remove, "metadata": {"passed_by": "grant"}}], *([call] for call in calls), [text_chunk("Ok")]
    )
    code, shown = await start_ide(service, workspace, "--yes", lines="go\n")
    gone = f"The folder of the workspace, {workspace.root}, is gone; ask the user to restore it."
    assert [message.get("error") for message in service.messages[2:5]] == [gone] * 3
    assert (code, service.messages[-1]["decision"], "Traceback" in shown) == (0, "approve", False)


async def play_dialogue(
    service: ScriptedService, workspace: Workspace, *dialogue: tuple[str, str | signal.Signals]
) -> None:
    """Wait for each text, then press the keys or send the signal; the program must end with status 0."""
    here, there = pty.openpty()
    termios.tcsetwinsize(there, (40, 120))
    environment = {**os.environ, "TERM": "xterm", "PROMPT_TOOLKIT_NO_CPR": "1"}
    argv = (sys.executable, "-m", "ide", str(workspace.root), "--url", service.url)
    process = await asyncio.create_subprocess_exec(
        *argv, cwd=PROJECT_ROOT, env=environment, stdin=there, stdout=there, stderr=there
    )
    os.close(there)
    shown = asyncio.StreamReader()
    asyncio.get_running_loop().add_reader(here, lambda: shown.feed_data(_read_terminal(here)))
    try:
        async with asyncio.timeout(60):
            for text, does in dialogue:
                await shown.readuntil(text.encode())
                process.send_signal(does) if isinstance(does, signal.Signals) else os.write(here, does.encode())
            assert await process.wait() == 0
    finally:
        asyncio.get_running_loop().remove_reader(here)
        os.close(here)
        if process.returncode is None:
            process.kill()
            await process.wait()


async def test_user_can_type_and_approve_at_a_terminal(service: ScriptedService, workspace: Workspace) -> None:
    made = [text_chunk("Made it")]
    service.add_scripts(
        [tool_call_chunk("create_directory", requires_approval=True, path="new")],
        [tool_call_chunk("create_directory", path="new")],
        made,
    )
    dialogue = (("you>", "make it\r"), ("feedback:", "a\r"), ("Made it", ""), ("you>", "\x04"))
    await play_dialogue(service, workspace, *dialogue)
    assert (workspace.root / "new").is_dir()


async def test_ctrl_c_stops_watching_and_the_next_message_works(service: ScriptedService, workspace: Workspace) -> None:
    service.add_scripts([token_chunk("Thinking"), STALL], [text_chunk("Hello")])
    interrupted = (("you>", "hi\r"), ("Thinking", signal.SIGINT), ("/resume shows it", ""))
    asked = (("feedback:", "\x03"), ("/resume asks again", ""))
    service.add_scripts([tool_call_chunk("create_directory", requires_approval=True, path="new")])
    dialogue = (*interrupted, ("you>", "hi\r"), ("Hello", ""), ("you>", "go\r"), *asked, ("you>", "/quit\r"))
    await play_dialogue(service, workspace, *dialogue)
    assert [m["content"] for m in service.messages] == ["hi", "hi", "go"]


def _read_terminal(terminal: int) -> bytes:
    try:
        return os.read(terminal, 65536)
    except OSError:
        return b""


async def test_missing_service_is_started_and_ended_afterwards() -> None:
    notices: list[str] = []
    async with ScriptedService() as service:
        url = service.url
    scripted = [sys.executable, "-m", "tests.support.scripted_service", str(service.port)]
    async with ensure_service(url, "", notices.append, scripted, PROJECT_ROOT):
        assert await is_reachable(url)
        async with ensure_service(url, "", notices.append, scripted, PROJECT_ROOT):
            pass
        assert await is_reachable(url), "a service that was there is left alone"
    assert [notice.partition(":")[0] for notice in notices] == ["No service answered at http"]
    assert not await is_reachable(url)


FAILING_SCRIPT = """
import os, sys
print("Traceback")
print(*(os.environ[f"AGENT_RUNTIME__{name}"] for name in ("HOST", "PORT", "DEV", "INTERNAL_API_KEY")))
print("INFO:     Application shutdown complete.", end="\\n\\n")
"""


@pytest.mark.parametrize(("found", "passed"), [("", "set"), ("found", "found")])
async def test_failed_start_of_the_service_is_explained(
    monkeypatch: pytest.MonkeyPatch, found: str, passed: str
) -> None:
    monkeypatch.setenv("AGENT_RUNTIME__INTERNAL_API_KEY", "set")
    monkeypatch.setenv("AGENT_RUNTIME__HOST", "0.0.0.0")
    async with ScriptedService() as service:
        url = service.url
    with pytest.raises(CannotStart, match=rf"ended at once: 127.0.0.1 {service.port} true {passed} \(log [^\n]*\)$"):
        async with ensure_service(url, found, print, [sys.executable, "-c", FAILING_SCRIPT]):
            pass


async def test_started_service_ends_when_the_ide_is_killed(tmp_path: Path) -> None:
    async with ScriptedService() as free:
        (tmp_path / ".env").write_text(f"AGENT_RUNTIME__PORT={free.port}\nAGENT_RUNTIME__INTERNAL_API_KEY=k3y\n")
    settings = {"PYTHONPATH": str(PROJECT_ROOT), "AGENT_RUNTIME__DB_URL": f"sqlite:///{tmp_path}/a.db"}
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "ide", ".", "--agent", "ask"),
        cwd=tmp_path,
        env=os.environ | settings,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    assert process.stdout
    started = (await process.stdout.readline()).decode()
    assert f"127.0.0.1:{free.port}: started one (pid " in started
    service = os.pidfd_open(int(started.partition("(pid ")[2].partition(",")[0]))
    await process.stdout.readuntil(b"-> ask")
    process.kill()
    await process.wait()
    await _wait_for_exit(service)
    os.close(service)


async def _wait_for_exit(process: int) -> None:
    over = asyncio.Event()
    asyncio.get_running_loop().add_reader(process, over.set)
    await over.wait()
    asyncio.get_running_loop().remove_reader(process)


async def test_service_is_started_only_on_this_machine() -> None:
    with pytest.raises(CannotStart, match="--url"):
        async with ensure_service("https://127.0.0.1:1", "", print):
            pass
    with pytest.raises(CannotStart, match="no address of a service"):
        async with ensure_service("http://127.0.0.1:port", "", print):
            pass
