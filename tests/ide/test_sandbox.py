"""A command that no user approved is confined: it reads the workspace, changes nothing, and reaches no network.

Each story runs in every sandbox that this system has. What `sh -c` gets is one word for the check of the paths, so that
the sandbox alone must hold.
"""

import asyncio
import os
import shlex
import shutil
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from ide.commands import execute_unasked_command
from ide.process import CommandResult
from ide.sandbox import NO_SANDBOX, Sandbox, SandboxKind, find_sandbox
from ide.seccomp import has_seccomp
from ide.tools import run_tool
from ide.workspace import Workspace

PYTHON = shutil.which("python3", path="/usr/bin:/bin")
"""A Python that each sandbox can run: that of the tests may be in a home folder."""
needs_python = pytest.mark.skipif(not PYTHON, reason="The system has no Python of its own.")


async def run_in_shell(workspace: Workspace, script: str, sandbox: Sandbox) -> CommandResult:
    return await execute_unasked_command(workspace, f"sh -c {quote(script)}", timeout=20, sandbox=sandbox)


def quote(script: str) -> str:
    """Return the script as one word, in quotes that the check of the paths reads."""
    assert "'" not in script
    return f"'{script}'"


@pytest.mark.parametrize(
    "script",
    [
        *("cat ../secret.txt", "cat link", "cat folder/secret.txt", "cat /proc/self/root$PWD/../secret.txt"),
        *("cd folder; cat secret.txt", "ls .. | grep secret", "ls /root /home", "cat /etc/shadow"),
        *("cat /proc/PID/environ", "cat /proc/PID/cwd/README.md", "cat /proc/PID/fd/*", "tail -c1 /dev/tty"),
        *("cp ../secret.txt $TMPDIR/x && cat $TMPDIR/x", "ln ../secret.txt $TMPDIR/x && cat $TMPDIR/x"),
    ],
)
async def test_nothing_outside_the_workspace_is_read(workspace: Workspace, sandbox: Sandbox, script: str) -> None:
    (workspace.root / "link").symlink_to("../secret.txt")
    (workspace.root / "folder").symlink_to("..")
    outcome = await run_in_shell(workspace, script.replace("PID", str(os.getpid())), sandbox)
    assert (outcome["stdout"], outcome["exit_code"] != 0) == ("", True)


@pytest.mark.parametrize(
    "script",
    [
        *("echo x > new", "echo x >> a.txt", "rm a.txt", "mv a.txt b.txt", "mkdir new", "ln -s / new", "mkfifo new"),
        *("chmod 777 a.txt", "touch a.txt", "touch -d 2001-01-01 ../secret.txt", "chmod 777 ../secret.txt"),
        *("echo x > ../secret.txt", "echo x > ../new", "cp /bin/true new", "echo x > /new", "echo x > /dev/new"),
        *("mount -o remount,bind,rw $PWD && echo x > new", "echo 1 > /proc/self/oom_score_adj"),
    ],
)
async def test_nothing_is_changed(workspace: Workspace, sandbox: Sandbox, script: str) -> None:
    (workspace.root / "a.txt").write_text("mine")
    before = look_at(workspace.root.parent)
    outcome = await run_in_shell(workspace, script, sandbox)
    assert (outcome["exit_code"] != 0, look_at(workspace.root.parent)) == (True, before)


def look_at(folder: Path) -> dict[Path, tuple[int, int, int]]:
    """Return the mode, the time and the size of all files."""
    statuses = {path: path.lstat() for path in (folder, *folder.rglob("*"))}
    return {path: (status.st_mode, status.st_mtime_ns, status.st_size) for path, status in statuses.items()}


