"""Every conversation stays valid and no forbidden call runs, for any messages and any answers of the model.

tests/support/properties.py says how to look at more examples.
"""

import json
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, nullcontext
from dataclasses import dataclass, field
from itertools import chain, repeat
from pathlib import Path
from random import Random
from typing import Any
from uuid import uuid4

import httpx
import pytest
from hypothesis import given, note
from hypothesis import strategies as st
from langchain_core.messages import AIMessageChunk

from graph.errors import LLMInvalidAnswer, LLMUnavailable
from server import create_app
from tests.support.conversations import check_conversation, check_model_input
from tests.support.properties import draw_from_seed, search_settings
from tests.support.scripted import ScriptedModel, ScriptLine, call_tools, choose_agent, say_text
from tests.support.service import SessionClient, settings_for

Message = dict[str, Any]
Chunk = dict[str, Any]

AGENTS = ["orchestrator", "architect", "ask", "coder", "debug", "universal"]
READ_TOOLS = {"read_file", "list_files", "search_in_code"}
WRITE_TOOLS = {"write_file", "create_directory"}
ALLOWED_TOOLS = {
    "architect": READ_TOOLS | {"write_file"},
    "ask": READ_TOOLS,
    "coder": READ_TOOLS | WRITE_TOOLS | {"execute_command"},
    "debug": READ_TOOLS | {"execute_command"},
    "universal": READ_TOOLS | WRITE_TOOLS | {"execute_command"},
}
EDITS: dict[str, dict[str, dict[str, Any]]] = {
    "write_file": {"good": {"content": "better"}, "elsewhere": {"path": "b.py"}, "forbidden": {"path": "../b.md"}},
    "create_directory": {"good": {"path": "b"}, "elsewhere": {"path": "b.py"}, "forbidden": {"path": "/b"}},
    "execute_command": {"good": {"command": "ls"}, "elsewhere": {"cwd": "b"}, "forbidden": {"timeout": 0}},
}

VALID_CALLS: list[tuple[str, Any]] = [
    ("read_file", {"path": "a.py"}),
    ("write_file", {"path": "a.md", "content": "a"}),
    ("write_file", {"path": "a.py", "content": "a"}),
    ("list_files", {"path": "."}),
    ("create_directory", {"path": "a"}),
    ("execute_command", {"command": "ls -l"}),
    ("execute_command", {"command": "rm -r a"}),
    ("search_in_code", {"query": "a"}),
]
OTHER_CALLS: list[tuple[str, Any]] = [
    ("read_file", {"path": "../a.py"}),
    ("write_file", {"path": "/a.md", "content": "a"}),
    ("write_file", {"path": "a.md"}),
    ("execute_command", {"command": "ls", "timeout": "soon"}),
    ("echo", {"text": "a"}),
    ("calculator", {"expr": "1 / 0"}),
    ("attempt_completion", {"result": "Done."}),
    ("ask_followup_question", {"question": "Which?", "suggestions": ["a"]}),
    *[("switch_mode", {"mode": name, "reason": "It fits."}) for name in [*AGENTS, "nobody"]],
    ("no_such_tool", {}),
    ("no name at all!", {}),
    ("", {}),
    ("x" * 100, {}),
]
NON_OBJECT_ARGUMENTS = ['{"path": ', "[1]", '"a"', "null"]
ODD_ARGUMENTS = {'{"path": NaN}': {"path": "NaN"}, '{"path": "\\ud800"}': {"path": "\ufffd"}}
"""Arguments that the model may write, and the values that they are read as."""
CALL_IDS = [None, None, "", "call_1", "call_1", "call_2", "no id!", "x" * 200]
CUT_REASONS = ["length", "length", "MAX_TOKENS", "content_filter"]
MODEL_ERRORS = [LLMUnavailable, LLMInvalidAnswer, RuntimeError]
CALL_SELECTORS = ["open 0", "open 0", "open 0", "open 1", "open 2", "stale 0", "stale 1", "unknown"]
"""Selectors of a call, by the order in which calls came."""
APPROVAL_SELECTORS = [*["asking 0"] * 7, "asking 1", "asking 2", "open 0", "stale 0", "unknown"]
REQUESTS = ["Create a.py", "Create a.py", "Create a.py", "What is a.py?", "Why does a.py fail?", "Plan a.py"]
OK_RESULT: Message = {"type": "tool_result", "call_id": "open 0", "result": "ok"}
NEW_REQUEST: Message = {"type": "user_message", "content": "Create a.py", "stream": {}}


