"""Show a call that needs approval, and prompt the user for the decision."""

import asyncio
import difflib
import json
import os
import shlex
import subprocess
import tempfile
from collections.abc import Awaitable, Callable
from pathlib import Path, PurePath
from typing import Any

from ide.client import Message
from ide.commands import DEFAULT_COMMAND_SECONDS
from ide.screen import Screen
from ide.workspace import ToolError, Workspace
from textsafety import escape_invisible

LineReader = Callable[[str], Awaitable[str]]
"""A function that shows a prompt and returns the line that was typed.

Raises EOFError at the end of input, InputInterrupted on Ctrl-C.
"""

APPROVAL_PROMPT = "[a]pprove / [e]dit / [r]eject with feedback: "
LOCAL_PROMPT = "[a]pprove / [r]eject with feedback: "
"""The prompt for a command that the service sent without a question. An edit of it would not be in the audit."""
GRANT_PROMPT = "[a]pprove / for this [t]urn / for the [s]ession / [e]dit / [r]eject with feedback: "
GRANT_SCOPES = {"t": "turn", "turn": "turn", "s": "session", "session": "session"}
"""The answers that remember an approval, with its scope."""
NO_APPROVER = "no one is there to approve"
"""The feedback of a rejection without a user."""
MAX_PATTERN_LENGTH = 200
"""Characters of a proposed pattern that the prompt shows, some two lines; chosen, not measured."""


class InputInterrupted(Exception):
    """The user pressed Ctrl-C at a prompt."""


class Approver:
    """Decides on calls, with the user.

    `read_line` None: no one is there, and every call is rejected. `yes`: every call is approved without a prompt.
    """

    def __init__(
        self, screen: Screen, workspace: Workspace, read_line: LineReader | None, *, yes: bool = False
    ) -> None:
        self.screen, self.workspace, self.read_line, self.yes = screen, workspace, read_line, yes

    async def request_decision(self, call: dict[str, Any]) -> Message:
        """Show the call, and return the hitl_decision message on it. Raises EOFError or InputInterrupted."""
        self.show_call(call)
        if self.yes:
            self.screen.print_notice("Approved by --yes.")
            return _build_decision(call, "approve")
        if self.read_line is None:
            self.screen.print_notice(f"Rejected: {NO_APPROVER}.")
            return _build_decision(call, "reject", feedback=NO_APPROVER)
        return await self._prompt_for_decision(call, self.read_line)

    async def request_confirmation(self, call: dict[str, Any], reason: str) -> str | None:
        """Show a command that the service approved and the IDE does not. Return None if the user approves it.

        Otherwise return a sentence for the model. Raises EOFError or InputInterrupted.
        """
        self.show_call({**call, "metadata": {"reason": reason}})
        if self.yes:
            self.screen.print_notice("Approved by --yes.")
            return None
        while self.read_line:
            answer = (await self.read_line(LOCAL_PROMPT)).strip().lower()
            if answer in ("a", "approve"):
                return None
            if answer in ("r", "reject"):
                return f"{reason} The user rejected it: {(await self.read_line('why: ')).strip() or 'no reason given'}"
        self.screen.print_notice(f"Rejected: {NO_APPROVER}.")
        return f"{reason} It needs approval, and {NO_APPROVER}; use paths inside the workspace, in plain words."

    async def _prompt_for_decision(self, call: dict[str, Any], read_line: LineReader) -> Message:
        pattern = ((call.get("metadata") or {}).get("remember") or {}).get("pattern")
        while True:
            answer = (await read_line(GRANT_PROMPT if pattern else APPROVAL_PROMPT)).strip().lower()
            if answer in ("a", "approve"):
                return _build_decision(call, "approve")
            if pattern and answer in GRANT_SCOPES:
                return _build_decision(
                    call, "approve", remember=await self._prompt_for_grant(GRANT_SCOPES[answer], pattern, read_line)
                )
            if answer in ("r", "reject"):
                return _build_decision(call, "reject", feedback=(await read_line("why: ")).strip())
            if answer in ("e", "edit") and (changes := await self._edit_call(call)):
                return _build_decision(call, "edit", modified_arguments=changes)

    async def _prompt_for_grant(self, scope: str, proposed: str, read_line: LineReader) -> dict[str, Any]:
        """Return the grant to remember, with the pattern if the user types another one.

        The service refuses a pattern that does not match the call.
        """
        pattern = (await read_line(f"pattern [{escape_invisible(proposed)[:MAX_PATTERN_LENGTH]}]: ")).strip()
        return {"scope": scope} | ({"pattern": pattern} if pattern else {})

    def show_call(self, call: dict[str, Any]) -> None:
        """Show the call with the reason of the policy, a file as a diff."""
        name, arguments = call["tool_name"], call["arguments"]
        self.screen.print_text(f"{name} needs your approval", "bold yellow")
        for key in ("reason", "rule", "warning"):
            if value := (call.get("metadata") or {}).get(key) or call.get(key):
                self.screen.print_notice(f"{key}: {value}")
        match name:
            case "write_file":
                self.screen.print_diff(build_diff(self.workspace, arguments))
            case "execute_command":
                self._show_command(**arguments)
            case "create_directory":
                self.screen.print_text(f"+ {arguments.get('path')}/", "green")
            case _:
                self.screen.print_text(json.dumps(arguments, ensure_ascii=False, indent=2))

    def _show_command(self, command: str = "", cwd: str | None = None, timeout: int | None = None, **_: object) -> None:
        self.screen.print_text("$ " + command.replace("\n", "\n  "), "bold")
        self.screen.print_notice(
            f"in {self.workspace.root / (cwd or '.')}, at most {timeout or DEFAULT_COMMAND_SECONDS} s"
        )

    async def _edit_call(self, call: dict[str, Any]) -> dict[str, Any]:
        """Return the changed arguments, empty if there are none or they cannot be used."""
        try:
            changes = await edit_arguments(call["tool_name"], call["arguments"])
        except (OSError, ValueError) as error:
            self.screen.print_error(f"The edit cannot be used: {error}")
            return {}
        if not changes:
            self.screen.print_notice("Nothing was changed.")
        return changes


