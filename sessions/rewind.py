"""Taking the user's last message back, and making a second session of a conversation's past."""

from typing import Any
from uuid import uuid4

from sqlalchemy import Connection, RowMapping

from graph.db.fencing import Fence
from graph.errors import AgentRuntimeError
from graph.execution import history, threads
from graph.execution.history import Past
from graph.execution.outcome import Graph, OpenCall, Outcome, list_open_calls, thread_config
from graph.permissions.decisions import cancelled
from graph.timestamps import now
from sessions.lookup import Finding
from sessions.snapshots import Moments
from sessions.store import audit, calls, grants, leases
from sessions.store import runs as run_rows
from sessions.store import sessions as session_rows
from sessions.store.database import Database

TAKEN_BACK = "the user took the message back"
COPIED = "cancelled: this is a copy; the call belongs to the session it was made from"


class NothingToUndo(AgentRuntimeError):
    """The user has said nothing, or all of it is taken back."""

    code = "nothing_to_undo"


class NoSuchTurn(AgentRuntimeError):
    """The conversation has fewer turns."""

    code = "no_such_turn"


class Rewinding:
    """Every method raises SessionNotFound."""

    def __init__(self, database: Database, graph: Graph, finding: Finding, moments: Moments) -> None:
        self._database = database
        self._graph = graph
        self._finding = finding
        self._moments = moments

    async def undo(self, session_id: str) -> dict[str, Any]:
        """Back to before the user's last message. Raises NothingToUndo, SessionBusy."""
        async with self._finding.held(session_id) as (_, lease):
            values: Any = (await self._graph.aget_state(thread_config(session_id))).values
            if not (places := history.turns(values)):
                raise NothingToUndo("The user has said nothing that could be taken back.")
            message = values["messages"][places[-1]]
            outcome = await threads.rewrite(self._graph, session_id, history.before(values, places[-1]))
            run_id = history.about(message).get("run")
            await self._database.transact(
                lambda c: _undone(c, lease, outcome, list_open_calls(values), run_id, str(message.content))
            )
        return {
            "session_id": session_id,
            "undone": message.content,
            "message_count": outcome.message_count,
            "current_agent": outcome.agent,
        }

    async def fork(self, session_id: str, number: int | None = None) -> dict[str, Any]:
        """From now, or from the end of a turn, counted from 1. Raises NoSuchTurn."""
        row, _, values = await self._moments.of(session_id, lambda *_: None)
        copied = _copied(values, number)
        fork_id = str(uuid4())
        await self._database.transact(lambda connection: _hidden(connection, fork_id, row))
        outcome = await threads.rewrite(self._graph, fork_id, copied)
        made = await self._database.transact(lambda connection: _shown(connection, fork_id, outcome))
        return {
            "session_id": fork_id,
            "message_count": made["message_count"],
            "current_agent": made["agent"],
            "created_at": made["created_at"],
            "title": made["title"],
            "forked_from": session_id,
        }


def _undone(
    connection: Connection, lease: Fence, outcome: Outcome, open_calls: list[OpenCall], run_id: str | None, said: str
) -> None:
    """Once, also if the transaction is made again."""
    if leases.checked(connection, lease)["head"] == outcome.head:
        return
    entries = [audit.entry(each, "cancel", "system", feedback=TAKEN_BACK) for each in open_calls]
    audit.append(connection, lease.session_id, entries)
    calls.decided(connection, lease.session_id, entries)
    grants.end(connection, lease.session_id, scope="turn")
    run_rows.free_keys(connection, lease.session_id, run_id, said)
    session_rows.rest(connection, lease.session_id, outcome)


def _copied(values: Any, number: int | None) -> Past:
    """Without open calls: those belong to the session that is copied."""
    try:
        then = history.present(values) if number is None else history.after(values, number)
    except IndexError:
        raise NoSuchTurn(f"The session has {len(history.turns(values))} turns; name one of them, from 1.") from None
    state: Any = {"messages": then.messages}
    return then._replace(messages=[*then.messages, *cancelled(state, COPIED)])


def _hidden(connection: Connection, fork_id: str, row: RowMapping) -> None:
    """Nobody sees it before its thread is there."""
    if session_rows.row(connection, fork_id) is None:
        session_rows.create(connection, fork_id, row["title"])
        named_by = "user" if row["titled_by"] == "user" else "model"
        session_rows.change(connection, fork_id, description=row["description"], titled_by=named_by, deleted_at=now())


def _shown(connection: Connection, fork_id: str, outcome: Outcome) -> RowMapping:
    session_rows.rest(connection, fork_id, outcome, deleted_at=None)
    made = session_rows.row(connection, fork_id)
    assert made
    return made
