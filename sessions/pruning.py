"""Dropping the old checkpoints of sessions at rest: what a thread was is nobody's any more, what it is stays."""

import logging
from typing import Any

from sqlalchemy import Connection, RowMapping

from graph.checkpoint.base import CachingCheckpointer
from graph.db.fencing import FencingToken
from graph.execution import history, threads
from graph.execution.outcome import Graph, thread_config
from sessions.lookup import SessionLookup
from sessions.store import leases
from sessions.store import sessions as session_rows
from sessions.store.database import Database

log = logging.getLogger("agent_runtime.janitor")


class Pruning:
    """Of threads that are kept here; those on a LangGraph server are that server's."""

    def __init__(self, database: Database, graph: Graph, lookup: SessionLookup) -> None:
        self._database = database
        self._graph = graph
        self._lookup = lookup

    async def prune_idle_sessions(self, min_runs: int) -> None:
        """Prunes the sessions at rest that had more runs than that since they were pruned last."""
        if not isinstance(self._graph.checkpointer, CachingCheckpointer):
            return
        unpruned = await self._database.transact(lambda c: session_rows.prune_candidates(c, min_runs))
        await self._lookup.lease_each(unpruned, self._prune_thread, deleted_too=False)

    async def _prune_thread(self, row: RowMapping, lease: FencingToken) -> None:
        """The row names the new head before the old ones go: a crash in between leaves them there, and no harm."""
        if row["pause"]:
            return
        values: Any = (await self._graph.aget_state(thread_config(lease.session_id))).values
        outcome = await threads.rewrite_thread(self._graph, lease.session_id, history.snapshot_conversation(values))

        def record_head(connection: Connection) -> None:
            leases.require_lease(connection, lease)
            session_rows.update_session(
                connection, lease.session_id, checkpoint_id=outcome.checkpoint_id, runs_since_prune=0
            )

        await self._database.transact(record_head)
        assert outcome.checkpoint_id
        await threads.prune_thread(self._graph, lease.session_id, outcome.checkpoint_id)
        log.info("the thread of session %s was pruned", lease.session_id)
