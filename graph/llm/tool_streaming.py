"""Find out whether the streams of a model carry tool calls, and do without streaming where they do not.

Some proxies pass on the text of a stream only. Such a stream looks like an answer in plain text, or like an empty one.
So a plain answer to a request with tools is not believed until the model has proven its streams: the request is
repeated once without streaming. The result is remembered for the model, until the process ends.
"""

import logging
from collections import defaultdict
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass

from langchain_core.messages import AIMessageChunk

from graph.llm.call_evidence import CALL_EVIDENCE, CallEvidence
from graph.llm.completion_request import CompletionRequest
from graph.llm.faults import EmptyAnswer, Fault
from graph.llm.message_encoding import FieldChanges
from graph.llm.refusal_kinds import RefusalKind, judge_refusal
from graph.llm.transport import Transport, read_clock

log = logging.getLogger("agent_runtime.llm")

FIRST_PAUSE_SECONDS, LONGEST_PAUSE_SECONDS = 600.0, 86_400.0
"""Time without streaming after a plain answer that the repeated request confirmed. It doubles each time, since each
further attempt to stream may cost one more model call. Chosen, not measured."""


class _ModelStreams:
    """The knowledge about the streams of one model."""

    def __init__(self) -> None:
        self._are_proven = self._lose_calls = False
        self._pause, self._paused_until = FIRST_PAUSE_SECONDS, 0.0

    @property
    def may_be_used(self) -> bool:
        return not self._lose_calls and read_clock() >= self._paused_until

    def record_evidence(self, evidence: CallEvidence) -> None:
        """Record what an answer shows. A service may stream it although that was not requested."""
        self._are_proven |= evidence is CallEvidence.PROVEN

    def needs_check(self, evidence: CallEvidence) -> bool:
        """Return whether the calls of such a stream may have been dropped."""
        return evidence is CallEvidence.LOST or (evidence is CallEvidence.DOUBTFUL and not self._are_proven)

    def record_check(self, model: str, has_calls: bool) -> None:
        """Record the answer without streaming to a request whose stream had no calls."""
        if self._are_proven:
            return
        if has_calls:
            self._lose_calls = True
            log.warning("model %s: its streams lose tool calls; requests with tools go without streaming", model)
        else:
            self._paused_until = read_clock() + self._pause
            self._pause = min(2 * self._pause, LONGEST_PAUSE_SECONDS)

    def record_refused_check(self) -> None:
        """Record that the service does not answer without streaming. Its streams are all that there is."""
        self._are_proven = True


@dataclass
class _Answer:
    """The end of an answer whose text was passed on."""

    last: AIMessageChunk | None = None
    empty: EmptyAnswer | None = None
    """The fault of an answer that has nothing."""
    evidence: CallEvidence = CallEvidence.NONE
    has_text: bool = False
    """True: a piece of its text was passed on."""

    def is_piece(self, chunk: AIMessageChunk) -> bool:
        """Return whether the chunk is a piece of the text. Keep the last chunk, which is none."""
        if chunk.chunk_position != "last":
            self.has_text = True
            return True
        self.last, self.evidence = chunk, chunk.response_metadata.pop(CALL_EVIDENCE)
        return False


class ToolStreaming:
    """The requests to one service. Those with tools are streamed only if their calls come through."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport
        self._models: defaultdict[str, _ModelStreams] = defaultdict(_ModelStreams)

    async def stream_answer(
        self, model: str, request: CompletionRequest, changes: FieldChanges, first_deadline: float, deadline: float
    ) -> AsyncGenerator[AIMessageChunk, None]:
        """Stream the answer to one attempt, with the fields that the model accepts and requires. Raises Fault."""
        streams = self._models[model]
        is_streamed = request.is_streaming and (not request.has_tools or streams.may_be_used)
        body, answer = request.encode(model, changes, is_streaming=is_streamed), _Answer()
        try:
            async with aclosing(self._transport.stream_answer(body, first_deadline, deadline)) as chunks:
                async for chunk in chunks:
                    if answer.is_piece(chunk):
                        yield chunk
        except EmptyAnswer as fault:
            answer.empty, answer.evidence = fault, fault.evidence
        streams.record_evidence(answer.evidence)
        if request.has_tools and is_streamed and streams.needs_check(answer.evidence):
            body = request.encode(model, changes, is_streaming=False)
            yield await self._check_stream(model, body, answer, first_deadline, deadline)
        elif answer.last:
            yield answer.last
        elif answer.empty:
            raise answer.empty

    async def _check_stream(
        self, model: str, body: bytes, streamed: _Answer, first_deadline: float, deadline: float
    ) -> AIMessageChunk:
        """Repeat the request without streaming, and return the end of the answer, with its calls.

        Text that was passed on stays as it is. Raises the fault of the repeated request if nothing was streamed.
        """
        log.info("model %s: no tool calls in its stream; the request is repeated without streaming", model)
        streams, repeated = self._models[model], _Answer()
        limit = deadline if streamed.has_text else first_deadline
        try:
            async with aclosing(self._transport.stream_answer(body, limit, deadline)) as chunks:
                text = "".join([str(chunk.content) async for chunk in chunks if repeated.is_piece(chunk)])
        except Fault as fault:
            if isinstance(fault, EmptyAnswer):
                streams.record_check(model, has_calls=False)
            if streamed.last is None:
                raise
            log.warning("model %s: the repeated request failed (%s); the streamed text counts", model, fault.cause)
            if fault.refusal and judge_refusal(fault.refusal) in (RefusalKind.REQUEST, RefusalKind.OTHER):
                streams.record_refused_check()
            return streamed.last
        assert repeated.last is not None
        streams.record_evidence(repeated.evidence)
        has_calls = bool(repeated.last.tool_calls or repeated.last.invalid_tool_calls)
        streams.record_check(model, has_calls)
        if streamed.last is None or not streamed.has_text:
            return repeated.last.model_copy(update={"content": f"{text}{repeated.last.content}"})
        source = repeated.last if has_calls else streamed.last
        update = {"content": streamed.last.content, "usage_metadata": repeated.last.usage_metadata}
        return source.model_copy(update=update)
