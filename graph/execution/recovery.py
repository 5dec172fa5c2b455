"""Rebuild the output of a run from its thread: its process died after the thread and before the outcome was stored."""

from collections.abc import Set

from langchain_core.messages import AIMessage, AnyMessage, HumanMessage, ToolMessage
from langgraph.types import StateSnapshot

from graph import wire
from graph.completion.continuation import build_truncation_note
from graph.errors import Interrupted
from graph.execution.outcome import Outcome, mark_last_final, outcome_from_snapshot, state_of
from graph.marks import chunk_metadata_of, is_refused
from graph.permissions.endings import join_ending, turn_ending
from graph.state import State, handoff, handoff_chunk

DEFAULT_OPTIONS = wire.StreamOptions()


def rebuild_outcome(snapshot: StateSnapshot, message: wire.Message, since: str) -> Outcome:
    """Return the outcome of a finished run. `message` started it, `since` is the timestamp of its start.

    Refused calls are not sent again. If the run ended with an error, its last chunk is an `Interrupted` error.
    """
    state, outcome = state_of(snapshot), outcome_from_snapshot(snapshot, [])
    handoffs, texts = _rebuild_handoffs(state, since), _rebuild_texts(state, message)
    if isinstance(message, wire.SwitchAgent) and _is_switch_only(message) and not handoffs:
        handoffs = [handoff(outcome.agent, message.agent_type, message.reason)[1]]  # it had the conversation already
    calls = [
        each.call
        for each in (outcome.pause.calls if outcome.pause else [])
        if each.created_at >= since or each.call.call_id == getattr(message, "call_id", None)
    ]
    chunks = [*handoffs, *texts, *calls]
    if not outcome.pause and not (texts or _is_switch_only(message)):
        error = Interrupted("The service stopped before it could send the end of the answer. Send the message again.")
        chunks.append(wire.error_chunk(error))
    ended = bool(calls) or not outcome.pause
    return outcome_from_snapshot(snapshot, mark_last_final(chunks) if ended else chunks)


def rebuild_chunks(snapshot: StateSnapshot, message: wire.Message, since: str) -> list[wire.Chunk]:
    """Return the chunks so far of a run that will be continued; none of them is final."""
    state = state_of(snapshot)
    return [*_rebuild_handoffs(state, since), *_rebuild_texts(state, message)]


def _rebuild_handoffs(state: State, since: str) -> list[wire.Chunk]:
    return [handoff_chunk(switch) for switch in state.get("switches", []) if switch["timestamp"] >= since]


def _rebuild_texts(state: State, message: wire.Message) -> list[wire.Chunk]:
    messages = [] if _is_switch_only(message) else _find_run_messages(state, message)
    refused = {each.tool_call_id for each in messages if isinstance(each, ToolMessage) and is_refused(each)}
    answers = [each for each in messages if isinstance(each, AIMessage)]
    return [chunk for answer in answers for chunk in _build_text_chunks(answer, refused)]


def _is_switch_only(message: wire.Message) -> bool:
    return isinstance(message, wire.SwitchAgent) and not message.content.strip()


def _find_run_messages(state: State, message: wire.Message) -> list[AnyMessage]:
    """Return the messages since the run began."""
    messages = state.get("messages", [])
    for start in range(len(messages) - 1, -1, -1):
        match messages[start]:
            case HumanMessage():
                break
            case ToolMessage(tool_call_id=call_id) if call_id == getattr(message, "call_id", None):
                break
    else:
        return []
    return messages[start:]


def _build_text_chunks(message: AIMessage, refused: Set[str | None]) -> list[wire.Chunk]:
    """Return the text of a model's message as one chunk, or none if it has no text.

    `refused` are the ids of the calls that the service refused: those ended no turn.
    """
    endings = [ending for call in message.tool_calls if call["id"] not in refused if (ending := turn_ending(call))]
    text, metadata = endings[0] if endings else ("", chunk_metadata_of(message))
    whole = join_ending(f"{message.content}{build_truncation_note(message)}", text)
    return [wire.assistant_chunk(whole, DEFAULT_OPTIONS, is_final=False, metadata=metadata)] if whole else []
