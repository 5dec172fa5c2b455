"""Split the bytes of an answer into its JSON objects: events of a stream, or documents."""

import json
import re
from typing import Any

from graph.errors import LLMInvalidAnswer
from graph.llm.faults import Fault, make_unreadable_fault

MAX_BYTES = 8 * 1024 * 1024
"""Bytes of one answer. Bounds the memory of an answer that does not end. Chosen, not measured."""

DONE = b"[DONE]"
"""The data of the event that ends a stream."""
_SPACE = re.compile(r"\s*")


class EventReader:
    """A reader of server-sent events or of JSON documents. Every method raises Fault for bytes that are no answer.

    The first byte shows the format, whatever the request and the headers say. Some services send the events of a stream
    without `data:`, one object in each line. Those are read like documents, at the end.
    """

    def __init__(self) -> None:
        self.is_done = False
        """Whether the stream's [DONE] has come."""
        self.is_document: bool | None = None
        """Whether the answer is a row of documents; None before its first byte."""
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
        """Return the documents, or the event whose last line has no end. Call this once, at the end of the stream."""
        if not self.is_document:
            return self._read_events(b"\n")
        self.is_done = self._buffer.rstrip().endswith(DONE)
        return _parse_documents(bytes(self._buffer))

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

        Lines are split before they are decoded: JSON may hold U+2028 and its like. They end at a newline, at a carriage
        return, or at both. A carriage return in last place waits for the next byte, which may be its newline.
        """
        self._buffer += end
        stop = self._buffer.rfind(b"\n", self._searched)
        stop = max(stop, self._buffer.rfind(b"\r", max(stop, self._searched), -1))
        self._searched = max(len(self._buffer) - 1, 0) if stop < 0 else 0
        if stop < 0:
            return []
        lines = bytes(self._buffer[: stop + 1]).splitlines()
        del self._buffer[: stop + 1]
        return lines

    def _read_line(self, line: bytes, events: list[Any]) -> None:
        line = line.strip()
        if line.startswith(b"data:"):
            self._read_data(line[5:].lstrip(), events)
        elif not line and self._half_event:
            event = b"\n".join(self._half_event)
            self._half_event = []
            events.append(_parse_json(event))

    def _read_data(self, data: bytes, events: list[Any]) -> None:
        """Read one `data:` line. An object that is not whole is continued by the next line.

        A line that begins no object is no part of the answer, such as a keep-alive comment behind `data:`.
        """
        if self.is_done:
            return
        if data.startswith(DONE):
            self.is_done = True
        elif self._half_event:
            self._half_event.append(data)
        elif data.startswith(b"{"):
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


def _parse_documents(data: bytes) -> list[Any]:
    """Return the JSON objects that stand in a row. Whatever follows the last whole object is passed over."""
    text = data.decode("utf-8", "replace")
    documents: list[Any] = []
    decoder = json.JSONDecoder()
    start = 0
    while text.startswith("{", start):
        try:
            document, end = decoder.raw_decode(text, start)
        except (ValueError, RecursionError):
            break
        documents.append(document)
        start = _SPACE.match(text, end).end()  # type: ignore[union-attr]  # it matches everywhere
    return documents or [_parse_json(data)]
