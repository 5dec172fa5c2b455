"""Run the six tools of the IDE inside one workspace."""

import asyncio
import errno
import inspect
import json
import os
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, get_type_hints

from ide.command_paths import LeadsOut, check_command_paths
from ide.commands import execute_command, execute_unasked_command
from ide.files import create_directory, list_files, read_file, write_file
from ide.process import execute
from ide.search import SearchAnswer, SearchMatch
from ide.shell_words import Unreadable
from ide.workspace import ToolError, Workspace

PACKAGE_PARENT = Path(__file__).resolve().parent.parent
MAX_RESULTS = 1000
"""The most matches of a search. The wire contract fixes it."""
SEARCH_SECONDS = 30
"""Seconds of a search, as many as an unasked command has."""
SEARCH_OUTPUT_LIMIT = 20_000_000
"""Bytes of a search's output, more than MAX_RESULTS matches with the longest paths and lines take."""
SUBJECT_LIMIT = 200
"""Characters of a path or a command in the sentence about an error, some two lines; chosen, not measured."""


async def run_tool(
    workspace: Workspace, name: str, arguments: Mapping[str, Any], *, approved: bool = True
) -> dict[str, Any]:
    """Run a tool, and return `{"result": ...}`, any JSON, or `{"error": "<what to do instead>"}`.

    A command that no user has `approved` may not leave the workspace, and is confined. An approved one is not. `Chat`
    knows which is which, by the decisions of the user and by what the service says about the call.
    """
    if not workspace.root.is_dir():
        return {"error": f"The folder of the workspace, {workspace.root}, is gone; ask the user to restore it."}
    try:
        tool, kwargs = _bind_arguments(name, arguments)
        if tool is execute_command and not approved:
            tool = execute_unasked_command
        if inspect.iscoroutinefunction(tool):
            return {"result": await tool(workspace, **kwargs)}
        return {"result": await asyncio.to_thread(tool, workspace, **kwargs)}
    except ToolError as error:
        return {"error": str(error)}
    except UnicodeError:
        return {"error": "An argument holds characters that are no valid text; leave them out."}
    except OSError as error:
        subject = arguments.get("path") or arguments.get("cwd") or arguments.get("command") or "."
        return {"error": _explain_error(error, str(subject)[:SUBJECT_LIMIT])}


async def find_command_risk(
    workspace: Workspace, arguments: Mapping[str, Any], *, is_certain: bool = False
) -> str | None:
    """Return why a command needs the user's approval, or None if it stays in the workspace.

    `is_certain`: only if a path does lead out, not if the words cannot be read. Arguments that are not valid have no
    risk, as they are not run.
    """
    try:
        _, kwargs = _bind_arguments("execute_command", arguments)
        await asyncio.to_thread(check_command_paths, workspace, kwargs["command"], kwargs.get("cwd"))
    except LeadsOut as error:
        return str(error)
    except Unreadable as error:
        return None if is_certain else str(error)
    except (ToolError, OSError, UnicodeError):
        return None
    return None


async def search_in_code(
    workspace: Workspace,
    query: str,
    path: str = ".",
    file_pattern: str | None = None,
    case_sensitive: bool = False,
    regex: bool = False,
    max_results: int = 100,  # the default of the tool's schema
) -> list[SearchMatch]:
    """Search the files of a folder. Raises ToolError or OSError."""
    if not 1 <= max_results <= MAX_RESULTS:
        raise ToolError(f"max_results must be between 1 and {MAX_RESULTS}.")
    request = json.dumps([str(workspace.root), query, path, file_pattern, case_sensitive, regex, max_results])
    argv = [sys.executable, "-m", "ide.search", request]
    outcome = await execute(argv, PACKAGE_PARENT, SEARCH_SECONDS, SEARCH_OUTPUT_LIMIT)
    if outcome["timed_out"]:
        raise ToolError(
            f"The search did not end within {SEARCH_SECONDS} s; use a simpler expression or a smaller folder."
        )
    if outcome["exit_code"]:
        last_line = outcome["stderr"].strip().rpartition("\n")[2] or f"it ended with code {outcome['exit_code']}"
        raise ToolError(f"The search failed: {last_line}. Use a simpler expression or a smaller folder.")
    answer: SearchAnswer = json.loads(outcome["stdout"])
    if "errno" in answer:
        raise OSError(answer["errno"], os.strerror(answer["errno"]))
    if "error" in answer:
        raise ToolError(answer["error"])
    return answer["result"]


TOOLS: dict[str, Callable[..., Any]] = {
    tool.__name__: tool
    for tool in (read_file, write_file, list_files, create_directory, execute_command, search_in_code)
}


def _bind_arguments(name: str, arguments: Mapping[str, Any]) -> tuple[Callable[..., Any], dict[str, Any]]:
    """Return the tool and its keyword arguments, without those that are null. Raises ToolError."""
    tool = TOOLS.get(name)
    if tool is None:
        raise ToolError(f"This IDE has no tool {name!r}; it has {', '.join(TOOLS)}.")
    kwargs = {k: v for k, v in arguments.items() if v is not None}
    try:
        inspect.signature(tool).bind(None, **kwargs)
    except TypeError as error:
        raise ToolError(f"The arguments of {name} are not valid: {error}.") from None
    types = get_type_hints(tool)
    for key, value in kwargs.items():
        if not isinstance(value, types[key]) or (isinstance(value, bool) and types[key] is not bool):
            raise ToolError(
                f"The argument {key} of {name} must be of type {getattr(types[key], '__name__', types[key])}."
            )
    return tool, kwargs


def _explain_error(error: OSError, name: str) -> str:
    """Return a sentence about the file or program `name` that the model can act on."""
    match error:
        case OSError(errno=errno.E2BIG):
            return f"The command {name!r} is too long for this system; write it to a file, and run that."
        case FileNotFoundError():
            return f"There is no {name!r} in the workspace, or a folder on the way is missing; see list_files."
        case NotADirectoryError():
            return f"{name!r} is not a folder, or a name on the way to it is not one."
        case IsADirectoryError():
            return f"{name!r} is a folder; name a file in it."
        case FileExistsError():
            return f"{name!r} exists."
        case PermissionError():
            return (
                f"The user may not do this with {name!r}; ask the user to change its permissions, or use another path."
            )
    return f"{name!r}: {error.strerror or error}."