def draw_line(dice: Random) -> ScriptLine:
    line = draw_whole_line(dice)
    if isinstance(line, AIMessageChunk) and dice.random() < 0.15:
        return line.model_copy(update={"response_metadata": {"finish_reason": dice.choice(CUT_REASONS)}})
    return line


def draw_whole_line(dice: Random) -> AIMessageChunk | Exception:
    if dice.random() < 0.1:
        return dice.choice(MODEL_ERRORS)("It failed.")
    if dice.random() < 0.15:
        return say_text(dice.choice(["Done.", "It is \ud800 done.", ""]))
    many = dice.choice([1, 1, 2, 3, 4])
    return call_tools(*(draw_request(dice) for _ in range(many)), text=dice.choice(["", "", "I will see.", "\x00 "]))


def draw_request(dice: Random) -> tuple[str, str | None, str]:
    tool, arguments = dice.choice(VALID_CALLS if dice.random() < 0.8 else OTHER_CALLS)
    raw = json.dumps(arguments) if dice.random() < 0.9 else dice.choice([*NON_OBJECT_ARGUMENTS, *ODD_ARGUMENTS])
    return tool, dice.choice(CALL_IDS), raw


def draw_choice(dice: Random) -> ScriptLine:
    if dice.random() < 0.2:
        return dice.choice(MODEL_ERRORS)("It failed.")
    return say_text("I cannot say.") if dice.random() < 0.2 else choose_agent(dice.choice([*["coder"] * 8, *AGENTS]))


def draw_message(dice: Random) -> Message:
    kind = dice.choice([draw_start, draw_result, draw_result, draw_decision, draw_decision, draw_retry])
    return kind(dice)


def draw_start(dice: Random) -> Message:
    message = {"id": dice.choice([None, "new", "new", "new", "m-0"]), "stream": draw_options(dice)}
    if dice.random() < 0.6:
        return {"type": "user_message", "content": dice.choice(REQUESTS), **message}
    content = dice.choice(["", "Go on.", "Go on."])
    return {"type": "switch_agent", "agent_type": dice.choice([*["coder"] * 4, *AGENTS]), "content": content, **message}


def draw_result(dice: Random) -> Message:
    return {
        "type": "tool_result",
        "call_id": dice.choice(CALL_SELECTORS),
        "result": dice.choice(["ok", {"a": [1, None]}, None]),
        "error": dice.choice([None, None, None, "It failed.", "User rejected it."]),
        "stream": draw_options(dice),
    }


def draw_decision(dice: Random) -> Message:
    return {
        "type": "hitl_decision",
        "call_id": dice.choice(APPROVAL_SELECTORS),
        "decision": dice.choice(["approve", "approve", "reject", "edit", "edit"]),
        "modified_arguments": dice.choice(["good", "good", "elsewhere", "forbidden", "forbidden", "unknown", "empty"]),
        "stream": draw_options(dice),
    }


def draw_retry(dice: Random) -> Message:
    return {"type": "retry", "of": dice.choice([0, 0, 1, 2, 3, 4, 5, 6])}


def draw_options(dice: Random) -> dict[str, bool]:
    likely = {"parallel_tools": 0.6, "tokens": 0.3, "usage": 0.3}
    return {name: True for name, odds in likely.items() if dice.random() < odds}


@dataclass
class Door:
    """A service without a socket, which stays open through all examples, and its model."""

    http: httpx.AsyncClient
    llm: ScriptedModel

    def open_session(self) -> SessionClient:
        return SessionClient(self.http, uuid4().hex)


@asynccontextmanager
async def open_door(database: str, multi: bool) -> AsyncIterator[Door]:
    llm = ScriptedModel(lines=None)
    settings = settings_for(database, multi_agent_mode=multi, max_turn_model_calls=5)
    app = create_app(settings, nullcontext(llm))
    headers = {"X-Internal-Auth": settings.internal_api_key.get_secret_value()}
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://runtime", headers=headers) as http,
    ):
        yield Door(http, llm)


