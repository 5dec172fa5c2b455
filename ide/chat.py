"""A conversation: a message goes out, its run is shown, tools are run and approvals asked for, until it is answered."""

import json
from collections import deque
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any

from ide.approval import Approver
from ide.client import Chunk, Message, ServiceClient, ServiceError
from ide.screen import Screen
from ide.tools import run_tool
from ide.workspace import Workspace

REFUSED_DECISION_CODES = {"edit_refused", "invalid_decision"}
"""The decision was none: the approval is still open."""
READ_ONLY_TOOLS = {"read_file", "list_files", "search_in_code"}


class Chat:
    """`failed`: whether the last run ended in an error."""

    def __init__(
        self, client: ServiceClient, workspace: Workspace, screen: Screen, approver: Approver, session_id: str
    ) -> None:
        self.client, self.workspace, self.screen, self.approver = client, workspace, screen, approver
        self.session_id = session_id
        self.agent = ""
        self.has_failed = False

    def start_session(self, session_id: str) -> None:
        self.session_id, self.agent = session_id, ""
        self.screen.print_notice(f"Session {session_id}.")

    async def send_message(self, message: Message) -> None:
        """Sends the message, and answers every call that comes of it."""
        await self._process_messages([message], {})

    async def resume_session(self, session_id: str) -> None:
        """Shows where the session stands, the running or the last run, and answers what it waits for."""
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
        asked = {call["call_id"]: call for call in calls if call.get("requires_approval")}
        await self._process_messages(
            [answer for call in calls if (answer := await self._answer_open_call(call))], asked
        )

    async def show_session_state(self) -> None:
        """After a run whose end could not be seen."""
        history = await self._fetch_history(self.session_id)
        messages = history["messages"] if history else []
        self.screen.print_notice(f"The session holds {len(messages)} messages; the last ones are:")
        self.screen.print_history(messages[-2:])
        for call in await self.fetch_open_calls():
            self.screen.print_notice(
                f"Open: {call['tool_name']} ({call['call_id']}); /resume {self.session_id} takes it up."
            )

    async def fetch_open_calls(self) -> list[Chunk]:
        """As tool_call chunks: those that wait for approval, and those whose result has not come."""
        pending = await self.client.list_pending_approvals(self.session_id)
        history = await self._fetch_history(self.session_id)
        waiting = [{"type": "tool_call", **call, "requires_approval": True} for call in pending]
        asked = {call["call_id"] for call in pending}
        return waiting + [
            c for c in find_unanswered_calls(history["messages"] if history else []) if c["call_id"] not in asked
        ]

    async def _fetch_history(self, session_id: str) -> dict[str, Any] | None:
        try:
            return await self.client.fetch_history(session_id)
        except ServiceError as error:
            if error.status != 404:
                raise
            return None

    async def _answer_open_call(self, call: Chunk) -> Message | None:
        """What was begun before is not run twice: only what reads, and what the user now agrees to."""
        if call.get("requires_approval"):
            if self.approver.ask or self.approver.yes:
                return await self._answer_call(call)
        elif call["tool_name"] in READ_ONLY_TOOLS:
            return await self._answer_call(call)
        self.screen.print_notice(f"{call['tool_name']} ({call['call_id']}) is open; your next message closes it.")
        return None

    async def _process_messages(self, messages: list[Message], approval_calls: dict[str, Chunk]) -> None:
        """`asked`: the calls the user was asked about, by their id."""
        waiting = deque(messages)
        while waiting:
            message = waiting.popleft()
            seen = await self._deliver_message(message)
            calls = [chunk for chunk in seen if chunk["type"] == "tool_call"]
            if (
                any(_get_error_code(chunk) in REFUSED_DECISION_CODES for chunk in seen)
                and message["call_id"] in approval_calls
            ):
                calls.append(approval_calls[message["call_id"]])
            for call in calls:
                waiting.append(await self._answer_call(call, approved=call["call_id"] in approval_calls))
                if call.get("requires_approval"):
                    approval_calls[call["call_id"]] = call

    async def _deliver_message(self, message: Message) -> list[Chunk]:
        try:
            seen = await self._show_stream(self.client.send_message(self.session_id, message))
        except ServiceError as error:
            if error.status != 404:
                raise
            seen = []
        if not any(chunk.get("is_final") for chunk in seen):
            await self.show_session_state()
        return seen

    async def _show_stream(self, stream: AsyncGenerator[Chunk, None]) -> list[Chunk]:
        """All but the tokens."""
        seen: list[Chunk] = []
        async with aclosing(stream) as chunks:
            async for chunk in chunks:
                self.screen.show_chunk(chunk)
                if chunk["type"] == "agent_switched":
                    self.agent = (chunk.get("metadata") or {}).get("to_agent", self.agent)
                if chunk["type"] != "assistant_message" or chunk.get("content") is not None:
                    seen.append(chunk)
        self.has_failed = bool(seen) and seen[-1]["type"] == "error"
        return seen

    async def _answer_call(self, call: Chunk, *, approved: bool = False) -> Message:
        if call.get("requires_approval"):
            return await self.approver.request_decision(call)
        self.screen.print_tool_call(call)
        outcome = await run_tool(self.workspace, call["tool_name"], call["arguments"], approved=approved)
        self.screen.print_tool_result(outcome)
        return {"type": "tool_result", "call_id": call["call_id"], "tool_name": call["tool_name"], **outcome}


def find_unanswered_calls(messages: list[dict[str, Any]]) -> list[Chunk]:
    """The tool calls of a history that have no tool message, as tool_call chunks."""
    answered = {message.get("tool_call_id") for message in messages if message["role"] == "tool"}
    calls = [call for message in messages[-20:] for call in message.get("tool_calls") or ()]
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
