"""Reading one answer of a model: bytes in; text out as it comes, the tool calls whole at the end."""

import json
from typing import Any

from langchain_core.messages import AIMessageChunk
from langchain_core.messages.ai import InputTokenDetails, UsageMetadata

from graph.errors import LLMInvalidAnswer
from graph.llm.faults import Fault, broken_off, empty, of_error_object, unavailable, unreadable
from graph.llm.openai_format import text_of
from graph.llm.tool_calls import Calls
from graph.sanitize import UNSTORABLE, clean

MAX_BYTES = 8 * 1024 * 1024
PROXY_FAULT = "[Error] LiteLLM proxy unavailable"
"""How the proxy in use begins an assistant text that is none."""


class Answer:
    """SSE or one JSON document: the first byte tells, whatever was asked for and whatever the headers say.

    Every method raises Fault for what is no answer. Tool calls are not passed on piece by piece: half of one is of no
    use to anybody, and an answer that breaks off within them can still be asked for again.
    """

    def __init__(self) -> None:
        self.done = False
        self._finish_reason = ""
        self._usage: UsageMetadata | None = None
        self._calls = Calls()
        self._events = 0
        self._size = 0
        self._buffer = bytearray()
        self._searched = 0
        self._document: bool | None = None
        self._half_event: list[bytes] = []
        self._held = ""
        self._shown = False

    @property
    def has_begun(self) -> bool:
        """Whether anything of it has come: a comment or a blank is only a sign of life."""
        return bool(self._document or self._events)

    @property
    def complete(self) -> bool:
        """Whether everything has been said, though the stream may go on."""
        return self.done or bool(self._finish_reason)

    def feed(self, data: bytes) -> str:
        """The text in it that may be shown."""
        self._size += len(data)
        if self._size > MAX_BYTES:
            sentence = "The model's answer is too large. Ask for less in one step."
            raise Fault(LLMInvalidAnswer(sentence), "too large", retry=False)
        self._buffer += data
        if self._is_document():
            return ""
        return self._showable("".join([self._line(line) for line in self._lines()]))

    def finish(self) -> AIMessageChunk:
        """What is left of the text, the tool calls and the usage. To be called when nothing more comes."""
        text = self._showable(self._read_document() if self._document else "".join(map(self._line, self._lines(b"\n"))))
        if not self.complete and not self._document:
            raise broken_off("end of stream") if self._events else unreadable("no completion in it")
        text += _clean(self._held)
        calls, invalid = self._calls.whole()
        if not (self._shown or text.strip() or calls or invalid):
            raise empty()
        return AIMessageChunk(
            content=text,
            tool_calls=calls,
            invalid_tool_calls=invalid,
            usage_metadata=self._usage,
            response_metadata={"finish_reason": self._finish_reason} if self._finish_reason else {},
            chunk_position="last",
        )

    def _is_document(self) -> bool:
        if self._document is None:
            self._buffer = self._buffer.lstrip(b"\xef\xbb\xbf \t\r\n")
            self._document = self._buffer.startswith(b"{") if self._buffer else None
        return bool(self._document)

    def _lines(self, end: bytes = b"") -> list[bytes]:
        """Only at newlines, and before decoding: JSON may hold U+2028 and its like."""
        self._buffer += end
        newline = self._buffer.rfind(b"\n", self._searched)
        self._searched = len(self._buffer) if newline < 0 else 0
        if newline < 0:
            return []
        lines = bytes(self._buffer[:newline]).split(b"\n")
        del self._buffer[: newline + 1]
        return lines

    def _line(self, line: bytes) -> str:
        line = line.strip()
        if line.startswith(b"data:"):
            return self._data(line[5:].lstrip())
        if not line and self._half_event:
            event = b"\n".join(self._half_event)
            self._half_event = []
            return self._event(_json(event))
        return ""

    def _data(self, data: bytes) -> str:
        """One event is one line nearly always; what cannot be read yet may go on in the next one."""
        if self.done or not data:
            return ""
        if data.startswith(b"[DONE]"):
            self.done = True
        elif self._half_event:
            self._half_event.append(data)
        else:
            try:
                return self._event(_json(data))
            except _NotJSON:
                self._half_event = [data]
        return ""

    def _read_document(self) -> str:
        document = _json(bytes(self._buffer))
        text = self._event(document)
        if not document.get("choices"):
            raise unreadable("no choices")
        return text

    def _event(self, event: Any) -> str:
        if not isinstance(event, dict):
            raise unreadable("no object")
        if event.get("error"):
            raise of_error_object(event["error"])
        self._events += 1
        if isinstance(usage := event.get("usage"), dict):
            self._usage = _usage(usage)
        choices = event.get("choices")
        choice = choices[0] if isinstance(choices, list) and choices else None
        return self._choice(choice) if isinstance(choice, dict) else ""

    def _choice(self, choice: dict[str, Any]) -> str:
        if choice.get("index"):  # one more than was asked for
            return ""
        if isinstance(reason := choice.get("finish_reason"), str):
            self._finish_reason = reason or self._finish_reason
        part = choice.get("delta") or choice.get("message")
        if not isinstance(part, dict):
            return ""
        if calls := part.get("tool_calls"):
            self._calls.add(calls, whole=not choice.get("delta"))
        return text_of(part.get("content") or part.get("refusal"))

    def _showable(self, text: str) -> str:
        """Holds back what could still become the proxy's report of a fault, and half of a surrogate pair."""
        text, self._held = self._held + text, ""
        if not self._shown:
            start = text.lstrip()
            if start.startswith(PROXY_FAULT):
                raise unavailable("the proxy's own fault")
            if PROXY_FAULT.startswith(start):
                self._held = text
                return ""
            self._shown = True
        if "\ud800" <= text[-1:] <= "\udbff":
            text, self._held = text[:-1], text[-1]
        return _clean(text)


def _clean(text: str) -> str:
    """`clean`, once the halves of surrogate pairs that came in two pieces are one character again."""
    if UNSTORABLE.search(text):
        text = clean(text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace"))
    return text


class _NotJSON(Fault):
    pass


def _json(data: bytes) -> Any:
    try:
        return json.loads(data.decode("utf-8", "replace"))
    except (ValueError, RecursionError):
        raise _NotJSON(unreadable("").error, "not JSON") from None


def _usage(usage: dict[str, Any]) -> UsageMetadata:
    details = usage.get("prompt_tokens_details")
    read, written = _count(usage.get("prompt_tokens")), _count(usage.get("completion_tokens"))
    return UsageMetadata(
        input_tokens=read,
        output_tokens=written,
        total_tokens=_count(usage.get("total_tokens")) or read + written,
        input_token_details=InputTokenDetails(
            cache_read=_count(details.get("cached_tokens") if isinstance(details, dict) else 0)
        ),
    )


def _count(value: Any) -> int:
    return value if type(value) is int and 0 <= value < 2**53 else 0
