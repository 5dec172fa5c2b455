"""Taking a message in: one transaction that stores it, with the decision it makes, or says why it changes nothing."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, RowMapping

from graph import wire
from graph.answers import check
from graph.errors import CallNotOpen, EditRefused, IdempotencyConflict
from graph.gate import Gatekeeper
from graph.turn import Graph, OpenCall, Pause
from sessions import audit, grants, store
from sessions.database import Database


@dataclass(frozen=True)
class Request:
    """A well-formed message for a session."""

    session_id: str
    message: wire.Message
    options: wire.StreamOptions
    idempotency_key: str | None = None

    @property
    def key(self) -> str | None:
        """Under what a retry of it is known."""
        if isinstance(self.message, wire.ToolResult | wire.HitlDecision):
            return f"{self.message.type}:{self.message.call_id}"
        given = self.idempotency_key or self.message.id
        return f"message:{given}" if given else None

    @property
    def body_hash(self) -> str:
        body = self.message.model_dump_json(exclude={"stream", "tool_name", "id"})
        return hashlib.sha256(body.encode()).hexdigest()


@dataclass(frozen=True)
class Accepted:
    pause: Pause | None
    """What the message answers, or leaves behind."""


async def accept(
    database: Database, graph: Graph, gatekeeper: Gatekeeper, request: Request, run_id: str
) -> Accepted | list[wire.Chunk]:
    """What to run, or what an earlier run of the message said.

    Raises CallNotOpen, EditRefused, InvalidDecision, IdempotencyConflict.
    """

    def work(connection: Connection) -> Accepted | list[wire.Chunk]:
        return _accept(connection, gatekeeper, request, run_id)

    try:
        return await database.transact(work)
    except EditRefused:
        await database.transact(lambda connection: _refused_edit(connection, request))
        raise
    except _InTheWayError:
        await forget_thread(graph, request.session_id)
        await database.transact(lambda connection: store.clear_deleted(connection, request.session_id))
        return await database.transact(work)


class _InTheWayError(Exception):
    """A session was deleted under this id; what is left of it has to go, but for its audit."""


def _accept(
    connection: Connection, gatekeeper: Gatekeeper, request: Request, run_id: str
) -> Accepted | list[wire.Chunk]:
    row = _row(connection, request)
    pause = store.pause_of(row)
    if (told := _told_before(connection, request, pause)) is not None:
        return told
    entries = _decisions(request.message, pause, gatekeeper)
    entries = [each for each in entries if not _is_known(connection, request, pause, each)]
    if row is None:
        store.create(connection, request.session_id, _title(request.message))
    asked = {
        "key": request.key,
        "body_hash": request.body_hash,
        "options": request.options.model_dump(),
        "pause": pause and pause.model_dump(mode="json"),
    }
    store.add_run(connection, run_id, request.session_id, request.message, asked)
    audit.append(connection, request.session_id, entries)
    _remember(connection, request, pause)
    return Accepted(pause)


def _remember(connection: Connection, request: Request, pause: Pause | None) -> None:
    """Beyond the run: what is allowed in advance, what a result was, what ends with a turn. Raises InvalidDecision."""
    match request.message:
        case wire.HitlDecision(remember=wire.Remember()) as said:
            if row := grants.remembered(_answered(pause, said), said):
                grants.add(connection, request.session_id, row)
        case wire.ToolResult() as said:
            audit.result(connection, request.session_id, _answered(pause, said), said)
        case wire.UserMessage() | wire.SwitchAgent():
            grants.end(connection, request.session_id, scope="turn")


def _row(connection: Connection, request: Request) -> RowMapping | None:
    row = store.row(connection, request.session_id)
    if row is None or not row["deleted_at"]:
        return row
    if isinstance(request.message, wire.UserMessage | wire.SwitchAgent):
        raise _InTheWayError
    return None


async def forget_thread(graph: Graph, session_id: str) -> None:
    await graph.checkpointer.adelete_thread(session_id)


def _refused_edit(connection: Connection, request: Request) -> None:
    """For a transaction of its own: nothing else of the message is kept."""
    pause = store.pause_of(store.session(connection, request.session_id))
    match request.message:
        case wire.HitlDecision() as said if pause:
            entry = audit.decision(_answered(pause, said), said)
            audit.append(connection, request.session_id, [{**(entry or {}), "decision": "edit_refused"}])


def _decisions(message: wire.Message, pause: Pause | None, gatekeeper: Gatekeeper) -> list[dict[str, Any]]:
    """The audit of what the message decides. Raises CallNotOpen, EditRefused."""
    if isinstance(message, wire.UserMessage | wire.SwitchAgent):
        open_calls = pause.calls if pause else []
        return [audit.entry(call, "cancel", "system", feedback="the user went on") for call in open_calls]
    open_call = _answered(pause, message)
    if isinstance(message, wire.HitlDecision) and message.decision == "approve":
        gatekeeper.still_possible(open_call.agent, open_call.call.tool_name, open_call.call.arguments)
    if isinstance(message, wire.HitlDecision) and message.decision == "edit":
        gatekeeper.edited(
            open_call.agent, open_call.call.tool_name, open_call.call.arguments, message.modified_arguments
        )
    entry = audit.decision(open_call, message)
    return [entry] if entry else []


def _is_known(connection: Connection, request: Request, pause: Pause | None, entry: dict[str, Any]) -> bool:
    """Whether this was decided by a run that was cut off twice. Raises CallNotOpen if the opposite was."""
    if isinstance(request.message, wire.UserMessage | wire.SwitchAgent):
        return False
    before = audit.decided(connection, request.session_id, _answered(pause, request.message))
    if before is None:
        return False
    if (before.decision, before.modified_arguments) != (entry["decision"], entry["modified_arguments"]):
        raise CallNotOpen(f"The call {entry['call_id']} was decided already: {before.decision}. Send that again.")
    return True


def _answered(pause: Pause | None, said: wire.ToolResult | wire.HitlDecision) -> OpenCall:
    """The open call that is answered. Raises CallNotOpen."""
    open_calls = pause.calls if pause else []
    call = check([each.call for each in open_calls], said)
    return next(each for each in open_calls if each.call is call)


def _title(message: wire.Message) -> str:
    content = message.content if isinstance(message, wire.UserMessage | wire.SwitchAgent) else ""
    return content.strip().split("\n", maxsplit=1)[0][: store.TITLE]


def _told_before(connection: Connection, request: Request, pause: Pause | None) -> list[wire.Chunk] | None:
    if request.key is None:
        return None
    answer = request.message if isinstance(request.message, wire.ToolResult | wire.HitlDecision) else None
    if answer and _fits(answer, pause):
        return None
    row = store.run_by_key(connection, request.session_id, request.key)
    if row is None:
        return None
    if row["body_hash"] != request.body_hash:
        if answer:
            return None
        raise IdempotencyConflict("Another message was sent under this id; send this one under an id of its own.")
    told = _told(connection, row, pause)
    return [chunk.model_copy(update={"is_final": chunk is told[-1]}) for chunk in told]


def _fits(message: wire.ToolResult | wire.HitlDecision, pause: Pause | None) -> bool:
    try:
        _answered(pause, message)
    except CallNotOpen:
        return False
    return True


def _told(connection: Connection, row: RowMapping, pause: Pause | None) -> list[wire.Chunk]:
    """A run's chunks; in place of a call that is not open as it was, what came of it."""
    chunks: list[wire.Chunk] = []
    for chunk in _chunks(row):
        if not isinstance(chunk, wire.ToolCall) or is_open(chunk, pause):
            chunks.append(chunk)
            continue
        if later := _answer_to(connection, row["session_id"], chunk):
            chunks += _told(connection, later, pause)
        else:
            chunks.append(wire.failure(closed(chunk, pause)))
    return chunks


def closed(call: wire.ToolCall, pause: Pause | None) -> CallNotOpen:
    still = ", ".join(each.call.call_id for each in pause.calls) if pause else "none"
    return CallNotOpen(f"The call {call.call_id} is not open any more. Open calls: {still}.")


def _answer_to(connection: Connection, session_id: str, call: wire.ToolCall) -> RowMapping | None:
    """The run of the decision on a call, or of its result."""
    decision = call.requires_approval and store.run_by_key(connection, session_id, f"hitl_decision:{call.call_id}")
    return decision or store.run_by_key(connection, session_id, f"tool_result:{call.call_id}")


def is_open(chunk: wire.ToolCall, pause: Pause | None) -> bool:
    return any(
        (each.call.call_id, each.call.requires_approval) == (chunk.call_id, chunk.requires_approval)
        for each in (pause.calls if pause else [])
    )


def _chunks(row: RowMapping) -> Sequence[wire.Chunk]:
    return [wire.CHUNK.validate_json(data) for _, name, data in row["events"] or [] if name != "done"]
