"""Turn a list of messages into a history that model services and chat templates accept, however strict. Pure.

The strictest rules together: a message of the user comes first; then calls, each message of them directly before its
results; then a text of the assistant; then the next message of the user. No text is blank.

Nothing is joined or moved. A short text stands between two messages that may not be neighbours, so what was sent once
is sent again unchanged, and the provider's prompt cache holds.
"""

from collections.abc import Collection, Sequence
from typing import Literal, NamedTuple

from langchain_core.messages import AIMessage, AnyMessage, HumanMessage, ToolMessage

from graph.marks import is_aside
from graph.per_message_cache import PerMessageCache
from graph.permissions.decisions import NO_OUTPUT
from graph.permissions.endings import join_ending, turn_ending
from textsafety import is_blank_text

NO_ANSWER = AIMessage("(no answer)")
"""Stands for the text that ends a turn which has none: it failed, it was cancelled, or the user went on."""
CONTINUATION = HumanMessage("(continue)")
"""Stands before a message of the assistant that follows a text of the assistant."""
EMPTY_MESSAGE = "(empty message)"
"""Stands for a blank text of the user."""
UNKNOWN_RESULT = "no result came; it is not known whether it ran"
"""Stands for the result of a call that has none."""


class _Part(NamedTuple):
    """The part of one message in a history."""

    role: Literal["user", "assistant", "calls", "result", "nothing"]
    replacement: AnyMessage | None = None
    """The message to send in its place; None: the message itself, which must not keep itself alive."""
    call_ids: tuple[str, ...] = ()
    """The calls that the message makes or answers."""
    ending: AIMessage | None = None
    """The text that the user saw, if a call of the message ended the turn."""


_START = _Part("assistant")
"""Stands before the first message: a message of the user is due, as after a text of the assistant."""
_ANSWERED = _Part("calls")
"""Stands for calls with results, none of which ended the turn."""
_USER, _ASSISTANT, _NOTHING = _Part("user"), _Part("assistant"), _Part("nothing")


def make_acceptable(messages: Sequence[AnyMessage]) -> list[AnyMessage]:
    """Return the history to send after a system prompt. Its last message is a user's or a result.

    Asides, blank texts and results without their call are left out. The history of a longer conversation begins with
    the same messages, unless a call was open at the end or the assistant had the last word.
    """
    sent: list[AnyMessage] = []
    before: _Part = _START
    waiting: Collection[str] = ()
    for message, part in zip(messages, _get_part.map(messages), strict=True):
        role, replacement, call_ids, _ = part
        if role == "result":
            if call_ids[0] not in waiting:
                continue
            waiting = () if len(waiting) == 1 else {*waiting} - {*call_ids}
            if before.ending and _is_error(message):
                before = _ANSWERED
        elif role == "nothing":
            continue
        else:
            if waiting:
                sent += _build_missing_results(sent, waiting)
                before = _ANSWERED
            if role == "user":
                if before.role != "assistant":
                    sent.append(before.ending or NO_ANSWER)
            elif before.role == "assistant":
                sent.append(CONTINUATION)
            before, waiting = part, call_ids
        sent.append(replacement or message)
    if waiting:
        sent += _build_missing_results(sent, waiting)
    if before.role == "assistant":
        sent.append(CONTINUATION)
    return sent


def _is_error(message: AnyMessage) -> bool:
    return isinstance(message, ToolMessage) and message.status == "error"


def _build_missing_results(sent: Sequence[AnyMessage], waiting: Collection[str]) -> list[ToolMessage]:
    """Return a result for each call of the last message with calls that waits for one."""
    calls = next(message.tool_calls for message in reversed(sent) if isinstance(message, AIMessage))
    return [
        ToolMessage(UNKNOWN_RESULT, tool_call_id=call["id"], name=call["name"], status="error")
        for call in calls
        if call["id"] in waiting
    ]


def _analyse(message: AnyMessage) -> _Part:
    blank = is_blank_text(str(message.text))
    match message:
        case _ if is_aside(message):
            return _NOTHING
        case ToolMessage():
            filled = message.model_copy(update={"content": NO_OUTPUT}) if blank else None
            return _Part("result", filled, (message.tool_call_id,))
        case AIMessage(tool_calls=[]):
            return _NOTHING if blank else _ASSISTANT
        case AIMessage():
            emptied = message.model_copy(update={"content": ""}) if blank and message.content else None
            call_ids = tuple(call["id"] or "" for call in message.tool_calls)
            return _Part("calls", emptied, call_ids, _find_ending(message))
        case HumanMessage():
            return _Part("user", HumanMessage(EMPTY_MESSAGE)) if blank else _USER
    return _NOTHING if blank else _Part("user", HumanMessage(str(message.text)))


def _find_ending(message: AIMessage) -> AIMessage | None:
    """Return the text that the user saw if a call of the message ended the turn."""
    for call in message.tool_calls:
        if ending := turn_ending(call):
            text = join_ending(str(message.text), ending[0])
            return None if is_blank_text(text) else AIMessage(text)
    return None


_get_part = PerMessageCache(_analyse)
