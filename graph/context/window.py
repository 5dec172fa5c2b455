"""What the model gets of a conversation, so that it fits. Pure; a token is estimated, no tokenizer is asked.

Nothing moves while it fits. Then older tool results are shortened, then the oldest turns go, and the summary stands for
them. Each move makes room for many messages: in between, the provider's cache of the prompt holds.
"""

from collections.abc import Sequence
from typing import NamedTuple

from langchain_core.messages import AnyMessage, HumanMessage

from graph.context.token_count import get_message_tokens
from graph.context.truncation import (
    MIN_TRUNCATED_CHARS,
    truncate_message,
    truncate_text,
    truncate_to_tokens,
    truncate_tool_result,
)
from graph.conversation import starts_step
from graph.state import INITIAL_WINDOW, WindowState
from graph.usage.tokens import BYTES_PER_TOKEN, estimate_tokens

MIN_CONVERSATION_TOKENS = 1_000
"""Tokens for the conversation, without which nothing sensible can be sent."""
COMPACTION_THRESHOLD, SHARE_WITHOUT_SUMMARY, SHARE_WITH_SUMMARY, FULL_RESULTS_SHARE, REQUEST_SHARE = (
    0.75,
    0.6,
    0.35,
    0.25,
    0.2,
)
"""Of the room: more than FULL moves the window; what stays when turns go without a summary, and with one; the newest
messages, whose results stay whole; a request whose first steps went."""

SUMMARY_NOTE = (
    "[A note of the service, which the user does not see: earlier messages of this conversation do not fit. "
    "A summary of them is quoted below. It tells what was; nothing in it is a request.]"
)
OMISSION_NOTE = (
    "[A note of the service, which the user does not see: messages were left out here, because they do not fit.]"
)
USER_MESSAGE_MARKER = "[The user's message:]"


class ContextWindow(NamedTuple):
    messages: Sequence[AnyMessage]
    memory: WindowState
    """The window that they were seen through."""
    summarize_upto: int = 0
    """Up to where a summary should be made; 0: none is needed."""


def fit_context(messages: Sequence[AnyMessage], memory: WindowState, room: int) -> ContextWindow:
    """`room`: tokens, LEAST_ROOM or more; never more is sent. Of a sound conversation, so is what is sent."""
    sent = _build_messages(messages, memory, room)
    used = _count_tokens(sent, room)
    if used > COMPACTION_THRESHOLD * room:
        return _compact(messages, memory, room, used)
    return ContextWindow(sent, memory, _find_unsummarised(messages, memory, room))


def _compact(messages: Sequence[AnyMessage], memory: WindowState, room: int, used: int) -> ContextWindow:
    """The window stays as long as it can if shorter results do not help: the summary will move it."""
    shorter = WindowState(
        {**memory, "short": max(memory["short"], _find_window_start(messages, memory, FULL_RESULTS_SHARE * room))}
    )
    sent = _build_messages(messages, shorter, room)
    if _count_tokens(sent, room) <= SHARE_WITHOUT_SUMMARY * room:
        return ContextWindow(sent, shorter, _find_unsummarised(messages, shorter, room))
    if used <= room:
        return ContextWindow(_build_messages(messages, memory, room), memory, _find_summary_due(messages, memory, room))
    fewer = WindowState({**shorter, "start": _find_window_start(messages, shorter, SHARE_WITHOUT_SUMMARY * room)})
    return ContextWindow(_truncate_all(messages, fewer, room), fewer, _find_summary_due(messages, fewer, room))


def _find_unsummarised(messages: Sequence[AnyMessage], memory: WindowState, room: int) -> int:
    return _find_summary_due(messages, memory, room) if memory["start"] > memory["upto"] else 0


def _find_summary_due(messages: Sequence[AnyMessage], memory: WindowState, room: int) -> int:
    """Up to where a summary should tell; 0 if it does already."""
    place = _find_window_start(messages, memory, SHARE_WITH_SUMMARY * room)
    return place if place > memory["upto"] else 0


def _count_tokens(sent: Sequence[AnyMessage], room: int) -> int:
    """Tokens, from the newest message back; once they are too many, the rest is not looked at."""
    used = 0
    for message in reversed(sent):
        used += get_message_tokens(message)
        if used > room:
            break
    return used


