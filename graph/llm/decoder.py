"""Decode one answer of a model: bytes go in, text comes out piece by piece, and the tool calls whole at the end."""

import json
from typing import Any

from langchain_core.messages import AIMessageChunk
from langchain_core.messages.ai import InputTokenDetails, UsageMetadata

from graph.errors import LLMInvalidAnswer
from graph.llm.faults import (
    Fault,
    fault_from_error_object,
    make_empty_fault,
    make_incomplete_fault,
    make_unavailable_fault,
    make_unreadable_fault,
)
from graph.llm.openai_format import extract_text
from graph.llm.tool_calls import ToolCallAssembler
from graph.sanitize import UNSTORABLE, sanitize_value

MAX_BYTES = 8 * 1024 * 1024
"""Bytes of one answer. Bounds the memory of an answer that does not end. Chosen, not measured."""
PROXY_FAULT = "[Error] LiteLLM proxy unavailable"
"""The beginning of an assistant text that reports a fault of the proxy in use, with HTTP status 200."""


class CompletionDecoder:
    """A decoder for an answer in SSE or in one JSON document. Every method raises Fault for bytes that are no answer.

    The first byte shows the format, whatever the request and the headers say. Tool calls are returned whole: half of
    one is useless, and an answer that breaks off within them can still be requested again.
    """

    def __init__(self) -> None:
        self.is_done = False
        self._finish_reason = ""
        self._usage: UsageMetadata | None = None
        self._calls = ToolCallAssembler()
        self._events = 0
        self._size = 0
        self._buffer = bytearray()
        self._searched = 0
        self._document: bool | None = None
        self._half_event: list[bytes] = []
        self._pending_text = ""
        self._has_released_text = False

    @property
    def has_begun(self) -> bool:
        """Return whether a part of the answer has come. Comments and blank lines are not a part of it."""
        return bool(self._document or self._events)

    @property
    def is_complete(self) -> bool:
        """Return whether the answer is complete. The stream may still be open."""
        return self.is_done or bool(self._finish_reason)

    def feed(self, data: bytes) -> str:
        """Decode more bytes, and return the text in them that may be shown."""
        self._size += len(data)
        if self._size > MAX_BYTES:
            sentence = "The model's answer is too large. Ask for less in one step."
            raise Fault(LLMInvalidAnswer(sentence), "too large", is_retryable=False)
        self._buffer += data
        if self._is_document():
            return ""
        return self._release_text("".join([self._decode_line(line) for line in self._split_lines()]))

    def finish(self) -> AIMessageChunk:
        """Return the rest of the text, the tool calls and the usage. Call this once, at the end of the stream."""
        text = self._release_text(
            self._read_document() if self._document else "".join(map(self._decode_line, self._split_lines(b"\n")))
        )
        if not self.is_complete and not self._document:
            raise (
                make_incomplete_fault("end of stream") if self._events else make_unreadable_fault("no completion in it")
            )
        text += _join_surrogates(self._pending_text)
        calls, invalid = self._calls.build_calls()
        if not (self._has_released_text or text.strip() or calls or invalid):
            raise make_empty_fault()
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

    def _split_lines(self, end: bytes = b"") -> list[bytes]:
        """Return the whole lines of the buffer, and keep the rest.

        Lines end at newlines only, and are split before they are decoded: JSON may hold U+2028 and its like.
        """
        self._buffer += end
        newline = self._buffer.rfind(b"\n", self._searched)
        self._searched = len(self._buffer) if newline < 0 else 0
        if newline < 0:
            return []
        lines = bytes(self._buffer[:newline]).split(b"\n")
        del self._buffer[: newline + 1]
        return lines

    def _decode_line(self, line: bytes) -> str:
        line = line.strip()
        if line.startswith(b"data:"):
            return self._decode_data(line[5:].lstrip())
        if not line and self._half_event:
            event = b"\n".join(self._half_event)
            self._half_event = []
            return self._decode_event(_parse_json(event))
        return ""

    def _decode_data(self, data: bytes) -> str:
        """Return the text of one `data:` line. A line that is no JSON may be continued by the next one."""
        if self.is_done or not data:
            return ""
        if data.startswith(b"[DONE]"):
            self.is_done = True
        elif self._half_event:
            self._half_event.append(data)
        else:
            try:
                return self._decode_event(_parse_json(data))
            except _NotJSON:
                self._half_event = [data]
        return ""

    def _read_document(self) -> str:
        document = _parse_json(bytes(self._buffer))
        text = self._decode_event(document)
        if not document.get("choices"):
            raise make_unreadable_fault("no choices")
        return text

    def _decode_event(self, event: Any) -> str:
        if not isinstance(event, dict):
            raise make_unreadable_fault("no object")
        if event.get("error"):
            raise fault_from_error_object(event["error"])
        self._events += 1
        if isinstance(usage := event.get("usage"), dict):
            self._usage = _parse_usage(usage)
        choices = event.get("choices")
        choice = choices[0] if isinstance(choices, list) and choices else None
        return self._decode_choice(choice) if isinstance(choice, dict) else ""

    def _decode_choice(self, choice: dict[str, Any]) -> str:
        if choice.get("index"):  # a second choice, which was not requested
            return ""
        if isinstance(reason := choice.get("finish_reason"), str):
            self._finish_reason = reason or self._finish_reason
        part = choice.get("delta") or choice.get("message")
        if not isinstance(part, dict):
            return ""
        if calls := part.get("tool_calls"):
            self._calls.add_parts(calls, is_complete=not choice.get("delta"))
        return extract_text(part.get("content") or part.get("refusal"))

    def _release_text(self, text: str) -> str:
        """Return the text that may be shown. Raises Fault for the proxy's report of a fault.

        Held back are the beginning of a text that may become such a report, and half of a surrogate pair.
        """
        text, self._pending_text = self._pending_text + text, ""
        if not self._has_released_text:
            start = text.lstrip()
            if start.startswith(PROXY_FAULT):
                raise make_unavailable_fault("the proxy's own fault")
            if PROXY_FAULT.startswith(start):
                self._pending_text = text
                return ""
            self._has_released_text = True
        if "\ud800" <= text[-1:] <= "\udbff":
            text, self._pending_text = text[:-1], text[-1]
        return _join_surrogates(text)


def _join_surrogates(text: str) -> str:
    """Return the text with surrogate pairs joined to one character, and with lone surrogates replaced."""
    if UNSTORABLE.search(text):
        text = sanitize_value(text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace"))
    return text


class _NotJSON(Fault):
    pass


def _parse_json(data: bytes) -> Any:
    try:
        return json.loads(data.decode("utf-8", "replace"))
    except (ValueError, RecursionError):
        raise _NotJSON(make_unreadable_fault("").error, "not JSON") from None


def _parse_usage(usage: dict[str, Any]) -> UsageMetadata:
    details = usage.get("prompt_tokens_details")
    read, written = _parse_count(usage.get("prompt_tokens")), _parse_count(usage.get("completion_tokens"))
    return UsageMetadata(
        input_tokens=read,
        output_tokens=written,
        total_tokens=_parse_count(usage.get("total_tokens")) or read + written,
        input_token_details=InputTokenDetails(
            cache_read=_parse_count(details.get("cached_tokens") if isinstance(details, dict) else 0)
        ),
    )


def _parse_count(value: Any) -> int:
    """Return a number of tokens; 0 for a value that is none. From 2**53 on, some JSON readers lose precision."""
    return value if type(value) is int and 0 <= value < 2**53 else 0
