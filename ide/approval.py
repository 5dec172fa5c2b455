"""Show what an agent wants to do, and ask the user."""

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
from ide.screen import Screen
from ide.workspace import ToolError, Workspace
from textsafety import escape_invisible

LineReader = Callable[[str], Awaitable[str]]
"""Shows a prompt, gives the line that was typed. Raises EOFError at the end of input, Stopped on Ctrl-C."""

APPROVAL_PROMPT = "[a]pprove / [e]dit / [r]eject with feedback: "
GRANT_PROMPT = "[a]pprove / for this [t]urn / for the [s]ession / [e]dit / [r]eject with feedback: "
GRANT_SCOPES = {"t": "turn", "turn": "turn", "s": "session", "session": "session"}
NO_APPROVER = "no one is there to approve"


class InputInterrupted(Exception):
    """The user pressed Ctrl-C at a question."""


class Approver:
    """`ask` None: no one is there, everything is rejected, unless `yes`: everything is approved."""

    def __init__(self, screen: Screen, workspace: Workspace, ask: LineReader | None, *, yes: bool = False) -> None:
        self.screen, self.workspace, self.ask, self.yes = screen, workspace, ask, yes

    async def request_decision(self, call: dict[str, Any]) -> Message:
        """A hitl_decision."""
        self.show_call(call)
        if self.yes:
            self.screen.print_notice("Approved by --yes.")
            return _build_decision(call, "approve")
        if self.ask is None:
            self.screen.print_notice(f"Rejected: {NO_APPROVER}.")
            return _build_decision(call, "reject", feedback=NO_APPROVER)
        return await self._prompt_for_decision(call, self.ask)

    async def _prompt_for_decision(self, call: dict[str, Any], ask: LineReader) -> Message:
        proposed = ((call.get("metadata") or {}).get("remember") or {}).get("pattern")
        while True:
            answer = (await ask(GRANT_PROMPT if proposed else APPROVAL_PROMPT)).strip().lower()
            if answer in ("a", "approve"):
                return _build_decision(call, "approve")
            if proposed and answer in GRANT_SCOPES:
                return _build_decision(
                    call, "approve", remember=await self._prompt_for_grant(GRANT_SCOPES[answer], proposed, ask)
                )
            if answer in ("r", "reject"):
                return _build_decision(call, "reject", feedback=(await ask("why: ")).strip())
            if answer in ("e", "edit") and (changes := await self._edit_call(call)):
                return _build_decision(call, "edit", modified_arguments=changes)

    async def _prompt_for_grant(self, scope: str, proposed: str, ask: LineReader) -> dict[str, Any]:
        """The pattern as the user narrows or widens it; the service refuses one that does not match the call."""
        pattern = (await ask(f"pattern [{escape_invisible(proposed)[:200]}]: ")).strip()
        return {"scope": scope} | ({"pattern": pattern} if pattern else {})

    def show_call(self, call: dict[str, Any]) -> None:
        name, arguments = call["tool_name"], call["arguments"]
        self.screen.print_text(f"{name} needs your approval", "bold yellow")
        for key in ("reason", "rule", "warning"):
            if said := (call.get("metadata") or {}).get(key) or call.get(key):
                self.screen.print_notice(f"{key}: {said}")
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
        self.screen.print_notice(f"in {self.workspace.root / (cwd or '.')}, at most {timeout or 30} s")

    async def _edit_call(self, call: dict[str, Any]) -> dict[str, Any]:
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


def build_diff(workspace: Workspace, arguments: dict[str, Any]) -> list[str]:
    """What write_file would change on disk, as lines of a unified diff; a line of its own if it cannot be done."""
    path, content = arguments["path"], arguments["content"]
    try:
        old, name = workspace.read_bytes(path).decode(arguments.get("encoding") or "utf-8", "replace"), f"a/{path}"
    except FileNotFoundError:
        old, name = "", "/dev/null"
    except (ToolError, OSError, LookupError) as error:
        return [f"This will fail: {error}"]
    lines = difflib.unified_diff(_make_diff_lines(old), _make_diff_lines(content), name, f"b/{path}", lineterm="")
    return list(lines) or [f"{path}: no change" if name != "/dev/null" else f"+ {path}, empty"]


def _make_diff_lines(text: str) -> list[str]:
    *lines, last = text.split("\n")
    return [*lines, f"{last}\n\\ No newline at end of file"] if last else lines


async def edit_arguments(tool: str, arguments: dict[str, Any]) -> dict[str, Any]:
    """The arguments the user changed in $EDITOR. Raises ValueError if they are no longer arguments."""
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
    editor = shlex.split(os.environ.get("EDITOR") or os.environ.get("VISUAL") or "vi")
    with tempfile.TemporaryDirectory(prefix="ide-") as folder:
        file = Path(folder) / f"edit{escape_invisible(suffix)}"
        await asyncio.to_thread(file.write_bytes, text.encode("utf-8", "surrogatepass"))
        code = await asyncio.to_thread(subprocess.call, [*editor, str(file)])
        if code:
            raise ValueError(f"{editor[0]} ended with {code}")
        return (await asyncio.to_thread(file.read_bytes)).decode()
