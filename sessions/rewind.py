"""Taking the user's last message back, and making a second session of a conversation's past."""

from typing import Any
from uuid import uuid4

from sqlalchemy import Connection, RowMapping

from graph.db.fencing import FencingToken
from graph.errors import AgentRuntimeError
from graph.execution import history, threads
from graph.execution.history import ConversationSnapshot
from graph.execution.outcome import Graph, OpenCall, Outcome, list_open_calls, thread_config
from graph.permissions.decisions import answer_open_calls
from graph.timestamps import utc_timestamp
from sessions.lookup import SessionLookup
from sessions.snapshots import Snapshots
from sessions.store import audit, calls, grants, leases
from sessions.store import runs as run_rows
from sessions.store import sessions as session_rows
from sessions.store.database import Database

UNDONE_FEEDBACK = "the user took the message back"
COPIED_CALL_RESULT = "cancelled: this is a copy; the call belongs to the session it was made from"


class NothingToUndo(AgentRuntimeError):
    """The user has said nothing, or all of it is taken back."""

    code = "nothing_to_undo"


class NoSuchTurn(AgentRuntimeError):
    """The conversation has fewer turns."""

    code = "no_such_turn"


class Rewind:
    """Every method raises SessionNotFound."""

    def __init__(self, database: Database, graph: Graph, lookup: SessionLookup, snapshots: Snapshots) -> None:
        self._database = database
        self._graph = graph
        self._lookup = lookup
        self._snapshots = snapshots

    async def undo(self, session_id: str) -> dict[str, Any]:
        """Back to before the user's last message. Raises NothingToUndo, SessionBusy."""
        async with self._lookup.find_and_lease(session_id) as (_, lease):
            values: Any = (await self._graph.aget_state(thread_config(session_id))).values
            if not (places := history.find_turn_starts(values)):
                raise NothingToUndo("The user has said nothing that could be taken back.")
            message = values["messages"][places[-1]]
            outcome = await threads.rewrite_thread(self._graph, session_id, history.snapshot_before(values, places[-1]))
            run_id = history.read_turn_metadata(message).get("run")
            await self._database.transact(
                lambda c: _record_undo(c, lease, outcome, list_open_calls(values), run_id, str(message.content))
            )
        return {
            "session_id": session_id,
            "undone": message.content,
            "message_count": outcome.message_count,
            "current_agent": outcome.agent,
        }

    async def fork(self, session_id: str, number: int | None = None) -> dict[str, Any]:
        """From now, or from the end of a turn, counted from 1. Raises NoSuchTurn."""
        row, _, values = await self._snapshots.read_snapshot(session_id, lambda *_: None)
        copied = _copy_until_turn(values, number)
        fork_id = str(uuid4())
        await self._database.transact(lambda connection: _create_hidden_session(connection, fork_id, row))
        outcome = await threads.rewrite_thread(self._graph, fork_id, copied)
        made = await self._database.transact(lambda connection: _reveal_session(connection, fork_id, outcome))
        return {
            "session_id": fork_id,
            "message_count": made["message_count"],
            "current_agent": made["agent"],
            "created_at": made["created_at"],
            "title": made["title"],
            "forked_from": session_id,
        }


def _record_undo(
    connection: Connection,
    lease: FencingToken,
    outcome: Outcome,
    open_calls: list[OpenCall],
    run_id: str | None,
    content: str,
) -> None:
    """Once, also if the transaction is made again."""
    if leases.require_lease(connection, lease)["checkpoint_id"] == outcome.checkpoint_id:
        return
    entries = [audit.make_entry(each, "cancel", "system", feedback=UNDONE_FEEDBACK) for each in open_calls]
    audit.append_entries(connection, lease.session_id, entries)
    calls.record_decisions(connection, lease.session_id, entries)
    grants.end_grants(connection, lease.session_id, scope="turn")
    run_rows.release_idempotency_keys(connection, lease.session_id, run_id, content)
    session_rows.record_outcome(connection, lease.session_id, outcome)


def _copy_until_turn(values: Any, number: int | None) -> ConversationSnapshot:
    """Without open calls: those belong to the session that is copied."""
    try:
        then = history.snapshot_conversation(values) if number is None else history.snapshot_after(values, number)
    except IndexError:
        raise NoSuchTurn(
            f"The session has {len(history.find_turn_starts(values))} turns; name one of them, from 1."
        ) from None
    state: Any = {"messages": then.messages}
    return then._replace(messages=[*then.messages, *answer_open_calls(state, COPIED_CALL_RESULT)])


def _create_hidden_session(connection: Connection, fork_id: str, row: RowMapping) -> None:
    """Nobody sees it before its thread is there."""
    if session_rows.find_including_deleted(connection, fork_id) is None:
        session_rows.create_session(connection, fork_id, row["title"])
        named_by = "user" if row["titled_by"] == "user" else "model"
        session_rows.update_session(
            connection, fork_id, description=row["description"], titled_by=named_by, deleted_at=utc_timestamp()
        )


def _reveal_session(connection: Connection, fork_id: str, outcome: Outcome) -> RowMapping:
    session_rows.record_outcome(connection, fork_id, outcome, deleted_at=None)
    made = session_rows.find_including_deleted(connection, fork_id)
    assert made
    return made
