"""The chat plays whole turns over real files, with a scripted service and a user whose input is given."""

import io
import json
import shlex
import sys
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from ide.approval import NO_APPROVER, Approver
from ide.chat import Chat
from ide.client import ServiceClient
from ide.repl import Repl
from ide.sandbox import NO_SANDBOX, find_sandbox
from ide.screen import Screen
from ide.workspace import Workspace
from tests.support.scripted_service import (
    DISCONNECT,
    ScriptedService,
    agent_switch_chunk,
    error_chunk,
    text_chunk,
    token_chunk,
    tool_call_chunk,
)


class Terminal:
    """An IDE whose user types `lines`, at the prompt and at questions."""

    def __init__(
        self, service: ScriptedService, workspace: Workspace, *lines: str, user_present: bool = True, yes: bool = False
    ):
        self._lines, self._shown = iter(lines), io.StringIO()
        screen = Screen(Console(file=self._shown, width=200))
        client = ServiceClient(service.url, delays=(0, 0), notice=screen.print_notice)
        approver = Approver(screen, workspace, self._read_line if user_present else None, yes=yes)
        self.chat = Chat(client, workspace, screen, approver, "s-1")
        self.loop = Repl(self.chat, self._read_line, interactive=True)

    async def _read_line(self, prompt: str) -> str:
        self.chat.screen.print_text(prompt, end="")
        try:
            return next(self._lines)
        except StopIteration:
            raise EOFError from None

    async def capture_output(self, resume: bool = False) -> str:
        """Type all lines; return everything that was shown."""
        async with self.chat.client:
            if resume:
                await self.loop.await_interruptibly(self.chat.resume_session("s-1"))
            await self.loop.process_lines()
        return self._shown.getvalue()


def result_message(value: Any, call_id: str = "call_1", tool: str = "read_file") -> dict[str, Any]:
    return {"type": "tool_result", "call_id": call_id, "tool_name": tool, "result": value}


def decision_message(what: str, **more: Any) -> dict[str, Any]:
    return {"type": "hitl_decision", "call_id": "call_1", "decision": what, **more}


def user_message(text: str) -> dict[str, Any]:
    return {"type": "user_message", "content": text, "role": "user"}


async def test_an_answer_is_shown_once_with_its_agent_and_its_cost(
    service: ScriptedService, workspace: Workspace
) -> None:
    usage = {"type": "usage", "prompt_tokens": 7, "completion_tokens": 2, "total_tokens": 9, "model_calls": 2}
    service.add_scripts(
        [agent_switch_chunk("coder"), token_chunk("Hel"), token_chunk("lo"), usage, text_chunk("Hello")]
    )
    shown = await Terminal(service, workspace, "hi").capture_output()
    assert "orchestrator -> coder: it is code (confidence high, by llm)\nHello" in shown
    assert "9 tokens (7 in, 2 out), model calls: 2" in shown
    assert shown.count("Hello") == 1
    assert shown.endswith("coder> ")


async def test_cost_of_a_turn_is_the_sum_of_its_runs(service: ScriptedService, workspace: Workspace) -> None:
    (workspace.root / "a.txt").write_text("content")
    counts = {"prompt_tokens": 1000, "cached_tokens": 800, "completion_tokens": 50, "total_tokens": 1050}
    usage = {"type": "usage", **counts, "model_calls": 1, "cost": 0.1, "currency": "EUR"}
    other = {**usage, "cost": 0.2, "unpriced_calls": 1, "estimated_calls": 1}
    service.add_scripts([usage, tool_call_chunk("read_file", path="a.txt")], [other, text_chunk("Done")])
    shown = await Terminal(service, workspace, "read it").capture_output()
    whole = "about 2100 tokens (2000 in, 1600 of them cached, 100 out), model calls: 2 (1 of unknown price), 0.3 EUR"
    assert whole in shown


async def test_tool_is_executed_and_its_result_is_sent(service: ScriptedService, workspace: Workspace) -> None:
    (workspace.root / "a.txt").write_text("content")
    service.add_scripts(
        [tool_call_chunk("read_file", path="a.txt")], [tool_call_chunk("read_file", path="b.txt")], [text_chunk("Done")]
    )
    await Terminal(service, workspace, "read it").capture_output()
    one, two, three = service.messages
    assert (one, two) == (user_message("read it"), result_message("content"))
    assert three["error"].startswith("There is no 'b.txt'")