@pytest.fixture
async def doors(tmp_path: Path) -> AsyncIterator[dict[bool, Door]]:
    """Open a service with many agents, under True, and one with a single agent, under False."""
    many, single = f"sqlite:///{tmp_path}/many.db", f"sqlite:///{tmp_path}/single.db"
    async with open_door(many, multi=True) as of_many, open_door(single, multi=False) as of_one:
        yield {True: of_many, False: of_one}


@search_settings()
@given(
    script=st.lists(draw_from_seed(draw_line), min_size=4, max_size=12),
    choices=st.lists(draw_from_seed(draw_choice), max_size=4),
    start=draw_from_seed(draw_start),
    sent=st.lists(draw_from_seed(draw_message), min_size=4, max_size=12),
    multi=st.sampled_from([True, True, True, False]),
)
async def test_any_conversation_stays_valid(
    doors: dict[bool, Door],
    script: list[ScriptLine],
    choices: list[ScriptLine],
    start: Message,
    sent: list[Message],
    multi: bool,
) -> None:
    lines, agents = chain(script, repeat(say_text("Done."))), chain(choices, repeat(say_text("")))
    client = ReferenceClient(doors[multi].open_session(), ScriptedSpeaker(doors[multi].llm, lines, agents), multi)
    for message in [start, *sent]:
        await client.send(message)
    await client.check_next_answer()


@dataclass
class ScriptedSpeaker:
    """The lines of the model: one script for the specialists, one for the classifier."""

    llm: ScriptedModel
    script: Iterator[ScriptLine]
    choices: Iterator[ScriptLine]
    spoken_lines: list[ScriptLine] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.llm.lines = self
        self.llm.prompts.clear()
        self.llm.call_parameters.clear()

    def __next__(self) -> ScriptLine:
        classifies = "temperature" in self.llm.call_parameters[-1]
        self.spoken_lines.append(next(self.choices if classifies else self.script))
        return self.spoken_lines[-1]


