"""Undo the last turn of a conversation, and fork a session from an earlier turn."""

from uuid import uuid4

from langchain_core.messages import AIMessage
from sqlalchemy import Connection, RowMapping

from graph.db.fencing import FencingToken
from graph.errors import AgentRuntimeError
from graph.execution import history, threads
from graph.execution.history import ConversationSnapshot
from graph.execution.outcome import Outcome, list_open_calls, read_state, thread_config
from graph.permissions.decisions import answer_open_calls
from graph.state import State
from graph.timestamps import utc_timestamp
from sessions.deps import Deps
from sessions.lookup import lease_session
from sessions.shapes import ForkedSession, UndoneTurn
from sessions.snapshots import read_snapshot
from sessions.store import audit, calls, grants, leases
from sessions.store import runs as run_rows
from sessions.store import sessions as session_rows

UNDONE_FEEDBACK = "the user took the message back"
"""In the audit of calls that an undo closed."""
COPIED_CALL_RESULT = "cancelled: this is a copy; the call belongs to the session it was made from"
"""The result of a call that was open when the session was forked; the model reads it."""


class NothingToUndo(AgentRuntimeError):
    """The conversation has no message of the user."""

    code = "nothing_to_undo"


class NoSuchTurn(AgentRuntimeError):
    """The conversation has fewer turns."""

    code = "no_such_turn"


async def undo_turn(deps: Deps, session_id: str) -> UndoneTurn:
    """Return to the state before the user's last message. Raises SessionNotFound, NothingToUndo, SessionBusy."""
    async with lease_session(deps, session_id) as (_, lease):
        state = await read_state(deps.graph, thread_config(session_id))
        if not (starts := history.find_turn_starts(state)):
            raise NothingToUndo("The session has no message of the user to undo.")
        message = state["messages"][starts[-1]]
        outcome = await threads.rewrite_thread(deps.graph, session_id, history.snapshot_before(state, starts[-1]))
        run_id = history.read_turn_metadata(message).get("run")
        await deps.database.transact(lambda c: _record_undo(c, lease, outcome, state, starts[-1], run_id))
    return {
        "session_id": session_id,
        "undone": message.content,
        "message_count": outcome.message_count,
        "current_agent": outcome.agent,
    }


async def fork_session(deps: Deps, session_id: str, turn: int | None = None) -> ForkedSession:
    """Create a session with this one's history, up to the end of a turn (counted from 1), or up to now.

    Raises SessionNotFound, NoSuchTurn.
    """
    row, _, state = await read_snapshot(deps, session_id, lambda *_: None)
    copied = _copy_until_turn(state, turn)
    fork_id = str(uuid4())
    await deps.database.transact(lambda connection: _create_hidden_session(connection, fork_id, row))
    outcome = await threads.rewrite_thread(deps.graph, fork_id, copied)
    fork = await deps.database.transact(lambda connection: _reveal_session(connection, fork_id, outcome))
    return {
        "session_id": fork_id,
        "id": fork_id,
        "message_count": fork["message_count"],
        "current_agent": fork["agent"],
        "created_at": fork["created_at"],
        "title": fork["title"],
        "forked_from": session_id,
    }


def _record_undo(
    connection: Connection,
    lease: FencingToken,
    outcome: Outcome,
    state: State,
    start: int,
    run_id: str | None,
) -> None:
    """Record once, also if the transaction is repeated, that the turn which began with message `start` is undone."""
    if leases.require_lease(connection, lease)["checkpoint_id"] == outcome.checkpoint_id:
        return
    entries = [audit.make_entry(each, "cancel", "system", feedback=UNDONE_FEEDBACK) for each in list_open_calls(state)]
    audit.append_entries(connection, lease.session_id, entries)
    calls.record_decisions(connection, lease.session_id, entries)
    grants.end_grants(connection, lease.session_id, scope="turn")
    undone = state["messages"][start:]
    call_ids = [call["id"] or "" for each in undone if isinstance(each, AIMessage) for call in each.tool_calls]
    grants.end_grants_of_calls(connection, lease.session_id, call_ids)
    run_rows.release_idempotency_keys(connection, lease.session_id, run_id, str(undone[0].content))
    session_rows.record_outcome(connection, lease.session_id, outcome)


def _copy_until_turn(state: State, turn: int | None) -> ConversationSnapshot:
    """Return the conversation with its open calls answered: they belong to the session that is copied."""
    try:
        then = history.snapshot_conversation(state) if turn is None else history.snapshot_after(state, turn)
    except IndexError:
        raise NoSuchTurn(
            f"The session has {len(history.find_turn_starts(state))} turns; name one of them, from 1."
        ) from None
    copied: State = {**state, "messages": then.messages}
    return then._replace(messages=[*then.messages, *answer_open_calls(copied, COPIED_CALL_RESULT)])


def _create_hidden_session(connection: Connection, fork_id: str, row: RowMapping) -> None:
    """Create the fork as deleted, so that nobody sees it before its thread exists."""
    if session_rows.find_including_deleted(connection, fork_id) is None:
        session_rows.create_session(connection, fork_id, row["title"])
        titled_by = "user" if row["titled_by"] == "user" else "model"
        session_rows.update_session(
            connection, fork_id, description=row["description"], titled_by=titled_by, deleted_at=utc_timestamp()
        )


def _reveal_session(connection: Connection, fork_id: str, outcome: Outcome) -> RowMapping:
    session_rows.record_outcome(connection, fork_id, outcome, deleted_at=None)
    fork = session_rows.find_including_deleted(connection, fork_id)
    assert fork
    return fork
