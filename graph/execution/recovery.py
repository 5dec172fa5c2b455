"""What a run said, read off its thread: its process died when the thread was durable and the outcome was not yet."""

from typing import Any

from langchain_core.messages import AIMessage, HumanMessage, ToolMessage
from langgraph.types import StateSnapshot

from graph import wire
from graph.errors import Interrupted
from graph.execution.outcome import Outcome, mark_last_final, outcome_from_snapshot
from graph.permissions.decisions import turn_ending
from graph.state import handoff_chunk

DEFAULT_OPTIONS = wire.StreamOptions()


def rebuild_outcome(snapshot: StateSnapshot, message: wire.Message, since: str) -> Outcome:
    """`message` started the run at `since`. Refusals are not told again; an error that ended it is told as a break."""
    values = snapshot.values
    found = outcome_from_snapshot(snapshot, [])
    hops, texts = _rebuild_handoffs(values, since), _rebuild_texts(values, message)
    calls = [
        each.call
        for each in (found.pause.calls if found.pause else [])
        if each.created_at >= since or each.call.call_id == getattr(message, "call_id", None)
    ]
    chunks = [*hops, *texts, *calls]
    if not found.pause and not (texts or _is_switch_only(message)):
        chunks.append(
            wire.error_chunk(Interrupted("The service stopped before the end of this was sent. Send it again."))
        )
    ended = bool(calls) or not found.pause
    return outcome_from_snapshot(snapshot, mark_last_final(chunks) if ended else chunks)


def rebuild_chunks(snapshot: StateSnapshot, message: wire.Message, since: str) -> list[wire.Chunk]:
    """What a run said that goes on where it was cut off; nothing of it is final."""
    return [*_rebuild_handoffs(snapshot.values, since), *_rebuild_texts(snapshot.values, message)]


def _rebuild_handoffs(values: dict[str, Any], since: str) -> list[wire.Chunk]:
    return [handoff_chunk(switch) for switch in values.get("switches", []) if switch["timestamp"] >= since]


def _rebuild_texts(values: dict[str, Any], message: wire.Message) -> list[wire.Chunk]:
    said = [] if _is_switch_only(message) else _find_model_messages(values, message)
    return [chunk for each in said for chunk in _build_text_chunks(each)]


def _is_switch_only(message: wire.Message) -> bool:
    return isinstance(message, wire.SwitchAgent) and not message.content.strip()


def _find_model_messages(values: dict[str, Any], message: wire.Message) -> list[AIMessage]:
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


def _build_text_chunks(message: AIMessage) -> list[wire.Chunk]:
    ends = [ending for call in message.tool_calls if (ending := turn_ending(call))]
    text, about = ends[0] if ends else ("", message.additional_kwargs.get("told"))
    whole = "\n\n".join(part for part in (str(message.content), text) if part)
    return [wire.assistant_chunk(whole, DEFAULT_OPTIONS, is_final=False, metadata=about)] if whole else []