@dataclass
class ReferenceClient:
    """A client that predicts each outcome from the messages and chunks before it, as the Gateway could."""

    session: SessionClient
    speaker: ScriptedSpeaker
    is_multi_agent: bool
    agent: str = "orchestrator"
    open_calls: dict[str, Chunk] = field(default_factory=dict)
    """The open calls by id, as they were sent last."""
    known_call_ids: list[str] = field(default_factory=list)
    sent_messages: list[Message] = field(default_factory=list)
    accepted_messages: dict[str, Message] = field(default_factory=dict)
    """The accepted messages, by the key that a retry shares."""

    async def send(self, drawn: Message) -> None:
        message = self._resolve_message(drawn)
        expected, heard = self._predict_outcome(message), len(self.speaker.llm.prompts)
        note(f"-> {message}, expecting it {expected}")
        chunks = await self.session.send(message)
        note("\n".join(f"<- {chunk}" for chunk in chunks))
        self.sent_messages.append(message)
        told = [chunk for chunk in chunks if chunk["type"] != "usage" and not is_token(chunk)]
        match expected:
            case "taken":
                check_options(message["stream"], chunks)
                await self._apply_chunks(message, told, heard)
            case "replayed":
                assert all(self._is_open(chunk) for chunk in told if chunk["type"] == "tool_call")
            case code:
                assert [get_error_code(chunk) for chunk in told] == [code]
        assert expected == "taken" or len(self.speaker.llm.prompts) == heard
        for conversation in self.speaker.llm.prompts[heard:]:
            check_model_input(conversation)
        await self._check_history()

    async def check_next_answer(self) -> None:
        """Check that the user's next message has an answer, whatever happened before."""
        self.speaker.script = repeat(say_text("Done."))
        self.speaker.choices = repeat(say_text(""))
        await self.send(NEW_REQUEST)
        assert not self.open_calls
        last = (await self.session.fetch_history())[-1]
        assert last == {"role": "assistant", "content": "Done."}

    def _resolve_message(self, drawn: Message) -> Message:
        """Return the message to send, with the id of the call that it selects."""
        if drawn["type"] == "retry":
            return self.sent_messages[-1 - drawn["of"] % len(self.sent_messages)] if self.sent_messages else NEW_REQUEST
        if "call_id" not in drawn:
            return {**drawn, "id": f"m-{len(self.sent_messages)}"} if drawn.get("id") == "new" else drawn
        which, _, number = drawn["call_id"].partition(" ")
        calls = self._select_calls(which)
        if not calls and which in ("open", "asking"):
            return self._resolve_message({**(OK_RESULT if self.open_calls else NEW_REQUEST), "stream": drawn["stream"]})
        call_id = calls[int(number) % len(calls)] if calls else "call_unknown"
        edit = self._choose_edit(drawn, call_id) if drawn.get("decision") == "edit" else None
        return {**drawn, "call_id": call_id, "modified_arguments": edit}

    def _select_calls(self, which: str) -> list[str]:
        match which:
            case "open":
                return [*self.open_calls]
            case "asking":
                return [call_id for call_id, call in self.open_calls.items() if call["requires_approval"]]
            case "stale":
                return [call_id for call_id in self.known_call_ids if call_id not in self.open_calls]
        return []

    def _choose_edit(self, drawn: Message, call_id: str) -> dict[str, Any]:
        tool = self.open_calls.get(call_id, {}).get("tool_name", "write_file")
        return {"unknown": {"colour": "red"}, "empty": {}, **EDITS.get(tool, EDITS["write_file"])}[
            drawn["modified_arguments"]
        ]

    def _may_pick(self, agent: str) -> bool:
        return agent == "orchestrator" or (agent == "universal") != self.is_multi_agent

    def _predict_outcome(self, message: Message) -> str:
        """Return `taken`, `replayed`, or the code of an error."""
        before = self.accepted_messages.get(get_idempotency_key(message))
        if "call_id" not in message:
            if not self._may_pick(message.get("agent_type", "orchestrator")):
                return "invalid_message"
            return (
                "taken"
                if before is None
                else "replayed"
                if before == strip_options(message)
                else "idempotency_conflict"
            )
        edit = message["modified_arguments"] if message.get("decision") == "edit" else None
        if edit == {}:
            return "invalid_decision"
        call = self.open_calls.get(message["call_id"])
        if call is None or (message["type"] == "hitl_decision" and not call["requires_approval"]):
            return "replayed" if before == strip_options(message) else "call_not_open"
        return "edit_refused" if edit and not self._may_edit(call, edit) else "taken"

    def _may_edit(self, call: Chunk, edit: dict[str, Any]) -> bool:
        if is_budget_question(call) or edit not in (
            EDITS[call["tool_name"]]["good"],
            EDITS[call["tool_name"]]["elsewhere"],
        ):
            return False
        return may_run(self.agent, call["tool_name"], {**call["arguments"], **edit})

    def _is_open(self, chunk: Chunk) -> bool:
        return is_same_call(chunk, self.open_calls.get(chunk["call_id"], {}))

    async def _apply_chunks(self, message: Message, chunks: list[Chunk], heard: int) -> None:
        self.accepted_messages[get_idempotency_key(message)] = strip_options(message)
        if message.get("decision") in ("approve", "edit") and not is_budget_question(
            self.open_calls[message["call_id"]]
        ):
            self._apply_approval(message)
            assert [self._is_open(chunk) for chunk in chunks] == [True]
            return
        before = dict(self.open_calls)
        if "call_id" in message:
            del self.open_calls[message["call_id"]]
        else:
            self.open_calls.clear()
        for chunk in chunks:
            self._apply_chunk(chunk)
        if any(isinstance(line, RuntimeError) for line in self.speaker.spoken_lines[heard:]):
            assert get_error_code(chunks[-1]) == "internal"
            await self._resynchronize(message, before)
        else:
            self._check_end(message, chunks)

    def _apply_approval(self, message: Message) -> None:
        call = self.open_calls[message["call_id"]]
        edits = message["modified_arguments"] if message["decision"] == "edit" else {}
        self.open_calls[message["call_id"]] = {
            **call,
            "requires_approval": False,
            "arguments": {**call["arguments"], **edits},
        }

    def _apply_chunk(self, chunk: Chunk) -> None:
        match chunk:
            case {"type": "agent_switched", "metadata": {"from_agent": before, "to_agent": to}}:
                assert before == self.agent
                self.agent = to
            case {"type": "tool_call", "call_id": call_id, "tool_name": tool, "arguments": arguments}:
                assert call_id not in self.known_call_ids
                if not is_budget_question(chunk):
                    assert (tool, arguments) in VALID_CALLS or arguments in ODD_ARGUMENTS.values()
                    assert may_run(self.agent, tool, arguments)
                assert chunk["requires_approval"] is (is_budget_question(chunk) or needs_approval(tool, arguments))
                self.known_call_ids.append(call_id)
                self.open_calls[call_id] = chunk

    async def _resynchronize(self, message: Message, before: dict[str, Chunk]) -> None:
        """Take over the state of the service after a fault; a message that it lost can be sent again."""
        remembered = await self.session.get("/sessions/{id}/history")
        self.agent = remembered["current_agent"]
        self.open_calls = {call_id: before[call_id] for call_id in check_conversation(remembered["messages"])}
        if message.get("call_id") in (None, *self.open_calls):
            self.accepted_messages.pop(get_idempotency_key(message), None)

    def _check_end(self, message: Message, chunks: list[Chunk]) -> None:
        match chunks[-1:]:
            case []:
                assert self.open_calls
                assert "call_id" in message
            case [{"type": "tool_call"}]:
                assert self.open_calls
            case [{"type": "agent_switched"}]:
                assert not message["content"]
                assert not self.open_calls
            case [{"type": "error", "metadata": {"code": code}}]:
                assert code in ("llm_unavailable", "llm_invalid_answer", "limit_reached")
                assert not self.open_calls
            case [last]:
                assert last["type"] == "assistant_message"
                assert not self.open_calls

    async def _check_history(self) -> None:
        response = await self.session.http.get(f"/sessions/{self.session.id}/history")
        if response.status_code == 404:
            assert not self.accepted_messages
            return
        remembered = response.json()
        assert remembered["current_agent"] == self.agent
        assert check_conversation(remembered["messages"]) == [*self.open_calls]
        pending = (await self.session.get("/sessions/{id}/pending-approvals"))["pending_approvals"]
        assert [(call["call_id"], call["tool_name"], call["arguments"]) for call in pending] == [
            (call["call_id"], call["tool_name"], call["arguments"])
            for call in self.open_calls.values()
            if call["requires_approval"]
        ]