async def test_write_shows_its_diff_and_waits_for_approval(service: ScriptedService, workspace: Workspace) -> None:
    file = workspace.root / "a.txt"
    file.write_text("one\ntwo\n")
    write: dict[str, Any] = {"path": "a.txt", "content": "one\n2\n\x1b[2J"}
    asks = tool_call_chunk("write_file", requires_approval=True, **write) | {
        "metadata": {"rule": "writes.ask", "reason": "It writes."}
    }
    service.add_scripts([asks], [tool_call_chunk("write_file", **write)], [text_chunk("Written")])
    shown = await Terminal(service, workspace, "write", "what?", "a").capture_output()
    assert "rule: writes.ask" in shown
    assert "--- a/a.txt\n+++ b/a.txt\n@@ -1,2 +1,3 @@\n one\n-two\n+2\n+\\x1b[2J\n" in shown
    assert shown.count("[a]pprove") == 2
    assert file.read_text() == write["content"]
    written = result_message("Replaced a.txt, 10 bytes.", tool="write_file")
    assert service.messages == [user_message("write"), decision_message("approve"), written]


async def test_rejection_sends_the_feedback_and_executes_nothing(
    service: ScriptedService, workspace: Workspace
) -> None:
    service.add_scripts(
        [tool_call_chunk("execute_command", requires_approval=True, command="touch x", cwd="sub", timeout=9)],
        [text_chunk("All right")],
    )
    shown = await Terminal(service, workspace, "go", "r", "not now").capture_output()
    assert f"$ touch x\nin {workspace.root}/sub, at most 9 s" in shown
    assert service.messages[1:] == [decision_message("reject", feedback="not now")]
    assert not (workspace.root / "x").exists()


