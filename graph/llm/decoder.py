"""Decode one answer of a model: bytes go in, text comes out piece by piece, and the tool calls whole at the end."""

from typing import Any

from langchain_core.messages import AIMessageChunk

from graph.completion.finish_reasons import classify_finish_reason
from graph.completion.provider_data import ANSWER_FIELDS, AnswerFields
from graph.llm.call_evidence import CALL_EVIDENCE, CALL_REASONS, CallEvidence, judge_answer
from graph.llm.faults import (
    fault_from_refusal,
    make_empty_fault,
    make_failed_finish_fault,
    make_incomplete_fault,
    make_unreadable_fault,
)
from graph.llm.framing import EventReader
from graph.llm.openai_format import extract_text
from graph.llm.provider_fields import FieldEncoder, MessageFields
from graph.llm.proxy_faults import find_proxy_fault, may_become_fault
from graph.llm.refusals import is_error, refusal_from_error
from graph.llm.tool_calls import BuiltCalls, ToolCallAssembler
from graph.llm.usage_parsing import UsageReader
from graph.sanitize import UNSTORABLE, sanitize_value
from graph.thoughts import ThoughtSplitter, join_answer


class CompletionDecoder:
    """A decoder for an answer in SSE or in JSON documents. Every method raises Fault for bytes that are no answer.

    `framing` splits the bytes into JSON objects. Tool calls are returned whole: half of one is useless, and an answer
    that breaks off within them can still be requested again.
    """

    def __init__(self) -> None:
        self._finish_reason = ""
        self._usage = UsageReader()
        self._calls = ToolCallAssembler()
        self._other_calls = ToolCallAssembler()
        self._other_reason = ""
        self._fields, self._other_fields = MessageFields(), MessageFields()
        self._events = EventReader()
        self._has_events = self._has_choices = self._has_deltas = self._has_delta_text = False
        self._message_text = ""
        self._thoughts = ThoughtSplitter()
        self._visible_start = ""
        self._held_text: list[str] = []
        self._half_character = ""
        self._has_released_text = False

    @property
    def has_begun(self) -> bool:
        """Return whether a part of the answer has come. Comments and blank lines are not a part of it."""
        return bool(self._events.is_document or self._has_events)

    @property
    def is_done(self) -> bool:
        """Return whether the stream's [DONE] has come."""
        return self._events.is_done

    @property
    def is_complete(self) -> bool:
        """Return whether the answer is complete. The stream may still be open."""
        return self.is_done or bool(self._finish_reason)

    def feed(self, data: bytes) -> str:
        """Decode more bytes, and return the text in them that may be shown."""
        return self._release_text("".join(map(self._decode_event, self._events.feed(data))))

    def finish(self) -> AIMessageChunk:
        """Return the rest of the text, the tool calls and the usage. Call this once, at the end of the stream."""
        text = self._release_text("".join(map(self._decode_event, self._events.finish())))
        self._require_whole_answer()
        (calls, invalid, *_), fields = self._build_calls()
        ending = classify_finish_reason(self._finish_reason)
        if ending == "error":
            raise make_failed_finish_fault(self._finish_reason)
        self._visible_start += join_answer(self._thoughts.finish())
        text += _join_surrogates("".join(self._held_text) + self._half_character)
        if not (self._has_released_text or self._visible_start or calls or invalid):
            raise make_empty_fault(ending, self._judge(has_calls=False))
        return AIMessageChunk(
            content=text,
            tool_calls=calls,
            invalid_tool_calls=invalid,
            usage_metadata=self._usage.build_metadata(),
            response_metadata=self._build_metadata(fields, self._judge(has_calls=bool(calls or invalid))),
            chunk_position="last",
        )

    def _judge(self, *, has_calls: bool) -> CallEvidence:
        is_stream, has_usage = not self._events.is_document, self._usage.build_metadata() is not None
        return judge_answer(self._finish_reason, is_stream=is_stream, has_calls=has_calls, has_usage=has_usage)

    def _build_metadata(self, fields: AnswerFields, evidence: CallEvidence) -> dict[str, Any]:
        metadata: dict[str, Any] = {CALL_EVIDENCE: evidence}
        if self._finish_reason:
            metadata["finish_reason"] = self._finish_reason
        return {**metadata, ANSWER_FIELDS: fields} if fields["places"] or fields["message"] else metadata

    def _require_whole_answer(self) -> None:
        """Raise Fault if the bytes end within the answer. A document without deltas is whole."""
        if self._events.is_document and not self._has_choices:
            raise make_unreadable_fault("no choices")
        if self.is_complete or (self._events.is_document and not self._has_deltas):
            return
        raise (
            make_incomplete_fault("end of stream") if self._has_events else make_unreadable_fault("no completion in it")
        )

    def _decode_event(self, event: Any) -> str:
        if not isinstance(event, dict):
            raise make_unreadable_fault("no object")
        if event.get("error") or event.get("object") == "error":
            raise fault_from_refusal(refusal_from_error(event))
        self._has_events = True
        choices = event.get("choices")
        choice = choices[0] if choices and isinstance(choices, list) else None
        self._usage.add_event(event, choice)
        if not choices:
            if is_error(event):
                raise fault_from_refusal(refusal_from_error(event))
            return ""
        self._has_choices = True
        if choice is None:
            return ""
        if len(choices) > 1:
            for number, other in enumerate(choices[1:], start=1):
                self._decode_other_choice(other, number)
        return self._decode_choice(choice) if isinstance(choice, dict) else ""

    def _decode_choice(self, choice: dict[str, Any]) -> str:
        if choice.get("index"):
            self._decode_other_choice(choice, 1)
            return ""
        if error := choice.get("error"):
            raise fault_from_refusal(refusal_from_error({"error": error}))
        if reason := choice.get("finish_reason"):
            self._read_finish_reason(reason)
        delta, message = choice.get("delta"), choice.get("message")
        text = self._decode_delta(delta) if delta and isinstance(delta, dict) else ""
        if message and isinstance(message, dict):
            return text + self._decode_message(message)
        return text if delta else extract_text(choice.get("text"))  # the format of the older completions

    def _decode_delta(self, delta: dict[str, Any]) -> str:
        self._has_deltas = True
        self._fields.add_delta(delta)
        if "tool_calls" in delta or "function_call" in delta:
            self._calls.add_parts(_get_calls(delta))
        if text := extract_text(delta.get("content") or delta.get("refusal")):
            self._has_delta_text = True
            if self._has_released_text and (fault := find_proxy_fault(text)):
                raise fault
        return text

    def _decode_message(self, message: dict[str, Any]) -> str:
        """Return the text of a whole message. A message after deltas, or after itself, sums up what has come."""
        self._calls.add_whole(_get_calls(message))
        self._fields.add_whole(message)
        text = extract_text(message.get("content") or message.get("refusal"))
        if self._has_delta_text or (self._finish_reason and text == self._message_text):
            return ""
        if len(text) > len(self._message_text) and text.startswith(self._message_text):
            text = text[len(self._message_text) :]  # each message has the whole text so far
        self._message_text += text
        return text

    def _decode_other_choice(self, choice: Any, number: int) -> None:
        """Keep the calls of a choice that is not the first one."""
        if not isinstance(choice, dict):
            return
        self._other_reason = self._other_reason or str(choice.get("finish_reason") or "")
        delta, message = choice.get("delta"), choice.get("message")
        if isinstance(delta, dict):
            self._other_calls.add_parts(_get_calls(delta), number)
            self._other_fields.add_delta(delta)
        if isinstance(message, dict):
            self._other_calls.add_whole(_get_calls(message))
            self._other_fields.add_whole(message)

    def _build_calls(self) -> tuple[BuiltCalls, AnswerFields]:
        """Return the calls, and the fields of the answer.

        Some services put the text into the first choice, and its calls into the second one. Otherwise the first choice
        is the answer: no other one was requested.
        """
        encoder = FieldEncoder()
        built = self._calls.build_calls(encoder)
        fields = self._fields.join()
        if not built.places and (self._finish_reason or self._other_reason).casefold() in CALL_REASONS:
            built = self._other_calls.build_calls(encoder)
            self._read_finish_reason(self._other_reason or self._finish_reason)
            fields = {**self._other_fields.join(), **fields}
        return built, AnswerFields(calls=built.fields, places=built.places, message=encoder.encode(fields))

    def _read_finish_reason(self, reason: Any) -> None:
        """Keep the reason. Some services close every stream with a "stop", which hides no earlier reason."""
        if reason and isinstance(reason, str) and classify_finish_reason(self._finish_reason) == "complete":
            self._finish_reason = reason

    def _release_text(self, text: str) -> str:
        """Return the text that may be shown. Raises Fault for the proxy's report of a fault.

        Held back is half of a surrogate pair, and all text up to the first word of the answer: until then the request
        can be repeated.
        """
        if not self._has_released_text:
            if text:
                self._held_text.append(text)
                self._visible_start += join_answer(self._thoughts.feed(text))
            if not self._has_first_word():
                return ""
            text, self._held_text = "".join(self._held_text), []
            self._has_released_text = True
        text, self._half_character = self._half_character + text, ""
        if "\ud800" <= text[-1:] <= "\udbff":
            text, self._half_character = text[:-1], text[-1]
        return _join_surrogates(text)

    def _has_first_word(self) -> bool:
        """Return whether the answer has a text beyond thoughts that cannot become the proxy's report of a fault."""
        start = self._visible_start.lstrip()
        if fault := find_proxy_fault(start):
            raise fault
        return not may_become_fault(start)


def _get_calls(part: dict[str, Any]) -> Any:
    """Return the parts of tool calls in a delta or message; `function_call` is the format of 2023, with one call."""
    if calls := part.get("tool_calls"):
        return calls
    function = part.get("function_call")
    return [{"index": 0, "function": function}] if function else None


def _join_surrogates(text: str) -> str:
    """Return the text with surrogate pairs joined to one character, and with lone surrogates replaced."""
    if UNSTORABLE.search(text):
        text = sanitize_value(text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace"))
    return text