async def test_workspace_and_temporary_files_can_be_read(workspace: Workspace, sandbox: Sandbox) -> None:
    (workspace.root / "sub").mkdir()
    (workspace.root / "sub/a.txt").write_text("mine\n")
    script = "cat sub/a.txt; echo kept > $TMPDIR/x; cat $TMPDIR/x; head -c 2 /dev/zero | wc -c; cat < /dev/null"
    outcome = await run_in_shell(workspace, script, sandbox)
    assert outcome == {"exit_code": 0, "stdout": "mine\nkept\n2\n", "stderr": "", "timed_out": False}


async def test_link_that_is_exchanged_after_the_check_leads_nowhere(workspace: Workspace, sandbox: Sandbox) -> None:
    """The command waits for `go`, after its words were checked."""
    (workspace.root / "a.txt").write_text("mine")
    command = "sh -c 'until [ -e go ]; do :; done'; cat a.txt"
    running = asyncio.create_task(execute_unasked_command(workspace, command, timeout=20, sandbox=sandbox))
    await asyncio.sleep(0)  # the check comes before the first wait
    (workspace.root / "a.txt").unlink()
    (workspace.root / "a.txt").symlink_to("../secret.txt")
    (workspace.root / "go").touch()
    outcome = await running
    assert (outcome["stdout"], outcome["exit_code"]) == ("", 1)


SENDERS = {
    "TCP": "socket.create_connection(('127.0.0.1', {port}))",
    "UDP": "socket.socket(type=socket.SOCK_DGRAM).sendto(b'x', ('127.0.0.1', {port}))",
    "a name": "socket.socket(socket.AF_UNIX).connect('{path}')",
    "an abstract name": "socket.socket(socket.AF_UNIX).connect('\\0{path}')",
}


@needs_python
@pytest.mark.parametrize("kind", SENDERS)
async def test_no_socket_is_reached(workspace: Workspace, sandbox: Sandbox, tmp_path: Path, kind: str) -> None:
    if sandbox.kind is SandboxKind.LANDLOCK and not has_seccomp():
        pytest.skip("This kernel has no filters of system calls.")
    path = str(tmp_path / "socket")
    with listen(kind, path) as server:
        port = server.getsockname()[1] if kind in ("TCP", "UDP") else 0
        code = f"import socket; {SENDERS[kind].format(port=port, path=path)}"
        await execute_unasked_command(workspace, shlex.join(["python3", "-c", code]), timeout=20, sandbox=sandbox)
        with pytest.raises(BlockingIOError):
            server.recv(1) if kind == "UDP" else server.accept()


@contextmanager
def listen(kind: str, path: str) -> Iterator[socket.socket]:
    """Yield a socket that waits for connections, or for data, without blocking."""
    family = socket.AF_INET if kind in ("TCP", "UDP") else socket.AF_UNIX
    address: Any = ("127.0.0.1", 0) if family == socket.AF_INET else f"\0{path}" if "abstract" in kind else path
    with socket.socket(family, socket.SOCK_DGRAM if kind == "UDP" else socket.SOCK_STREAM) as server:
        server.bind(address)
        server.setblocking(False)
        if kind != "UDP":
            server.listen()
        yield server


async def test_other_processes_get_no_signal(workspace: Workspace, sandbox: Sandbox) -> None:
    if sandbox.kind is SandboxKind.LANDLOCK and sandbox.abi < 6:
        pytest.skip("Landlock covers signals from ABI 6 on.")
    assert (await run_in_shell(workspace, f"kill -0 {os.getpid()}", sandbox))["exit_code"] != 0