@pytest.fixture
def editor(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Set an editor that replaces `draft` by `EDITED` everywhere, and ends the file with a newline, as editors do."""
    script = tmp_path / "editor.py"
    script.write_text(
        "import pathlib, sys\n"
        "file = pathlib.Path(sys.argv[1])\n"
        "file.write_text(file.read_text().replace('draft', 'EDITED' + file.suffix).rstrip() + '\\n')\n"
    )
    monkeypatch.setenv("EDITOR", shlex.join([sys.executable, str(script)]))


@pytest.mark.parametrize(
    ("tool", "arguments", "changes"),
    [
        ("write_file", {"path": "a.md", "content": "draft\n"}, {"content": "EDITED.md\n"}),
        ("execute_command", {"command": "echo draft", "timeout": 5}, {"command": "echo EDITED.sh"}),
        ("create_directory", {"path": "draft", "recursive": True}, {"path": "EDITED.json"}),
    ],
)
@pytest.mark.usefixtures("editor")
async def test_edit_sends_only_the_changed_arguments(
    service: ScriptedService, workspace: Workspace, tool: str, arguments: dict[str, Any], changes: dict[str, Any]
) -> None:
    service.add_scripts([tool_call_chunk(tool, requires_approval=True, **arguments)], [text_chunk("Done")])
    await Terminal(service, workspace, "go", "e").capture_output()
    assert service.messages[1] == decision_message("edit", modified_arguments=changes)


@pytest.mark.usefixtures("editor")
async def test_refused_or_empty_edit_prompts_again(service: ScriptedService, workspace: Workspace) -> None:
    asks = tool_call_chunk("write_file", requires_approval=True, path="a.md", content="draft")
    service.add_scripts([asks], [error_chunk("edit_refused")], [text_chunk("All right")])
    shown = await Terminal(service, workspace, "go", "e", "r", "no").capture_output()
    assert "edit_refused: It failed." in shown
    assert [m.get("decision") for m in service.messages] == [None, "edit", "reject"]
    service.add_scripts(
        [tool_call_chunk("write_file", requires_approval=True, path="a.md", content="as it is")],
        [text_chunk("All right")],
    )
    assert "Nothing was changed." in await Terminal(service, workspace, "go", "e", "r", "no").capture_output()


async def test_nothing_is_approved_without_a_user(service: ScriptedService, workspace: Workspace) -> None:
    service.add_scripts(
        [tool_call_chunk("create_directory", requires_approval=True, path="new")], [text_chunk("All right")]
    )
    await Terminal(service, workspace, "go", user_present=False).capture_output()
    assert service.messages[1:] == [decision_message("reject", feedback=NO_APPROVER)]


def history_response(*messages: dict[str, Any]) -> dict[str, Any]:
    return {"messages": list(messages), "message_count": len(messages), "current_agent": "coder"}


def assistant_call(tool: str, **arguments: Any) -> dict[str, Any]:
    function = {"name": tool, "arguments": json.dumps(arguments)}
    return {"role": "assistant", "content": None, "tool_calls": [{"id": "call_1", "function": function}]}


async def test_pause_survives_a_restart_of_the_ide(service: ScriptedService, workspace: Workspace) -> None:
    wants = {"call_id": "call_1", "tool_name": "create_directory", "arguments": {"path": "new"}, "reason": "It writes."}
    service.rest["/sessions/s-1/pending-approvals"] = {"pending_approvals": [wants]}
    service.rest["/sessions/s-1/history"] = history_response(assistant_call("create_directory", path="new"))
    last_run = [tool_call_chunk("create_directory", requires_approval=True, path="new")]
    service.add_scripts(last_run, [tool_call_chunk("create_directory", path="new")], [text_chunk("Done")])
    shown = await Terminal(service, workspace, "a").capture_output(resume=True)
    assert "Resumed session s-1: 1 messages, agent coder." in shown
    assert service.messages == [decision_message("approve"), result_message("Created new.", tool="create_directory")]


@pytest.mark.usefixtures("editor")
async def test_refused_edit_of_a_resumed_pause_prompts_again(service: ScriptedService, workspace: Workspace) -> None:
    wants = {"call_id": "call_1", "tool_name": "create_directory", "arguments": {"path": "draft"}, "reason": "."}
    service.rest["/sessions/s-1/pending-approvals"] = {"pending_approvals": [wants]}
    service.rest["/sessions/s-1/history"] = history_response(assistant_call("create_directory", path="draft"))
    service.add_scripts([], [error_chunk("edit_refused")], [text_chunk("All right")])
    await Terminal(service, workspace, "e", "r", "no").capture_output(resume=True)
    assert [m["decision"] for m in service.messages] == ["edit", "reject"]


@pytest.mark.parametrize(("tool", "goes_on"), [("read_file", True), ("execute_command", False)])
async def test_only_a_read_call_is_repeated_after_a_crash(
    service: ScriptedService, workspace: Workspace, tool: str, goes_on: bool
) -> None:
    (workspace.root / "a.txt").write_text("content")
    arguments: dict[str, Any] = {"path": "a.txt"} if goes_on else {"command": "touch b.txt"}
    service.rest["/sessions/s-1/pending-approvals"] = {"pending_approvals": []}
    service.rest["/sessions/s-1/history"] = history_response(assistant_call(tool, **arguments))
    service.add_scripts([tool_call_chunk(tool, **arguments)], [text_chunk("Done")])
    shown = await Terminal(service, workspace).capture_output(resume=True)
    assert (service.messages == [result_message("content")]) is goes_on
    assert ("your next message closes it" in shown) is not goes_on
    assert not (workspace.root / "b.txt").exists()


async def test_lost_run_is_reported_with_the_history(service: ScriptedService, workspace: Workspace) -> None:
    service.rest["/sessions/s-1/pending-approvals"] = {"pending_approvals": []}
    service.rest["/sessions/s-1/history"] = history_response({"role": "user", "content": "do it"})
    service.add_scripts([token_chunk("I wi"), DISCONNECT], [])
    shown = await Terminal(service, workspace, "do it").capture_output()
    assert "I wi\nConnection lost" in shown
    assert "The session holds 1 messages; the last ones are:\nuser: do it" in shown


async def test_prompt_commands_work(service: ScriptedService, workspace: Workspace) -> None:
    service.rest["/sessions/s-1/history"] = history_response({"role": "user", "content": "earlier"})
    session = {
        "session_id": "s-9",
        "last_activity": "2025-01-01T00:00:00+00:00",
        "title": "[bold]T",
        "message_count": 3,
    }
    service.rest["/sessions"] = {"sessions": [session | {"current_agent": "debug"}], "total": 1}
    service.add_scripts([agent_switch_chunk("ask") | {"is_final": True}], [text_chunk("It is.")])
    lines = ("/agent ask", "/agent ask is it?", "/history", "/sessions", "/new", "/what", "/resume s-2", "/quit", "x")
    shown = await Terminal(service, workspace, *lines).capture_output()
    to_ask = {"type": "switch_agent", "agent_type": "ask"}
    assert service.messages == [to_ask, {**to_ask, "content": "is it?"}]
    for text in ("user: earlier", "s-9  2025-01-01T00:00:00  debug  3 messages  [bold]T", "Session ide-", "/cancel"):
        assert text in shown
    assert "There is no session s-2 yet" in shown
    assert "There is no command /what.\n/agent NAME" in shown


async def test_help_and_missing_command_arguments_are_explained(service: ScriptedService, workspace: Workspace) -> None:
    service.rest["/agents"] = [{"type": "coder"}, {"type": "ask"}]
    shown = await Terminal(service, workspace, "/help", "/new now", "/agent").capture_output()
    assert shown.count("/agent NAME [message]  hand") == 2
    assert "There is no command" not in shown
    assert "Name an agent: /agent NAME [message].\nThere are coder, ask.\n" in shown
    assert service.messages == []


async def test_the_newest_sessions_are_shown_with_the_newest_last(
    service: ScriptedService, workspace: Workspace
) -> None:
    about = {"last_activity": "2025-01-01T00:00:00+00:00", "message_count": 3, "current_agent": "ask"}
    newest_first = [{"session_id": name, **about} for name in ("s-3", "s-2")]
    service.rest["/sessions"] = {"sessions": newest_first, "total": 57}
    shown = await Terminal(service, workspace, "/sessions").capture_output()
    assert [line.split()[0] for line in shown.splitlines() if line.startswith("s-")] == ["s-2", "s-3"]
    assert "The newest 2 of 57 sessions:" in shown
    assert [request.path for request in service.requests] == ["/sessions?limit=20"]


async def test_a_run_without_a_model_call_has_no_cost(service: ScriptedService, workspace: Workspace) -> None:
    nothing = {"type": "usage", "prompt_tokens": 0, "completion_tokens": 0, "total_tokens": 0, "model_calls": 0}
    service.add_scripts([nothing, agent_switch_chunk("ask") | {"is_final": True}])
    assert "tokens" not in await Terminal(service, workspace, "/agent ask").capture_output()


async def test_a_failure_is_shown_with_its_code_and_the_next_message_works(
    service: ScriptedService, workspace: Workspace
) -> None:
    terminal = Terminal(service, workspace, "one", "two")
    service.add_scripts([error_chunk("llm_unavailable")], [text_chunk("Hello")])
    shown = await terminal.capture_output()
    assert "llm_unavailable: It failed." in shown
    assert "Hello" in shown
    assert not terminal.chat.has_failed


async def test_approval_can_be_remembered_and_a_refused_one_is_repeated(
    service: ScriptedService, workspace: Workspace
) -> None:
    metadata = {"rule": "write.file", "reason": "It writes.", "remember": {"pattern": "a.py"}}
    asked = {**tool_call_chunk("write_file", requires_approval=True, path="a.py", content="x\n"), "metadata": metadata}
    ran = tool_call_chunk("write_file", path="a.py", content="x\n")
    passed = {**tool_call_chunk("create_directory", call_id="call_2", path="d"), "metadata": GRANT_METADATA}
    service.add_scripts([asked], [error_chunk("invalid_decision")], [ran], [passed], [text_chunk("Done.")])
    seen = await Terminal(service, workspace, "write", "s", "docs/**", "t", "").capture_output()
    assert [message.get("remember") for message in service.messages[1:3]] == [
        {"scope": "session", "pattern": "docs/**"},
        {"scope": "turn"},
    ]
    assert "auto-approved by grant: The user allowed calls like this one. (rule grant.g1)" in seen
    assert (workspace.root / "a.py").read_text() == "x\n"


GRANT_METADATA = {"rule": "grant.g1", "reason": "The user allowed calls like this one.", "passed_by": "grant"}


def command_chunk(command: str, **metadata: str) -> dict[str, Any]:
    """Return a call of a command that the service sends without asking the user."""
    return {**tool_call_chunk("execute_command", command=command), "metadata": metadata or None}


CONFIRMATION = "'link' leads out of the workspace."


@pytest.mark.parametrize("metadata", [{}, GRANT_METADATA])
async def test_command_that_leads_out_asks_the_user(
    service: ScriptedService, workspace: Workspace, metadata: dict[str, str]
) -> None:
    """The service reads text only. The user decides, even about a command with a grant."""
    (workspace.root / "link").symlink_to("../secret.txt")
    for _ in range(2):
        service.add_scripts([command_chunk("cat link", **metadata)], [text_chunk("Done.")])
    seen = await Terminal(service, workspace, "one", "?", "r", "not that one", "two", "a").capture_output()
    assert seen.count(f"reason: {CONFIRMATION}") == 2
    assert service.messages[1]["error"] == f"{CONFIRMATION} The user rejected it: not that one"
    assert service.messages[3]["result"]["stdout"] == "secret"


async def test_command_that_leads_out_is_refused_without_a_user(service: ScriptedService, workspace: Workspace) -> None:
    (workspace.root / "link").symlink_to("../secret.txt")
    service.add_scripts([command_chunk("cat link")], [text_chunk("Done.")])
    await Terminal(service, workspace, "go", user_present=False).capture_output()
    assert service.messages[1]["error"] == (
        f"{CONFIRMATION} It needs approval, and {NO_APPROVER}; use paths inside the workspace, in plain words."
    )


@pytest.mark.parametrize(
    ("metadata", "approved"),
    [({}, False), (GRANT_METADATA, True), ({**GRANT_METADATA, "passed_by": "policy", "rule": "free"}, True)],
)
async def test_command_is_confined_unless_someone_approved_it(
    service: ScriptedService, workspace: Workspace, metadata: dict[str, str], approved: bool
) -> None:
    """A grant or a rule of the policy is an approval in advance. A command without either only reads."""
    script = "sh -c 'echo x > new || cat ../secret.txt'"
    service.add_scripts([command_chunk(script, **metadata)], [text_chunk("Done.")])
    if find_sandbox() == NO_SANDBOX:
        pytest.skip("This system has no sandbox.")
    await Terminal(service, workspace, "go").capture_output()
    outcome = service.messages[1]["result"]
    assert ((workspace.root / "new").exists(), outcome["stdout"], outcome["exit_code"] == 0) == (approved, "", approved)


@pytest.mark.parametrize(("metadata", "prompts"), [({}, 1), (GRANT_METADATA, 0)])
async def test_command_with_a_grant_may_have_any_words(
    service: ScriptedService, workspace: Workspace, metadata: dict[str, str], prompts: int
) -> None:
    """Without one, the user is asked, because the words are not certain."""
    service.add_scripts([command_chunk("echo $((1 + 1))", **metadata)], [text_chunk("Done.")])
    seen = await Terminal(service, workspace, "go", *["a"] * prompts).capture_output()
    assert seen.count("reason: The command holds a variable or a substitution.") == prompts
    assert service.messages[1]["result"]["stdout"] == "2\n"


async def test_approval_of_a_command_counts_for_that_call_only(service: ScriptedService, workspace: Workspace) -> None:
    asked = tool_call_chunk("execute_command", requires_approval=True, command="cat ../secret.txt")
    approved = tool_call_chunk("execute_command", command="cat ../secret.txt")
    unasked = {**tool_call_chunk("execute_command", call_id="call_2", command="sh -c 'cat ../secret.txt'")}
    service.add_scripts([asked], [approved], [unasked], [text_chunk("Done.")])
    if find_sandbox() == NO_SANDBOX:
        pytest.skip("This system has no sandbox.")
    await Terminal(service, workspace, "go", "a").capture_output()
    assert [message["result"]["stdout"] for message in service.messages[2:4]] == ["secret", ""]


async def test_grants_are_listed_and_revoked(service: ScriptedService, workspace: Workspace) -> None:
    grant = {"id": "g1", "agent": "coder", "tool_name": "write_file", "pattern": "docs/**", "scope": "session"}
    more = {**grant, "id": "g2", "uses_left": 2, "expires_at": "2026-01-01T10:00:00.000000+00:00"}
    path = "/sessions/s-1/grants"
    service.rest |= {path: {"grants": [grant, more], "revoked": 2}, f"{path}/g1": {"revoked": 1}}
    seen = await Terminal(service, workspace, "/grants", "/revoke g1", "/revoke").capture_output()
    assert "g1  write_file docs/**  (coder, session)" in seen
    assert "g2  write_file docs/**  (coder, session, 2 uses left, until 2026-01-01T10:00:00)" in seen
    assert ("Revoked: 1." in seen, "Revoked: 2." in seen) == (True, True)
    service.rest[path] = {"grants": []}
    assert "Nothing is allowed in advance." in await Terminal(service, workspace, "/grants").capture_output()


async def test_denial_names_its_rule(service: ScriptedService, workspace: Workspace) -> None:
    refused = {**error_chunk("tool_denied", "No.", rule="path.outside"), "is_final": False}
    service.add_scripts([refused, text_chunk("Well.")])
    assert "tool_denied: No. (rule path.outside)" in await Terminal(service, workspace, "read ../a").capture_output()
