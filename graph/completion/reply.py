"""Normalise a model's answer for the history: each call gets a unique id, a name and an object of arguments."""

import json
import re
from collections.abc import Sequence
from itertools import chain, repeat
from typing import Any, NamedTuple
from uuid import uuid4

from langchain_core.language_models import LanguageModelInput
from langchain_core.messages import AIMessage, AIMessageChunk, AnyMessage, ToolMessage
from langchain_core.messages import ToolCall as RequestedCall
from langchain_core.messages.ai import add_ai_message_chunks
from langchain_core.runnables import Runnable

from graph.completion.call_ids import assign_call_id, collect_call_ids
from graph.completion.finish_reasons import find_truncation
from graph.completion.provider_data import answer_fields_of, provider_call, provider_marks
from graph.conversation import malformed_message
from graph.marks import TruncationReason
from graph.sanitize import sanitize_value
from graph.thoughts import EmitPiece, Piece, Thoughts, ThoughtSplitter, join_answer, strip_thoughts
from graph.tools.catalog import TOOLS, ToolExecutor, complete_arguments, executor_of
from graph.tools.coercion import coerce_arguments, parse_arguments, resolve_tool_name

MAX_NAME_CHARS = 64
"""Characters of a tool's name: the most that OpenAI-compatible services accept."""
MAX_QUOTED_ARGUMENTS = 200
"""Characters of broken arguments that the model is shown again. Chosen, not measured: enough to see the mistake."""

HALF_OBJECT_NOTE = (
    "\nThey end in the middle. If your answer was cut off, make the call shorter, and send long content in smaller "
    "pieces, over several calls."
)
"""The end of the answer to a call whose arguments have a beginning only."""
CUT_CALL_RESULTS: dict[TruncationReason, str] = {
    "length": "not run: your answer was cut off at the output limit, so this call may be incomplete. "
    "Make the call shorter, and send long content in smaller pieces, over several calls.",
    "content_filter": "not run: the content filter of your service stopped your answer, so this call may be "
    "incomplete. Send it in other words, or without the part that was stopped.",
}
"""The answers to a call that was cut off."""


class Reply(NamedTuple):
    """A normalised answer."""

    message: AIMessage
    answers: list[ToolMessage]
    """Refusals of the calls that were cut off, or whose arguments could not be read."""
    truncation: TruncationReason | None = None
    """The reason why the answer was cut off; None for a complete one."""
    thoughts: str = ""
    """The thoughts of the answer. They were paid for."""
    follows_thoughts: bool = False
    """True: the words that were passed on before those of the message turned out to be thoughts."""


class _CallRequest(NamedTuple):
    """A call as the model wrote it."""

    name: str
    arguments: Any
    id: str
    fields: str
    """The fields that only the provider reads, see `AnswerFields`."""
    is_cut: bool = False
    """True: the answer was cut off within this call. Its arguments may still look whole: some services repair them."""


async def stream_reply(
    model: Runnable[LanguageModelInput, AIMessage],
    messages: list[AnyMessage],
    emit: EmitPiece,
    *,
    parallel: bool,
    history: Sequence[AnyMessage],
) -> Reply:
    """Call the model, pass its words and thoughts to `emit` as they come, and return the normalised answer.

    Of several calls the first is kept, unless `parallel`. `history` is the whole conversation, of which `messages` may
    be a part: no call gets an id that is in it. Raises what the model raises.
    """
    chunks: list[Any] = []
    pieces: list[Piece] = []
    splitter = ThoughtSplitter()
    async for chunk in model.astream(messages):
        chunks.append(chunk)
        if text := sanitize_value(chunk.text):
            for piece in splitter.feed(text):
                pieces.append(piece)
                emit(piece)
    for piece in splitter.finish():
        pieces.append(piece)
        emit(piece)
    reply = _normalize_reply(_merge_chunks(chunks), join_answer(pieces), history, parallel)
    thoughts = [piece for piece in pieces if isinstance(piece, Thoughts)]
    return reply._replace(
        thoughts="".join(each.text for each in thoughts),
        follows_thoughts=any(each.was_released for each in thoughts),
    )


def _merge_chunks(chunks: Sequence[Any]) -> AIMessage:
    if not chunks:
        return AIMessage("")
    return add_ai_message_chunks(*chunks) if isinstance(chunks[0], AIMessageChunk) else chunks[0]