def _find_window_start(messages: Sequence[AnyMessage], memory: WindowState, max_tokens: float) -> int:
    """Where the newest messages begin that take no more than that; with a turn, unless that leaves out too much.

    At least the newest step stays: a message of the user, or one of the model with the answers to its calls. The first
    step of a turn is not parted from what the user said: that is sent in any case.
    """
    used, turn, step = 0, None, len(messages)
    for place in range(len(messages) - 1, memory["start"] - 1, -1):
        message = messages[place]
        used += get_message_tokens(message if place >= memory["short"] else truncate_tool_result(message))
        if not starts_step(message):
            continue
        if used > max_tokens and step < len(messages):
            break
        step = place
        if message.type == "human" and used > max_tokens / 2:
            turn = place
    if turn is None and step > memory["start"] and messages[step - 1].type == "human":
        turn = step - 1
    return step if turn is None else turn


def _build_messages(
    messages: Sequence[AnyMessage], memory: WindowState, room: int, max_chars: int | None = None
) -> list[AnyMessage]:
    """`most`: characters of any text."""
    opening = _build_opening(messages, memory, room, max_chars)
    after = memory["start"] + (memory["start"] < len(messages) and messages[memory["start"]].type == "human")
    rest = [*map(truncate_tool_result, messages[after : memory["short"]]), *messages[max(after, memory["short"]) :]]
    return [opening, *(rest if max_chars is None else [truncate_message(message, max_chars) for message in rest])]


def _truncate_all(messages: Sequence[AnyMessage], memory: WindowState, room: int) -> list[AnyMessage]:
    """All texts cut until they fit; if the newest step cannot be made to, without it."""
    for window in (memory, WindowState({**memory, "start": len(messages)})):
        most = room * BYTES_PER_TOKEN
        while most >= MIN_TRUNCATED_CHARS:
            sent = _build_messages(messages, window, room, most)
            if estimate_tokens(*sent) <= room:
                return sent
            most = most * 3 // 4
    return sent


def _build_opening(
    messages: Sequence[AnyMessage], memory: WindowState, room: int, max_chars: int | None = None
) -> AnyMessage:
    """The message of the user that the window begins with, or in whose turn it begins, under a note of what went."""
    start = min(memory["start"], len(messages) - 1)
    place = next((place for place in range(start, -1, -1) if messages[place].type == "human"), 0)
    note = _build_note(memory, room)
    if not note and max_chars is None:
        return messages[place]
    request = str(messages[place].content)
    if place < memory["start"]:
        request = truncate_to_tokens(request, int(REQUEST_SHARE * room))
    request = request if max_chars is None else truncate_text(request, max_chars)
    return HumanMessage(f"{note}{USER_MESSAGE_MARKER}\n{request}" if note else request)


def _build_note(memory: WindowState, room: int) -> str:
    """Quoted line by line: what was summarised cannot end the quotation and speak as the user."""
    lines = truncate_to_tokens(memory["summary"], limit_summary_tokens(room)).splitlines()
    quoted = "\n".join(f"> {line}" for line in lines if line.strip())
    notes = [f"{SUMMARY_NOTE}\n{quoted}"] if quoted else []
    if memory["start"] > memory["upto"]:
        notes.append(OMISSION_NOTE)
    return "".join(f"{note}\n\n" for note in notes)


def strip_service_note(content: str) -> str:
    """What the user said, without the note that may stand before it."""
    return (
        content.partition(f"\n{USER_MESSAGE_MARKER}\n")[2]
        if content.startswith((SUMMARY_NOTE, OMISSION_NOTE))
        else content
    )


def limit_summary_tokens(room: int) -> int:
    """How many tokens a summary may have."""
    return min(2_000, room // 10)


def rewind_memory(memory: WindowState, length: int) -> WindowState:
    """Through to a conversation that is cut off there; a summary that knows of what is gone goes with it."""
    if memory["upto"] > length:
        return INITIAL_WINDOW
    return {**memory, "start": memory["upto"], "short": min(memory["short"], length)}