def install_program(folder: Path, name: str, script: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text(f"#!/bin/sh\n{script}\n")
    (folder / name).chmod(0o755)


@pytest.mark.parametrize("path", ["{root}/bin:/usr/bin:/bin", "bin:/usr/bin:/bin", ":/usr/bin:/bin", "{root}/bin", ""])
@pytest.mark.parametrize("confined", [True, False])
async def test_program_of_the_workspace_is_not_run(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch, path: str, confined: bool
) -> None:
    """A folder of the workspace is on the PATH, as after the activation of an environment. It has a hostile `cat`."""
    for folder in (workspace.root / "bin", workspace.root):
        install_program(folder, "cat", "echo hostile")
    (workspace.root / "a.txt").write_text("mine")
    monkeypatch.setenv("PATH", path.format(root=workspace.root))
    sandbox = find_sandbox() if confined else NO_SANDBOX
    assert (await execute_unasked_command(workspace, "cat a.txt", sandbox=sandbox))["stdout"] == "mine"


@pytest.mark.parametrize(("prefix", "output"), [(".local", "words\n"), (".", "")])
async def test_program_of_the_user_runs_with_its_libraries(
    workspace: Workspace,
    sandbox: Sandbox,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    prefix: str,
    output: str,
) -> None:
    """What else is installed there stays hidden, as `share` may hold keys. So does a `lib` of the home folder."""
    home = tmp_path / "home"
    installation = home / prefix
    install_program(installation / "bin", "tool", f"cat {installation}/lib/words {installation}/share/keys")
    for name in ("lib/words", "share/keys"):
        (installation / name).parent.mkdir()
        (installation / name).write_text(f"{name[4:]}\n")
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("PATH", f"{installation}/bin:/usr/bin:/bin")
    outcome = await execute_unasked_command(workspace, "tool", sandbox=sandbox)
    assert (outcome["stdout"], outcome["exit_code"]) == (output, 1)


async def test_link_to_a_program_of_the_workspace_is_not_run(
    workspace: Workspace, sandbox: Sandbox, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install_program(workspace.root, "tool", "echo hostile")
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin/tool").symlink_to(workspace.root / "tool")
    monkeypatch.setenv("PATH", f"{tmp_path}/bin:/usr/bin:/bin")
    outcome = await execute_unasked_command(workspace, "tool", sandbox=sandbox)
    assert (outcome["stdout"], outcome["exit_code"] != 0) == ("", True)


async def test_variables_that_change_programs_are_left_out(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    hostile = ("CDPATH", "BASH_ENV", "RIPGREP_CONFIG_PATH", "GREP_OPTIONS", "AGENT_RUNTIME__INTERNAL_API_KEY")
    for name in hostile:
        monkeypatch.setenv(name, "hostile")
    monkeypatch.setenv("LD_LIBRARY_PATH", ":/opt/lib:.")
    shown = (await run_in_shell(workspace, "export -p", find_sandbox()))["stdout"]
    assert "hostile" not in shown
    assert "LD_LIBRARY_PATH='/opt/lib'" in shown.replace('"', "'")


@pytest.mark.skipif(not shutil.which("git"), reason="git is not installed.")
async def test_git_reads_the_settings_of_the_user_and_writes_nothing(
    workspace: Workspace, sandbox: Sandbox, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / ".gitconfig").write_text("[user]\n\tname = Ada\n")
    monkeypatch.setenv("HOME", str(tmp_path))
    await run_tool(workspace, "execute_command", {"command": "git init -q"})
    read = await execute_unasked_command(workspace, "git config user.name", sandbox=sandbox)
    assert (read["stdout"], read["stderr"]) == ("Ada\n", "")
    assert (await execute_unasked_command(workspace, "git config user.name Eve", sandbox=sandbox))["exit_code"] != 0


async def test_approved_command_is_not_confined(workspace: Workspace) -> None:
    outcome = await run_tool(workspace, "execute_command", {"command": "cat ../secret.txt; echo x > new"})
    assert (outcome["result"]["stdout"], (workspace.root / "new").read_text()) == ("secret", "x\n")


@pytest.mark.parametrize(
    ("found", "sentence"),
    [
        (Sandbox(SandboxKind.BWRAP), "bwrap, no writes, no reads outside the workspace, no network"),
        (NO_SANDBOX, "no sandbox on this system: limits and path checks only"),
    ],
)
def test_sandbox_is_described(found: Sandbox, sentence: str) -> None:
    assert found.describe() == f"Unasked commands: {sentence}."
