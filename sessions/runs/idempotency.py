"""Recognise a message that was sent before, and find what became of it."""

from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import Connection, RowMapping

from graph import wire
from graph.errors import CallNotOpen, IdempotencyConflict
from graph.execution.outcome import OpenCall, Pause, mark_last_final
from graph.permissions.decisions import require_open_call
from sessions.request import RunRequest
from sessions.runs.status import RunStatus
from sessions.store import runs as run_rows


@dataclass(frozen=True)
class Joined:
    """The message is a retry; its run is not done yet."""

    run_id: str


@dataclass(frozen=True)
class Replayed:
    """The message is a retry; its run is done."""

    chunks: list[wire.Chunk]


def require_answered_call(pause: Pause | None, answer: wire.ToolResult | wire.HitlDecision) -> OpenCall:
    """Return the open call that the message answers. Raises CallNotOpen."""
    open_calls = pause.calls if pause else []
    call = require_open_call([each.call for each in open_calls], answer)
    return next(each for each in open_calls if each.call is call)


def find_duplicate(connection: Connection, request: RunRequest, pause: Pause | None) -> Joined | Replayed | None:
    """Return what the message repeats; None if it is new. Raises IdempotencyConflict.

    The same key with another body is a conflict, except for answers: a call may be answered again after an undo.
    """
    row = request.key and run_rows.find_run_by_key(connection, request.session_id, request.key)
    if not row:
        return None
    answer = request.message if isinstance(request.message, wire.ToolResult | wire.HitlDecision) else None
    if row["status"] != RunStatus.DONE and row["body_hash"] == request.body_hash:
        return Joined(row["id"])
    if answer and _has_open_call(answer, pause):
        return None
    if row["body_hash"] != request.body_hash:
        if answer:
            return None
        raise IdempotencyConflict("Another message was sent under this id; send this one under an id of its own.")
    return Replayed(mark_last_final(_replay_chunks(connection, row, pause)))


def _has_open_call(message: wire.ToolResult | wire.HitlDecision, pause: Pause | None) -> bool:
    try:
        require_answered_call(pause, message)
    except CallNotOpen:
        return False
    return True


def _replay_chunks(connection: Connection, row: RowMapping, pause: Pause | None) -> list[wire.Chunk]:
    """Return the chunks of a run. A tool call that is not open any more is replaced by what became of it."""
    chunks: list[wire.Chunk] = []
    for chunk in _parse_chunks(row):
        if not isinstance(chunk, wire.ToolCall) or is_open(chunk, pause):
            chunks.append(chunk)
            continue
        if later := _find_answer_run(connection, row["session_id"], chunk):
            chunks += _replay_chunks(connection, later, pause)
        else:
            chunks.append(wire.error_chunk(call_not_open_error(chunk, pause)))
    return chunks


def call_not_open_error(call: wire.ToolCall, pause: Pause | None) -> CallNotOpen:
    open_ids = ", ".join(each.call.call_id for each in pause.calls) if pause else "none"
    return CallNotOpen(f"The call {call.call_id} is not open any more. Open calls: {open_ids}.")


def _find_answer_run(connection: Connection, session_id: str, call: wire.ToolCall) -> RowMapping | None:
    """Return the run of the decision on a call, or of its result."""
    decision = call.requires_approval and run_rows.find_run_by_key(
        connection, session_id, f"hitl_decision:{call.call_id}"
    )
    return decision or run_rows.find_run_by_key(connection, session_id, f"tool_result:{call.call_id}")


def is_open(chunk: wire.ToolCall, pause: Pause | None) -> bool:
    """Return whether the call is still open in the same way: to be decided, or to be run."""
    return any(
        (each.call.call_id, each.call.requires_approval) == (chunk.call_id, chunk.requires_approval)
        for each in (pause.calls if pause else [])
    )


def _parse_chunks(row: RowMapping) -> Sequence[wire.Chunk]:
    return [wire.CHUNK_ADAPTER.validate_json(data) for _, name, data in row["events"] or [] if name != "done"]
