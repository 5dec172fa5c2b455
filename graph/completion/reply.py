"""What a model said, made fit for the history: each call has an id of its own, a name, and an object of arguments."""

import json
import re
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple
from uuid import uuid4

from langchain_core.language_models import LanguageModelInput
from langchain_core.messages import AIMessage, AIMessageChunk, AnyMessage, ToolMessage
from langchain_core.messages import ToolCall as RequestedCall
from langchain_core.messages.ai import add_ai_message_chunks
from langchain_core.runnables import Runnable

from graph import wire
from graph.conversation import refusal_message
from graph.per_message_cache import PerMessageStore
from graph.sanitize import sanitize_value
from graph.tools.catalog import TOOLS, ToolExecutor, executor_of


class Reply(NamedTuple):
    message: AIMessage
    answers: list[ToolMessage]
    """To the calls whose arguments could not be read."""


async def stream_reply(
    model: Runnable[LanguageModelInput, AIMessage],
    messages: list[AnyMessage],
    on_text: Callable[[str], None],
    *,
    parallel: bool,
    history: Sequence[AnyMessage],
) -> Reply:
    """Ask the model, handing on its words as they come; of several calls the first is kept, unless `parallel`.

    `history`: the conversation, of which `messages` may be a part; no call's id comes twice in it.
    """
    chunks: list[Any] = []
    async for chunk in model.astream(messages):
        chunks.append(chunk)
        if text := sanitize_value(chunk.text):
            on_text(text)
    return _normalize_reply(_merge_chunks(chunks), history, parallel)


def _merge_chunks(chunks: Sequence[Any]) -> AIMessage:
    if not chunks:
        return AIMessage("")
    return add_ai_message_chunks(*chunks) if isinstance(chunks[0], AIMessageChunk) else chunks[0]


def _normalize_reply(answer: AIMessage, history: Sequence[AnyMessage], parallel: bool) -> Reply:
    requests = _select_calls([*_extract_calls(answer)], parallel)
    taken = _collect_call_ids(history) if requests else set()
    calls: list[RequestedCall] = []
    answers: list[ToolMessage] = []
    for name, arguments, call_id in requests:
        read = _parse_arguments(arguments)
        call = RequestedCall(
            name=_sanitize_name(name), args=read or {}, id=_assign_call_id(call_id, taken), type="tool_call"
        )
        calls.append(call)
        if read is None:
            said_instead = sanitize_value(_unquote_arguments(str(arguments)))[:200]
            answers.append(refusal_message(call, f"The arguments are not a JSON object: {said_instead}"))
    message = AIMessage(
        sanitize_value(answer.text),
        id=f"msg_{uuid4().hex}",
        tool_calls=calls,
        usage_metadata=answer.usage_metadata,
        response_metadata={k: v for k, v in answer.response_metadata.items() if k == "model_name"},
    )
    return Reply(message, answers)


_call_ids: PerMessageStore[frozenset[str | None]] = PerMessageStore()
"""By the message that was the last one: the ids of all calls up to it, for as long as it lives."""


def _collect_call_ids(history: Sequence[AnyMessage]) -> set[str | None]:
    """A conversation is not walked through again for each answer."""
    taken: set[str | None] = set()
    for message in reversed(history):
        if (known := _call_ids.pop(message)) is not None:
            taken |= known
            break
        taken |= {call["id"] for call in message.tool_calls} if isinstance(message, AIMessage) else set()
    if history:
        _call_ids.put(history[-1], frozenset(taken))
    return taken


def _extract_calls(answer: AIMessage) -> Iterator[tuple[str, Any, str]]:
    """Name, arguments, id. A stream's pieces are read anew: langchain completes JSON that broke off in the middle."""
    found: Sequence[Any] = answer.tool_call_chunks if isinstance(answer, AIMessageChunk) else ()
    for call in found or [*answer.tool_calls, *answer.invalid_tool_calls]:
        yield call["name"] or "", call["args"], call["id"] or ""


def _select_calls(requests: list[tuple[str, Any, str]], parallel: bool) -> list[tuple[str, Any, str]]:
    """A control call stands alone: first, it is the only one; later, it is dropped."""
    if not requests or not parallel or _is_control(requests[0][0]):
        return requests[:1]
    return [request for request in requests if not _is_control(request[0])]


def _is_control(name: str) -> bool:
    return name in TOOLS and executor_of(name) is ToolExecutor.CONTROL


def _parse_arguments(arguments: Any) -> dict[str, Any] | None:
    if isinstance(arguments, str):
        try:
            arguments = json.loads(arguments or "{}", parse_constant=str)
        except (ValueError, RecursionError):
            return None
    return sanitize_value(arguments) if isinstance(arguments, dict) else None


def _unquote_arguments(arguments: str) -> str:
    """As the model wrote them (see `graph.llm.calls.quoted`)."""
    try:
        text = json.loads(arguments)
    except (ValueError, RecursionError):
        return arguments
    return text if isinstance(text, str) else arguments


def _sanitize_name(name: str) -> str:
    return re.sub(r"[^A-Za-z0-9_-]", "_", name)[:64] or "unnamed"


def _assign_call_id(call_id: str, used_ids: set[str | None]) -> str:
    """The model's id, unless it gave none or one that the thread knows already."""
    if not re.fullmatch(wire.ID_PATTERN, call_id) or call_id in used_ids:
        call_id = f"call_{uuid4().hex}"
    used_ids.add(call_id)
    return call_id
