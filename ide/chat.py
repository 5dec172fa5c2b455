"""Hold a conversation: send a message, show its run, execute its tool calls, and prompt for approvals.

This repeats until the message is answered.
"""

import json
from collections import deque
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any

from ide.approval import Approver
from ide.client import Chunk, History, Message, ServiceClient, ServiceError
from ide.screen import Screen
from ide.tools import find_command_risk, run_tool
from ide.workspace import Workspace

REFUSED_DECISION_CODES = {"edit_refused", "invalid_decision"}
"""The codes of errors after which the approval is still open."""
READ_ONLY_TOOLS = {"read_file", "list_files", "search_in_code"}
"""The tools that may run twice."""
RECENT_MESSAGES = 20
"""Messages at the end of a history that may hold an open call. Only the last assistant message can have one, and its
results follow it; more calls than this in one message are not expected. Chosen, not measured."""


class Chat:
    """A session and the state of the conversation about it."""

    def __init__(
        self, client: ServiceClient, workspace: Workspace, screen: Screen, approver: Approver, session_id: str
    ) -> None:
        self.client, self.workspace, self.screen, self.approver = client, workspace, screen, approver
        self.session_id = session_id
        self.agent = ""
        """The agent that has the conversation. Empty: not known yet."""
        self.has_failed = False
        """True if the last run ended with an error."""

    def start_session(self, session_id: str) -> None:
        """Continue in a new session. The service creates it with the first message."""
        self.session_id, self.agent = session_id, ""
        self.screen.print_notice(f"Session {session_id}.")

    async def send_message(self, message: Message) -> None:
        """Send the message, and answer every call that follows from it. Raises ServiceError."""
        await self._process_messages([message], {})

    async def resume_session(self, session_id: str) -> None:
        """Show the state of the session and its running or last run, and answer its open calls.

        Raises ServiceError.
        """
        history = await self._fetch_history(session_id)
        self.session_id = session_id
        if history is None:
            self.screen.print_notice(f"There is no session {session_id} yet; your first message creates it.")
            return
        self.agent = history.get("current_agent") or ""
        self.screen.print_notice(
            f"Resumed session {session_id}: {history['message_count']} messages, agent {self.agent}."
        )
        await self._show_stream(self.client.join_run(session_id))
        calls = await self.fetch_open_calls()
        approvals = {call["call_id"]: call for call in calls if call.get("requires_approval")}
        await self._process_messages(
            [answer for call in calls if (answer := await self._answer_open_call(call))], approvals
        )

    async def show_session_state(self) -> None:
        """Show the last messages and the open calls, for a run whose end did not arrive."""
        history = await self._fetch_history(self.session_id)
        messages = history["messages"] if history else []
        self.screen.print_notice(f"The session holds {len(messages)} messages; the last ones are:")
        self.screen.print_history(messages[-2:])
        for call in await self.fetch_open_calls():
            self.screen.print_notice(
                f"Open: {call['tool_name']} ({call['call_id']}); /resume {self.session_id} continues it."
            )

    async def fetch_open_calls(self) -> list[Chunk]:
        """Return the open calls as tool_call chunks.

        They are the calls that wait for approval, and then those whose result has not arrived.
        """
        pending = await self.client.list_pending_approvals(self.session_id)
        history = await self._fetch_history(self.session_id)
        waiting = [{"type": "tool_call", **call, "requires_approval": True} for call in pending]
        ids = {call["call_id"] for call in pending}
        return waiting + [
            call for call in find_unanswered_calls(history["messages"] if history else []) if call["call_id"] not in ids
        ]

    async def _fetch_history(self, session_id: str) -> History | None:
        """Return the history, or None if there is no such session."""
        try:
            return await self.client.fetch_history(session_id)
        except ServiceError as error:
            if error.status != 404:
                raise
            return None

    async def _answer_open_call(self, call: Chunk) -> Message | None:
        """Return the answer to a call of an earlier run, or None if it is left open.

        The call may have been executed already. Only a read is repeated, and a call that the user now approves.
        """
        if call.get("requires_approval"):
            if self.approver.read_line or self.approver.yes:
                return await self._answer_call(call)
        elif call["tool_name"] in READ_ONLY_TOOLS:
            return await self._answer_call(call)
        self.screen.print_notice(f"{call['tool_name']} ({call['call_id']}) is open; your next message closes it.")
        return None

    async def _process_messages(self, messages: list[Message], approval_calls: dict[str, Chunk]) -> None:
        """Send the messages and the answers to all calls that follow from them.

        `approval_calls` are the calls for which the user was prompted, by their id. It is extended.
        """
        waiting = deque(messages)
        while waiting:
            message = waiting.popleft()
            chunks = await self._deliver_message(message)
            calls = [chunk for chunk in chunks if chunk["type"] == "tool_call"]
            if (
                any(_get_error_code(chunk) in REFUSED_DECISION_CODES for chunk in chunks)
                and message["call_id"] in approval_calls
            ):
                calls.append(approval_calls[message["call_id"]])
            for call in calls:
                waiting.append(await self._answer_call(call, approved=call["call_id"] in approval_calls))
                if call.get("requires_approval"):
                    approval_calls[call["call_id"]] = call

    async def _deliver_message(self, message: Message) -> list[Chunk]:
        """Send the message, and return the chunks of its run. Without a final one, show the state of the session."""
        try:
            chunks = await self._show_stream(self.client.send_message(self.session_id, message))
        except ServiceError as error:
            if error.status != 404:
                raise
            chunks = []
        if not any(chunk.get("is_final") for chunk in chunks):
            await self.show_session_state()
        return chunks

    async def _show_stream(self, stream: AsyncGenerator[Chunk, None]) -> list[Chunk]:
        """Show the chunks as they arrive, and return all of them but the tokens."""
        chunks: list[Chunk] = []
        async with aclosing(stream) as arriving:
            async for chunk in arriving:
                self.screen.show_chunk(chunk)
                if chunk["type"] == "agent_switched":
                    self.agent = (chunk.get("metadata") or {}).get("to_agent", self.agent)
                if chunk["type"] != "assistant_message" or chunk.get("content") is not None:
                    chunks.append(chunk)
        self.has_failed = bool(chunks) and chunks[-1]["type"] == "error"
        return chunks

    async def _answer_call(self, call: Chunk, *, approved: bool = False) -> Message:
        """Return the user's decision on a call that needs approval, for any other the result of the tool."""
        if call.get("requires_approval"):
            return await self.approver.request_decision(call)
        self.screen.print_tool_call(call)
        outcome = await self._run_call(call, approved=approved)
        self.screen.print_tool_result(outcome)
        return {"type": "tool_result", "call_id": call["call_id"], "tool_name": call["tool_name"], **outcome}

    async def _run_call(self, call: Chunk, *, approved: bool) -> dict[str, Any]:
        """Run the tool. First ask about a command that nobody approved and that may leave the workspace.

        A grant or a rule approves a command in advance. Then only a path that does lead out is asked about.
        """
        in_advance = bool((call.get("metadata") or {}).get("passed_by"))
        if call["tool_name"] == "execute_command" and not approved:
            risk = await find_command_risk(self.workspace, call["arguments"], is_certain=in_advance)
            if risk and (refusal := await self.approver.request_confirmation(call, risk)):
                return {"error": refusal}
            approved = in_advance or risk is not None
        return await run_tool(self.workspace, call["tool_name"], call["arguments"], approved=approved)


def find_unanswered_calls(messages: list[dict[str, Any]]) -> list[Chunk]:
    """Return the tool calls of a history that have no tool message, as tool_call chunks."""
    answered = {message.get("tool_call_id") for message in messages if message["role"] == "tool"}
    calls = [call for message in messages[-RECENT_MESSAGES:] for call in message.get("tool_calls") or ()]
    return [
        {
            "type": "tool_call",
            "call_id": call["id"],
            "tool_name": call["function"]["name"],
            "arguments": json.loads(call["function"]["arguments"]),
        }
        for call in calls
        if call["id"] not in answered
    ]


def _get_error_code(chunk: Chunk) -> str:
    return str((chunk.get("metadata") or {}).get("code", ""))