def get_idempotency_key(message: Message) -> str:
    """Return the key that a retry of the message shares; a message without an id is always a new one."""
    if "call_id" in message:
        return f"{message['type']} {message['call_id']}"
    return message.get("id") or uuid4().hex


def strip_options(message: Message) -> Message:
    return {k: v for k, v in message.items() if k != "stream" and v is not None}


def is_token(chunk: Chunk) -> bool:
    return chunk["type"] == "assistant_message" and "content" not in chunk


def get_error_code(chunk: Chunk) -> str | None:
    """Return the code of an error chunk, else None."""
    return chunk["metadata"]["code"] if chunk["type"] == "error" else None


def is_budget_question(call: Chunk) -> bool:
    """Return whether the call is the service's question before it uses more of the turn's model calls."""
    return bool(
        (call["tool_name"], call["arguments"]) == ("continue_work", {"used": "4 of 5 model calls of this turn"})
    )


def is_same_call(chunk: Chunk, other: Chunk) -> bool:
    return all(chunk[k] == other.get(k) for k in ("call_id", "tool_name", "arguments", "requires_approval"))


def may_run(agent: str, tool: str, arguments: dict[str, Any]) -> bool:
    """Return whether the contract's table lets the agent make the call."""
    path = arguments.get("path", "")
    if tool not in ALLOWED_TOOLS[agent] or path.startswith(("/", "../")):
        return False
    return agent != "architect" or tool != "write_file" or path.endswith(".md")


def needs_approval(tool: str, arguments: dict[str, Any]) -> bool:
    """Return whether the call requires approval."""
    return tool in WRITE_TOOLS or (tool == "execute_command" and not arguments["command"].startswith("ls"))


def check_options(chosen: dict[str, bool], chunks: list[Chunk]) -> None:
    """Check that tokens join to their texts, usage comes before the end, and neither comes without an opt-in."""
    counted = [place for place, chunk in enumerate(chunks) if chunk["type"] == "usage"]
    failed = chunks and get_error_code(chunks[-1]) == "internal"
    assert counted == ([len(chunks) - 2] if chosen.get("usage") and chunks and not failed else [])
    pieces = ""
    for chunk in chunks:
        if is_token(chunk):
            assert chosen.get("tokens")
            pieces += chunk["token"]
        elif chunk["type"] == "assistant_message":
            assert chunk["content"] == (pieces if chosen.get("tokens") else chunk["token"])
            assert "token" not in chunk or not chosen.get("tokens")
            pieces = ""
