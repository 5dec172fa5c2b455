"""Split the bytes of an answer into its JSON objects: events of a stream, or one document."""

import json
from typing import Any

from graph.errors import LLMInvalidAnswer
from graph.llm.faults import Fault, make_unreadable_fault

MAX_BYTES = 8 * 1024 * 1024
"""Bytes of one answer. Bounds the memory of an answer that does not end. Chosen, not measured."""


class EventReader:
    """A reader of server-sent events or of one JSON document. Every method raises Fault for bytes that are no answer.

    The first byte shows the format, whatever the request and the headers say.
    """

    def __init__(self) -> None:
        self.is_done = False
        """Whether the stream's [DONE] has come."""
        self.is_document: bool | None = None
        """Whether the answer is a document; None before its first byte."""
        self._size = 0
        self._buffer = bytearray()
        self._searched = 0
        self._half_event: list[bytes] = []

    def feed(self, data: bytes) -> list[Any]:
        """Return the events that are whole with these bytes. A document is whole at the end only."""
        self._size += len(data)
        if self._size > MAX_BYTES:
            sentence = "The model's answer is too large. Ask for less in one step."
            raise Fault(LLMInvalidAnswer(sentence), "too large", is_retryable=False)
        self._buffer += data
        return [] if self._detect_document() else self._read_events()

    def finish(self) -> list[Any]:
        """Return the document, or the event whose last line has no end. Call this once, at the end of the stream."""
        return [_parse_json(bytes(self._buffer))] if self.is_document else self._read_events(b"\n")

    def _detect_document(self) -> bool:
        if self.is_document is None:
            self._buffer = self._buffer.lstrip(b"\xef\xbb\xbf \t\r\n")
            self.is_document = self._buffer.startswith(b"{") if self._buffer else None
        return bool(self.is_document)

    def _read_events(self, end: bytes = b"") -> list[Any]:
        events: list[Any] = []
        for line in self._split_lines(end):
            self._read_line(line, events)
        return events

    def _split_lines(self, end: bytes) -> list[bytes]:
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

    def _read_line(self, line: bytes, events: list[Any]) -> None:
        """Read one line. A `data:` line that is no JSON may be continued by the next one."""
        line = line.strip()
        if line.startswith(b"data:"):
            self._read_data(line[5:].lstrip(), events)
        elif not line and self._half_event:
            event = b"\n".join(self._half_event)
            self._half_event = []
            events.append(_parse_json(event))

    def _read_data(self, data: bytes, events: list[Any]) -> None:
        if self.is_done or not data:
            return
        if data.startswith(b"[DONE]"):
            self.is_done = True
        elif self._half_event:
            self._half_event.append(data)
        else:
            try:
                events.append(_parse_json(data))
            except _NotJSON:
                self._half_event = [data]


class _NotJSON(Fault):
    pass


def _parse_json(data: bytes) -> Any:
    try:
        return json.loads(data.decode("utf-8", "replace"))
    except (ValueError, RecursionError):
        raise _NotJSON(make_unreadable_fault("").error, "not JSON") from None
