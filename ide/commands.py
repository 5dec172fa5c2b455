"""Run a command of the model in a folder of the workspace: as the user approved it, or confined."""

import os
from collections.abc import Mapping

from ide.command_paths import check_command_paths
from ide.process import (
    DEFAULT_LIMITS,
    MEGABYTE,
    CommandResult,
    Launch,
    Limits,
    build_environment,
    create_temporary_folder,
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
UNASKED_LIMITS = Limits(
    memory=512 * MEGABYTE,
    address_space=8_000 * MEGABYTE,
    file_size=256 * MEGABYTE,
    temporary_size=512 * MEGABYTE,
    total_memory=1_000 * MEGABYTE,
    processes=100,
    seconds=30,
)
"""The limits of commands that no user has approved.

The service tries its command table with 256 MB of memory, and a chain in it has at most 24 programs. The other numbers
are chosen, not measured; the seconds are half of the default.
"""
PASSED_VARIABLES = frozenset(["LANG", "LANGUAGE", "LOGNAME", "NO_COLOR", "SHELL", "TERM", "TZ", "USER"])
"""The variables that an unasked command gets, beside LC_*, HOME, TMPDIR and the lists of folders.

Others configure the shell (BASHOPTS, CDPATH) or the programs (RIPGREP_CONFIG_PATH), so that words mean other files.
"""
FOLDER_LISTS = ("PATH", "LD_LIBRARY_PATH", "LOCPATH")
"""The variables whose folders hold what a command runs."""


async def execute_command(
    workspace: Workspace,
    command: str,
    cwd: str | None = None,
    timeout: int = DEFAULT_COMMAND_SECONDS,  # noqa: ASYNC109
    shell: bool = False,
) -> CommandResult:
    """Run a command that the user approved. Raises ToolError or OSError."""
    folder = _locate_folder(workspace, command, cwd, timeout)
    with create_temporary_folder() as temporary:
        launch = Launch(parse_command(command, shell=shell), folder, build_environment(temporary), temporary)
        return await run_launch(launch, timeout, DEFAULT_LIMITS._replace(memory=workspace.command_memory))


async def execute_unasked_command(
    workspace: Workspace,
    command: str,
    cwd: str | None = None,
    timeout: int = DEFAULT_COMMAND_SECONDS,  # noqa: ASYNC109
    shell: bool = False,
    sandbox: Sandbox | None = None,
    limits: Limits = UNASKED_LIMITS,
) -> CommandResult:
    """Run a command that no user has approved: checked first, in the sandbox, with small limits.

    Raises ToolError, or OSError.
    """
    folder = _locate_folder(workspace, command, cwd, timeout)
    check_command_paths(workspace, command, cwd)
    sandbox = sandbox or find_sandbox()
    programs = {words[0].text for words in read_chain(command)}
    argv, access = parse_command(command, shell=shell), FULL_ACCESS
    with create_temporary_folder() as temporary:
        environment = _reduce_environment(build_environment(temporary), workspace, for_git="git" in programs)
        if sandbox.kind is not SandboxKind.NONE:
            access = list_access(workspace, temporary, programs, environment["PATH"])
        if sandbox.kind is SandboxKind.BWRAP:
            argv, access = wrap_with_bwrap(argv, access, folder), FULL_ACCESS
        launch = Launch(argv, folder, environment, temporary, access)
        result = await run_launch(launch, min(timeout, limits.seconds), limits)
    if result["timed_out"] and timeout > limits.seconds:
        result["stderr"] += f"\nstopped: a command that the user did not approve has {limits.seconds} s\n"
    return result


def _locate_folder(workspace: Workspace, command: str, cwd: str | None, seconds: int) -> str:
    """Check the arguments, and return the folder of the command. Raises ToolError."""
    if not 1 <= seconds <= MAX_COMMAND_SECONDS:
        raise ToolError(f"timeout must be between 1 and {MAX_COMMAND_SECONDS} seconds.")
    if "\0" in command:
        raise ToolError("The command holds a NUL character.")
    return os.path.join(workspace.root, *workspace.locate(cwd or "."))


def _reduce_environment(environment: Mapping[str, str], workspace: Workspace, *, for_git: bool) -> dict[str, str]:
    """Return the variables that change no word, no option and no program of a command.

    Git gets the user's settings. It runs unasked only if the policy trusts the configuration of the repository.
    """
    kept = {k: v for k, v in environment.items() if k in PASSED_VARIABLES or k.startswith("LC_")}
    lists = {k: _keep_trusted(environment[k], workspace) for k in FOLDER_LISTS if k in environment}
    kept |= {k: folders for k, folders in lists.items() if folders}
    home = {"HOME": environment["TMPDIR"]}
    if for_git:
        home = {k: v for k, v in environment.items() if k in ("HOME", "XDG_CONFIG_HOME") or k.startswith("GIT_")}
    return {"PATH": os.defpath} | kept | home | {"TMPDIR": environment["TMPDIR"], "MALLOC_ARENA_MAX": "2"}


def _keep_trusted(folders: str, workspace: Workspace) -> str:
    """Return the absolute folders of the list that are outside the workspace: what is inside may be hostile."""
    absolute = [folder for folder in folders.split(":") if folder.startswith("/")]
    return ":".join(folder for folder in absolute if not workspace.contains(os.path.realpath(folder)))
