"""What a run said, read off its thread: its process died when the thread was durable and the outcome was not yet."""

from typing import Any

from langchain_core.messages import AIMessage, HumanMessage, ToolMessage
from langgraph.types import StateSnapshot

from graph import wire
from graph.errors import Interrupted
from graph.execution.outcome import Outcome, mark_last_final, outcome_from_snapshot
from graph.permissions.decisions import conclusion
from graph.state import announcement

WHOLE = wire.StreamOptions()


def recovered(snapshot: StateSnapshot, message: wire.Message, since: str) -> Outcome:
    """`message` started the run at `since`. Refusals are not told again; an error that ended it is told as a break."""
    values = snapshot.values
    found = outcome_from_snapshot(snapshot, [])
    hops, texts = _hops(values, since), _all_texts(values, message)
    calls = [
        each.call
        for each in (found.pause.calls if found.pause else [])
        if each.created_at >= since or each.call.call_id == getattr(message, "call_id", None)
    ]
    chunks = [*hops, *texts, *calls]
    if not found.pause and not (texts or _only_switched(message)):
        chunks.append(wire.failure(Interrupted("The service stopped before the end of this was sent. Send it again.")))
    ended = bool(calls) or not found.pause
    return outcome_from_snapshot(snapshot, mark_last_final(chunks) if ended else chunks)


def so_far(snapshot: StateSnapshot, message: wire.Message, since: str) -> list[wire.Chunk]:
    """What a run said that goes on where it was cut off; nothing of it is final."""
    return [*_hops(snapshot.values, since), *_all_texts(snapshot.values, message)]


def _hops(values: dict[str, Any], since: str) -> list[wire.Chunk]:
    return [announcement(switch) for switch in values.get("switches", []) if switch["timestamp"] >= since]


def _all_texts(values: dict[str, Any], message: wire.Message) -> list[wire.Chunk]:
    said = [] if _only_switched(message) else _said(values, message)
    return [chunk for each in said for chunk in _texts(each)]


def _only_switched(message: wire.Message) -> bool:
    return isinstance(message, wire.SwitchAgent) and not message.content.strip()


def _said(values: dict[str, Any], message: wire.Message) -> list[AIMessage]:
    """The model's messages since the run began."""
    messages = values.get("messages", [])
    for start in range(len(messages) - 1, -1, -1):
        match messages[start]:
            case HumanMessage():
                break
            case ToolMessage(tool_call_id=call_id) if call_id == getattr(message, "call_id", None):
                break
    else:
        return []
    return [each for each in messages[start:] if isinstance(each, AIMessage)]


def _texts(said: AIMessage) -> list[wire.Chunk]:
    ends = [ending for call in said.tool_calls if (ending := conclusion(call))]
    text, about = ends[0] if ends else ("", said.additional_kwargs.get("told"))
    whole = "\n\n".join(part for part in (str(said.content), text) if part)
    return [wire.whole_text(whole, WHOLE, is_final=False, metadata=about)] if whole else []
