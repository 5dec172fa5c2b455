"""Run a command of the model in a folder of the workspace: as the user approved it, or confined."""

import os
import tempfile

from ide.command_paths import check_command_paths
from ide.process import (
    DEFAULT_LIMITS,
    UNASKED_LIMITS,
    CommandResult,
    Launch,
    build_environment,
    parse_command,
    run_launch,
)
from ide.sandbox import FULL_ACCESS, Sandbox, SandboxKind, find_sandbox, list_access, wrap_with_bwrap
from ide.shell_words import read_chain
from ide.workspace import ToolError, Workspace

MAX_COMMAND_SECONDS = 300
"""The longest time limit of a command, in seconds. The wire contract fixes it."""
DEFAULT_COMMAND_SECONDS = 60
"""Seconds of a command without a time limit, the default that the tool's schema gives the model. The wire contract
fixes it."""
UNASKED_SECONDS = 30
"""The longest time limit of a command that no user has approved. Chosen, not measured: half of the default."""
PASSED_VARIABLES = frozenset(
    ["LANG", "LANGUAGE", "LOCPATH", "LOGNAME", "NO_COLOR", "SHELL", "TERM", "TZ", "USER", "LD_LIBRARY_PATH"]
)
"""The variables that an unasked command gets, beside LC_*, PATH, HOME and TMPDIR.

Others configure the shell (BASHOPTS, CDPATH) or the programs (RIPGREP_CONFIG_PATH), so that words mean other files.
"""


async def execute_command(
    workspace: Workspace,
    command: str,
    cwd: str | None = None,
    timeout: int = DEFAULT_COMMAND_SECONDS,  # noqa: ASYNC109
    shell: bool = False,
) -> CommandResult:
    """Run a command that the user approved. Raises ToolError or OSError."""
    folder = _locate_folder(workspace, command, cwd, timeout)
    with _create_temporary_folder() as temporary:
        launch = Launch(parse_command(command, shell=shell), folder, build_environment(temporary), temporary)
        return await run_launch(launch, timeout, DEFAULT_LIMITS._replace(memory=workspace.command_memory))


async def execute_unasked_command(
    workspace: Workspace,
    command: str,
    cwd: str | None = None,
    timeout: int = DEFAULT_COMMAND_SECONDS,  # noqa: ASYNC109
    shell: bool = False,
    sandbox: Sandbox | None = None,
) -> CommandResult:
    """Run a command that no user has approved: checked first, in the sandbox, with small limits.

    Raises ToolError, or OSError.
    """
    folder = _locate_folder(workspace, command, cwd, timeout)
    check_command_paths(workspace, command, cwd)
    sandbox = sandbox or find_sandbox()
    programs = {words[0].text for words in read_chain(command)}
    argv, access = parse_command(command, shell=shell), FULL_ACCESS
    with _create_temporary_folder() as temporary:
        if sandbox.kind is not SandboxKind.NONE:
            access = list_access(workspace.root, temporary, programs)
        if sandbox.kind is SandboxKind.BWRAP:
            argv, access = wrap_with_bwrap(argv, access, folder), FULL_ACCESS
        environment = build_environment(temporary)
        if "git" not in programs:  # it runs unasked only if the policy trusts its configuration
            environment = _reduce_environment(environment, temporary)
        launch = Launch(argv, folder, environment, temporary, access)
        return await run_launch(launch, min(timeout, UNASKED_SECONDS), UNASKED_LIMITS)


def _locate_folder(workspace: Workspace, command: str, cwd: str | None, seconds: int) -> str:
    """Check the arguments, and return the folder of the command. Raises ToolError."""
    if not 1 <= seconds <= MAX_COMMAND_SECONDS:
        raise ToolError(f"timeout must be between 1 and {MAX_COMMAND_SECONDS} seconds.")
    if "\0" in command:
        raise ToolError("The command holds a NUL character.")
    return os.path.join(workspace.root, *workspace.locate(cwd or "."))


def _create_temporary_folder() -> tempfile.TemporaryDirectory[str]:
    return tempfile.TemporaryDirectory(prefix="ide-", ignore_cleanup_errors=True)


def _reduce_environment(environment: dict[str, str], home: str) -> dict[str, str]:
    """Return the variables that change no word and no option of a command."""
    kept = {k: v for k, v in environment.items() if k in PASSED_VARIABLES or k.startswith("LC_")}
    path = ":".join(folder for folder in environment.get("PATH", os.defpath).split(":") if folder.startswith("/"))
    return kept | {"PATH": path, "HOME": home, "TMPDIR": environment["TMPDIR"], "MALLOC_ARENA_MAX": "2"}
