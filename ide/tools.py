"""The six tools an agent may ask the IDE for, run for real inside one workspace."""

import asyncio
import inspect
import json
import os
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, cast, get_type_hints

from ide.files import create_directory, list_files, read_file, write_file
from ide.process import CommandResult, execute, parse_command
from ide.workspace import ToolError, Workspace

PACKAGE_PARENT = Path(__file__).resolve().parent.parent
MAX_COMMAND_SECONDS = 300
MAX_RESULTS = 1000
SEARCH_SECONDS = 30
SEARCH_OUTPUT_LIMIT = 20_000_000
"""Bytes; more than MOST_RESULTS lines of the length that is sent can take."""


async def run_tool(
    workspace: Workspace, name: str, arguments: Mapping[str, Any], *, approved: bool = True
) -> dict[str, Any]:
    """`{"result": ...}`, any JSON, or `{"error": "<what to do instead>"}`.

    A command no human has `approved` may not name a link that leads out of the workspace; one that was is not confined.
    """
    try:
        tool, given = _bind_arguments(name, arguments)
        if tool is execute_command and not approved:
            _refuse_links_out(workspace, **given)
        if inspect.iscoroutinefunction(tool):
            return {"result": await tool(workspace, **given)}
        return {"result": await asyncio.to_thread(tool, workspace, **given)}
    except ToolError as error:
        return {"error": str(error)}
    except UnicodeError:
        return {"error": "An argument holds characters that are no valid text; leave them out."}
    except OSError as error:
        return {
            "error": _explain_error(error, arguments.get("path") or arguments.get("cwd") or arguments.get("command"))
        }


async def execute_command(
    workspace: Workspace,
    command: str,
    cwd: str | None = None,
    timeout: int = 30,  # noqa: ASYNC109
    shell: bool = False,
) -> CommandResult:
    if not 1 <= timeout <= MAX_COMMAND_SECONDS:
        raise ToolError(f"timeout must be between 1 and {MAX_COMMAND_SECONDS} seconds.")
    if "\0" in command:
        raise ToolError("The command holds a NUL character.")
    folder = workspace.root.joinpath(*workspace.locate(cwd or "."))
    return await execute(parse_command(command, shell=shell), folder, timeout)


def _refuse_links_out(workspace: Workspace, command: str, cwd: str | None = None, **_: object) -> None:
    for word in command.split()[1:]:
        if not word.startswith("/"):
            workspace.locate(os.path.join(cwd or ".", word))


async def search_in_code(
    workspace: Workspace,
    query: str,
    path: str = ".",
    file_pattern: str | None = None,
    case_sensitive: bool = False,
    regex: bool = False,
    max_results: int = 100,
) -> list[dict[str, Any]]:
    """Each match as path, line (from 1) and text."""
    if not 1 <= max_results <= MAX_RESULTS:
        raise ToolError(f"max_results must be between 1 and {MAX_RESULTS}.")
    given = json.dumps([str(workspace.root), query, path, file_pattern, case_sensitive, regex, max_results])
    argv = [sys.executable, "-m", "ide.search", given]
    outcome = await execute(argv, PACKAGE_PARENT, SEARCH_SECONDS, SEARCH_OUTPUT_LIMIT)
    if outcome["timed_out"] or outcome["exit_code"]:
        raise ToolError(
            f"The search did not end within {SEARCH_SECONDS} s; use a simpler expression or a smaller folder."
        )
    answer = json.loads(outcome["stdout"])
    if "errno" in answer:
        raise OSError(answer["errno"], os.strerror(answer["errno"]))
    if "error" in answer:
        raise ToolError(answer["error"])
    return cast(list[dict[str, Any]], answer["result"])


TOOLS: dict[str, Callable[..., Any]] = {
    tool.__name__: tool
    for tool in (read_file, write_file, list_files, create_directory, execute_command, search_in_code)
}


def _bind_arguments(name: str, arguments: Mapping[str, Any]) -> tuple[Callable[..., Any], dict[str, Any]]:
    tool = TOOLS.get(name)
    if tool is None:
        raise ToolError(f"This IDE has no tool {name!r}; it has {', '.join(TOOLS)}.")
    given = {k: v for k, v in arguments.items() if v is not None}
    try:
        inspect.signature(tool).bind(None, **given)
    except TypeError as error:
        raise ToolError(f"The arguments of {name} are not valid: {error}.") from None
    kinds = get_type_hints(tool)
    for key, value in given.items():
        if not isinstance(value, kinds[key]) or (isinstance(value, bool) and kinds[key] is not bool):
            raise ToolError(
                f"The argument {key} of {name} must be of type {getattr(kinds[key], '__name__', kinds[key])}."
            )
    return tool, given


def _explain_error(error: OSError, what: object) -> str:
    match error:
        case FileNotFoundError():
            return f"There is no {what!r} in the workspace, or a folder on the way is missing; see list_files."
        case NotADirectoryError():
            return f"{what!r} is not a folder, or passes through something that is none."
        case IsADirectoryError():
            return f"{what!r} is a folder; name a file in it."
        case FileExistsError():
            return f"{what!r} exists."
        case PermissionError():
            return (
                f"The user may not do this with {what!r}; ask the user to change its permissions, or use another path."
            )
    return f"{what!r}: {error.strerror or error}."