def _build_decision(call: dict[str, Any], decision: str, **more: Any) -> Message:
    return {"type": "hitl_decision", "call_id": call["call_id"], "decision": decision, **more}


NO_FILE = "/dev/null"
"""The name of a file that does not exist, in a diff."""


def build_diff(workspace: Workspace, arguments: dict[str, Any]) -> list[str]:
    """Return the change that write_file would make, as lines of a unified diff.

    A call that would fail or change nothing gives one line that says so.
    """
    path, content = arguments["path"], arguments["content"]
    try:
        old, name = workspace.read_bytes(path).decode(arguments.get("encoding") or "utf-8", "replace"), f"a/{path}"
    except FileNotFoundError:
        old, name = "", NO_FILE
    except (ToolError, OSError, LookupError) as error:
        return [f"This will fail: {error}"]
    lines = difflib.unified_diff(_make_diff_lines(old), _make_diff_lines(content), name, f"b/{path}", lineterm="")
    return list(lines) or [f"{path}: no change" if name != NO_FILE else f"+ {path}, empty"]


def _make_diff_lines(text: str) -> list[str]:
    """Return the lines of the text. A last line without a newline is marked as diff does."""
    *lines, last = text.split("\n")
    return [*lines, f"{last}\n\\ No newline at end of file"] if last else lines


async def edit_arguments(tool: str, arguments: dict[str, Any]) -> dict[str, Any]:
    """Return the arguments that the user changed in $EDITOR.

    A file is edited as its content, a command as its line, anything else as JSON. Raises ValueError if the result is no
    JSON object, is not UTF-8, or the editor fails. Raises OSError if the editor cannot be started.
    """
    key = {"write_file": "content", "execute_command": "command"}.get(tool)
    if key is None:
        text = await open_editor(json.dumps(arguments, ensure_ascii=False, indent=2), ".json")
        changed = json.loads(text)
        if not isinstance(changed, dict):
            raise ValueError("the arguments must stay a JSON object")
        return {k: v for k, v in changed.items() if k not in arguments or arguments[k] != v}
    suffix = PurePath(arguments["path"]).suffix if key == "content" else ".sh"
    before = arguments[key]
    after = await open_editor(before, suffix)
    if not before.endswith("\n") and (key == "command" or after == f"{before}\n"):
        after = after.removesuffix("\n")  # most editors end a file with one
    return {key: after} if after != before else {}


async def open_editor(text: str, suffix: str) -> str:
    """Return the text as the user leaves it in the editor. The suffix tells the editor the kind of text."""
    editor = shlex.split(os.environ.get("EDITOR") or os.environ.get("VISUAL") or "vi")
    with tempfile.TemporaryDirectory(prefix="ide-") as folder:
        file = Path(folder) / f"edit{escape_invisible(suffix)}"
        await asyncio.to_thread(file.write_bytes, text.encode("utf-8", "surrogatepass"))
        code = await asyncio.to_thread(subprocess.call, [*editor, str(file)])
        if code:
            raise ValueError(f"the editor {editor[0]} ended with code {code}")
        return (await asyncio.to_thread(file.read_bytes)).decode()