def _normalize_reply(answer: AIMessage, text: str, history: Sequence[AnyMessage], parallel: bool) -> Reply:
    """Return the reply with this text and the calls of the answer."""
    truncation = find_truncation(str(answer.response_metadata.get("finish_reason") or ""))
    requests = _select_calls(_extract_calls(answer, is_cut=truncation is not None), parallel)
    used_ids = collect_call_ids(history) if requests else set()
    calls: list[RequestedCall] = []
    answers: list[ToolMessage] = []
    provider_calls: dict[str, str] = {}
    for request in requests:
        tool = _sanitize_name(request.name)
        parsed = _read_arguments(tool, request.arguments)
        call_id, provider_id = assign_call_id(request.id, used_ids)
        provider_calls[call_id] = provider_call(provider_id, request.fields)
        call = RequestedCall(name=tool, args=parsed or {}, id=call_id, type="tool_call")
        calls.append(call)
        if truncation and (request.is_cut or parsed is None):
            answers.append(malformed_message(call, CUT_CALL_RESULTS[truncation], truncation))
        elif parsed is None:
            answers.append(malformed_message(call, _describe_unreadable(str(request.arguments)), "unreadable"))
    message = AIMessage(
        text,
        id=f"msg_{uuid4().hex}",
        tool_calls=calls,
        additional_kwargs=provider_marks(answer, provider_calls),
        usage_metadata=answer.usage_metadata,
        response_metadata={k: v for k, v in answer.response_metadata.items() if k == "model_name"},
    )
    return Reply(message, answers, truncation)


def _extract_calls(answer: AIMessage, *, is_cut: bool) -> list[_CallRequest]:
    """Return the calls in the order of the answer. With `is_cut` the answer was cut off, so its last call is.

    The pieces of a stream are parsed again: LangChain completes JSON that broke off in the middle.
    """
    chunks: Sequence[Any] = answer.tool_call_chunks if isinstance(answer, AIMessageChunk) else ()
    calls: Sequence[Any] = chunks or [*answer.tool_calls, *answer.invalid_tool_calls]
    answer_fields = answer_fields_of(answer)
    fields = chain(answer_fields["calls"], repeat(""))
    requests = [
        _CallRequest(resolve_tool_name(call["name"] or ""), call["args"], call["id"] or "", next(fields))
        for call in calls
    ]
    if places := answer_fields["places"]:
        requests = [requests[places.index(place)] for place in range(len(places))]
    return [*requests[:-1], *(each._replace(is_cut=is_cut) for each in requests[-1:])]


def _select_calls(requests: list[_CallRequest], parallel: bool) -> list[_CallRequest]:
    """Return the calls to keep: the first one, or with `parallel` all.

    A control call stands alone: as the first call it excludes all others, later it is dropped.
    """
    if not requests or not parallel or _is_control(requests[0].name):
        return requests[:1]
    return [request for request in requests if not _is_control(request.name)]


def _is_control(name: str) -> bool:
    return name in TOOLS and executor_of(name) is ToolExecutor.CONTROL


def _read_arguments(tool: str, raw: Any) -> dict[str, Any] | None:
    """Return the arguments in the types that the tool wants, with its defaults, or None if they are no object.

    Thoughts are taken out of the texts of a control call.
    """
    arguments = parse_arguments(raw)
    if arguments is None:
        return None
    if _is_control(tool):  # the user reads the texts of such a call
        arguments = {
            name: strip_thoughts(value) if isinstance(value, str) else value for name, value in arguments.items()
        }
    return complete_arguments(tool, coerce_arguments(tool, sanitize_value(arguments)))


def _describe_unreadable(arguments: str) -> str:
    """Return the answer to a call whose arguments are no object. Some services do not say that a limit cut them off."""
    written = _unquote_arguments(arguments)
    quoted = sanitize_value(written)[:MAX_QUOTED_ARGUMENTS]
    return f"The arguments are not a JSON object: {quoted}{HALF_OBJECT_NOTE if _ends_midway(written) else ''}"


def _ends_midway(text: str) -> bool:
    """Return whether a text is the beginning of a JSON object that has no end."""
    try:
        json.loads(text, strict=False)
    except json.JSONDecodeError as error:
        is_at_end = error.pos >= len(text.rstrip()) or error.msg.startswith("Unterminated string")
        return text.lstrip().startswith("{") and is_at_end
    except (ValueError, RecursionError):
        return False
    return False


def _unquote_arguments(arguments: str) -> str:
    """Return broken arguments as the model wrote them (see `graph.llm.tool_calls.quote_arguments`)."""
    try:
        text = json.loads(arguments)
    except (ValueError, RecursionError):
        return arguments
    return text if isinstance(text, str) else arguments


def _sanitize_name(name: str) -> str:
    return re.sub(r"[^A-Za-z0-9_-]", "_", name)[:MAX_NAME_CHARS] or "unnamed"
