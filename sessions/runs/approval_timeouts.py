"""Close approvals that nobody decided in time."""

import logging

from sqlalchemy import Connection

from graph import wire
from graph.errors import CallNotOpen, SessionBusy
from graph.execution.outcome import Graph, OpenCall
from graph.settings import Settings
from graph.timestamps import timestamp_ago
from sessions.runs.call_closure import close_open_calls, make_expiry_closure
from sessions.runs.replica import Replica
from sessions.store import calls
from sessions.store import sessions as session_rows
from sessions.store.database import Database

log = logging.getLogger("agent_runtime.runs")


class ApprovalTimeouts:
    """With `APPROVAL_TIMEOUT_SECONDS=0` approvals stay open for ever."""

    def __init__(self, database: Database, graph: Graph, replica: Replica, settings: Settings) -> None:
        self._database = database
        self._replica = replica
        self._graph = graph
        self._seconds = settings.approval_timeout_seconds

    async def expire(self, session_id: str, message: wire.Message | None = None) -> None:
        """Close the session's overdue approvals. Beside a call that the IDE still works on, they stay open with it.

        Raises CallNotOpen if the message decides on an overdue one, and SessionBusy.
        """
        if not self._seconds:
            return
        late, all_late = await self._find_overdue(session_id)
        if all_late:
            try:
                async with self._replica.lease_session(session_id) as lease:
                    late, all_late = await self._find_overdue(session_id)
                    if all_late:
                        await close_open_calls(self._database, self._graph, lease, make_expiry_closure(self._seconds))
            except KeyError:
                return
        if (call_id := getattr(message, "call_id", None)) in late:
            raise CallNotOpen(
                f"The approval of {call_id} expired after {self._seconds:g} seconds. Send a message to go on."
            )

    async def _find_overdue(self, session_id: str) -> tuple[set[str], bool]:
        """Return the ids of the overdue approvals, and whether no other call is open."""

        def read_open_calls(connection: Connection) -> list[OpenCall]:
            pause = session_rows.pause_of(session_rows.find_session(connection, session_id))
            return calls.filter_open_calls(connection, session_id, pause.calls) if pause else []

        found = await self._database.transact(read_open_calls)
        before = timestamp_ago(self._seconds)
        late = {each.call.call_id for each in found if each.call.requires_approval and each.created_at < before}
        return late, bool(late) and late == {each.call.call_id for each in found}

    async def expire_all(self) -> None:
        """Close the overdue approvals of all sessions; a busy session is tried again in the next round."""
        if self._seconds:
            for session_id in await self._database.transact(lambda c: calls.find_overdue_approvals(c, self._seconds)):
                try:
                    await self.expire(session_id)
                except SessionBusy:
                    log.info("session %s is busy; its overdue approvals are closed in a later round", session_id)
