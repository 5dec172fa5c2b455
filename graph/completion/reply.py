"""What a model said, made fit for the history: each call has an id of its own, a name, and an object of arguments."""

import json
import re
import weakref
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple
from uuid import uuid4

from langchain_core.language_models import LanguageModelInput
from langchain_core.messages import AIMessage, AIMessageChunk, AnyMessage, ToolMessage
from langchain_core.messages import ToolCall as RequestedCall
from langchain_core.messages.ai import add_ai_message_chunks
from langchain_core.runnables import Runnable

from graph import wire
from graph.conversation import refusal
from graph.sanitize import clean
from graph.tools.catalog import TOOLS, Side, side


class Reply(NamedTuple):
    message: AIMessage
    answers: list[ToolMessage]
    """To the calls whose arguments could not be read."""


async def complete(
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
        if text := clean(chunk.text):
            on_text(text)
    return _reply(_merged(chunks), history, parallel)


def _merged(chunks: Sequence[Any]) -> AIMessage:
    if not chunks:
        return AIMessage("")
    return add_ai_message_chunks(*chunks) if isinstance(chunks[0], AIMessageChunk) else chunks[0]


def _reply(said: AIMessage, history: Sequence[AnyMessage], parallel: bool) -> Reply:
    requests = _kept([*_requests(said)], parallel)
    taken = _ids(history) if requests else set()
    calls: list[RequestedCall] = []
    answers: list[ToolMessage] = []
    for name, arguments, call_id in requests:
        read = _object(arguments)
        call = RequestedCall(name=_name(name), args=read or {}, id=_own_id(call_id, taken), type="tool_call")
        calls.append(call)
        if read is None:
            said_instead = clean(_unquoted(str(arguments)))[:200]
            answers.append(refusal(call, f"The arguments are not a JSON object: {said_instead}"))
    message = AIMessage(
        clean(said.text),
        id=f"msg_{uuid4().hex}",
        tool_calls=calls,
        usage_metadata=said.usage_metadata,
        response_metadata={k: v for k, v in said.response_metadata.items() if k == "model_name"},
    )
    return Reply(message, answers)


_taken: dict[int, tuple[Any, frozenset[str | None]]] = {}
"""By the message that was the last one: the ids of all calls up to it, for as long as it lives."""


def _ids(history: Sequence[AnyMessage]) -> set[str | None]:
    """A conversation is not walked through again for each answer."""
    taken: set[str | None] = set()
    for message in reversed(history):
        if known := _taken.pop(id(message), None):
            taken |= known[1]
            break
        taken |= {call["id"] for call in message.tool_calls} if isinstance(message, AIMessage) else set()
    if history:
        key = id(history[-1])
        _taken[key] = (weakref.ref(history[-1], lambda _: _taken.pop(key, None)), frozenset(taken))
    return taken


def _requests(said: AIMessage) -> Iterator[tuple[str, Any, str]]:
    """Name, arguments, id. A stream's pieces are read anew: langchain completes JSON that broke off in the middle."""
    found: Sequence[Any] = said.tool_call_chunks if isinstance(said, AIMessageChunk) else ()
    for call in found or [*said.tool_calls, *said.invalid_tool_calls]:
        yield call["name"] or "", call["args"], call["id"] or ""


def _kept(requests: list[tuple[str, Any, str]], parallel: bool) -> list[tuple[str, Any, str]]:
    """A control call stands alone: first, it is the only one; later, it is dropped."""
    if not requests or not parallel or _is_control(requests[0][0]):
        return requests[:1]
    return [request for request in requests if not _is_control(request[0])]


def _is_control(name: str) -> bool:
    return name in TOOLS and side(name) is Side.CONTROL


def _object(arguments: Any) -> dict[str, Any] | None:
    if isinstance(arguments, str):
        try:
            arguments = json.loads(arguments or "{}", parse_constant=str)
        except (ValueError, RecursionError):
            return None
    return clean(arguments) if isinstance(arguments, dict) else None


def _unquoted(arguments: str) -> str:
    """As the model wrote them (see `graph.llm.calls.quoted`)."""
    try:
        text = json.loads(arguments)
    except (ValueError, RecursionError):
        return arguments
    return text if isinstance(text, str) else arguments


def _name(name: str) -> str:
    return re.sub(r"[^A-Za-z0-9_-]", "_", name)[:64] or "unnamed"


def _own_id(call_id: str, taken: set[str | None]) -> str:
    """The model's id, unless it gave none or one that the thread knows already."""
    if not re.fullmatch(wire.ID, call_id) or call_id in taken:
        call_id = f"call_{uuid4().hex}"
    taken.add(call_id)
    return call_id
