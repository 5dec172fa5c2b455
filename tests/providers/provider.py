"""A scripted model service that refuses what the real one refuses, and answers in its dialect.

A family overrides what differs from OpenAI. The base class enforces what holds for all of them: the service gives back
each call and each thought as it came, and the conversation fits the window.
"""

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

from tests.support.history_rules import RULES
from tests.support.llm_server import (
    JSON_TYPE,
    LLMRequest,
    Responder,
    build_delta,
    encode_sse,
    respond_raw,
    respond_status,
)

Message = dict[str, Any]
DEFAULT_WINDOW_TOKENS = 30_000
"""Tokens of a request that the service takes: far more than a prompt with its tools, less than a large result."""


@dataclass(frozen=True)
class Answer:
    """An answer of the model, whatever its dialect."""

    text: str = ""
    tool: str = ""
    arguments: dict[str, Any] = field(default_factory=dict)
    is_cut: bool = False
    """True: it reached the output limit."""


class Provider:
    """A service of the OpenAI family, for one story. `answers` are given in order, to requests that it accepts."""

    name: ClassVar[str]
    rule: ClassVar[str] = "openai"
    """The rule of `history_rules` for the messages."""
    address_suffix: ClassVar[str] = "/v1"
    """The end of the address that its users paste."""
    path: ClassVar[str] = "/v1/chat/completions"
    window_tokens: ClassVar[int] = DEFAULT_WINDOW_TOKENS
    cut_reason: ClassVar[str] = "length"
    settings: ClassVar[dict[str, Any]] = {}

    def __init__(self, *answers: Answer) -> None:
        self.answers = [*answers]
        self.refusals: list[str] = []
        """The reasons of all refusals, oldest first."""
        self._issued_calls: dict[str, Message] = {}
        self._issued_fields: dict[str, Message] = {}

    def __call__(self, request: LLMRequest) -> Responder:
        """Refuse the request, or give the next answer."""
        for check in (self.find_refusal, self.check_shared_rules):
            if refusal := check(request):
                self.refusals.append(refusal[0])
                return refusal[1]
        if "tools" not in request.body:
            return self.respond(self.answer_without_tools(request), request)
        return self.respond(self.answers.pop(0), request)

    def find_refusal(self, request: LLMRequest) -> tuple[str, Responder] | None:
        """Return the refusal of a request by a rule of this family: its reason and its answer."""
        return None

    def check_shared_rules(self, request: LLMRequest) -> tuple[str, Responder] | None:
        if request.path != self.path:
            return f"path {request.path}", respond_status(404, b'{"error": {"message": "Not Found"}}')
        messages = request.body["messages"]
        if fault := RULES[self.rule](messages):
            return fault, self.refuse(400, fault)
        if fault := self._find_changed_call(messages):
            return fault, self.refuse(400, fault)
        if self.count_tokens(request) > self.window_tokens:
            return "too large", self.refuse_overflow(request)
        return None

    def _find_changed_call(self, messages: Sequence[Message]) -> str | None:
        """Return what is not as this service gave it; None if all is."""
        for message in messages:
            calls = message.get("tool_calls") or []
            for call in calls:
                issued = self._issued_calls.get(call["id"])
                if issued is None or _read_call(issued) != _read_call(call):
                    return f"the call {call['id']!r} is not the one that was given"
            fields = self._issued_fields[calls[0]["id"]] if calls else {}
            if lost := [name for name, value in fields.items() if message.get(name) != value]:
                return f"{lost[0]} must be passed back"
        return None

    def answer_without_tools(self, request: LLMRequest) -> Answer:
        """Answer a classification, or a summary of a conversation that has grown too long."""
        if "JSON" in request.body["messages"][0]["content"]:
            return Answer('{"agent": "coder", "confidence": "high", "reasoning": "It writes."}')
        return Answer("The user asked about a.py.")

    def respond(self, answer: Answer, request: LLMRequest) -> Responder:
        calls = [self.build_call(answer)] if answer.tool else []
        fields = self.build_fields(answer)
        for call in calls:
            self._issued_calls[call["id"]] = call
            self._issued_fields[call["id"]] = fields
        reason = self.cut_reason if answer.is_cut else self.get_finish_reason(answer)
        if not request.is_streaming:
            message = {"role": "assistant", "content": self.build_text(answer) or None, **fields}
            message |= {"tool_calls": calls} if calls else {}
            choice = {"index": 0, "message": message, "finish_reason": reason}
            body = json.dumps({"object": "chat.completion", "choices": [choice], "usage": USAGE}).encode()
            return respond_raw(body, content_type=JSON_TYPE)
        return respond_raw(self.encode_stream([*self.iter_events(answer, calls, fields, reason)]))

    def iter_events(
        self, answer: Answer, calls: Sequence[Message], fields: Message, reason: str
    ) -> Iterator[dict[str, Any]]:
        yield build_delta(role="assistant", content="")
        yield from (build_delta(**{name: value}) for name, value in fields.items())
        yield from (build_delta(content=piece) for piece in split_text(self.build_text(answer)))
        for index, call in enumerate(calls):
            arguments = call["function"]["arguments"]
            yield build_delta(tool_calls=[{**call, "index": index, "function": {**call["function"], "arguments": ""}}])
            for piece in split_text(arguments):
                yield build_delta(tool_calls=[{"index": index, "function": {"arguments": piece}}])
        yield build_delta(finish_reason=reason)
        yield {"object": "chat.completion.chunk", "choices": [], "usage": USAGE}

    def encode_stream(self, events: Sequence[dict[str, Any]]) -> bytes:
        return encode_sse(*events, done=True)

    def build_text(self, answer: Answer) -> str:
        return answer.text

    def build_call(self, answer: Answer) -> Message:
        function = {"name": answer.tool, "arguments": json.dumps(answer.arguments)}
        return {"id": self.make_id(answer, len(self._issued_calls)), "type": "function", "function": function}

    def make_id(self, answer: Answer, number: int) -> str:
        return f"call_{number:024d}"

    def build_fields(self, answer: Answer) -> Message:
        """Return the fields of the message that OpenAI does not have."""
        return {}

    def get_finish_reason(self, answer: Answer) -> str:
        return "tool_calls" if answer.tool else "stop"

    def refuse(self, status: int, message: str, **fields: Any) -> Responder:
        error = {"message": message, "type": "invalid_request_error", "param": None, "code": None, **fields}
        return respond_status(status, json.dumps({"error": error}).encode())

    def count_tokens(self, request: LLMRequest) -> int:
        """Return the tokens of a request as this service counts them: four bytes each."""
        return len(json.dumps(request.body)) // 4

    def refuse_overflow(self, request: LLMRequest) -> Responder:
        used, limit = self.count_tokens(request), self.window_tokens
        return self.refuse(
            400,
            f"This model's maximum context length is {limit} tokens. However, your messages resulted in {used} tokens.",
            param="messages",
            code="context_length_exceeded",
        )


USAGE = {"prompt_tokens": 1000, "completion_tokens": 20, "total_tokens": 1020}


def split_text(text: str) -> Iterator[str]:
    """Yield the text in two pieces; nothing for an empty one."""
    half = (len(text) + 1) // 2
    yield from filter(None, (text[:half], text[half:]))


def _read_call(call: Message) -> Message:
    """Return a call with its arguments as values: defaults of the service may have been added to them."""
    function = {**call["function"], "arguments": json.loads(call["function"]["arguments"])}
    function["arguments"].setdefault("path", ".")
    return {**call, "function": function}


Family = Callable[..., Provider]
