"""Dropping the old checkpoints of sessions at rest: what a thread was is nobody's any more, what it is stays."""

import logging
from typing import Any

from sqlalchemy import Connection, RowMapping

from graph.checkpoint.base import Remembering
from graph.db.fencing import Fence
from graph.execution import history, threads
from graph.execution.outcome import Graph, thread_config
from sessions.lookup import Finding
from sessions.store import leases
from sessions.store import sessions as session_rows
from sessions.store.database import Database

log = logging.getLogger("agent_runtime.janitor")


class Pruning:
    """Of threads that are kept here; those on a LangGraph server are that server's."""

    def __init__(self, database: Database, graph: Graph, finding: Finding) -> None:
        self._database = database
        self._graph = graph
        self._finding = finding

    async def look_through(self, runs: int) -> None:
        """Prunes the sessions at rest that had more runs than that since they were pruned last."""
        if not isinstance(self._graph.checkpointer, Remembering):
            return
        unpruned = await self._database.transact(lambda c: session_rows.unpruned(c, runs))
        await self._finding.each_held(unpruned, self._prune, deleted_too=False)

    async def _prune(self, row: RowMapping, lease: Fence) -> None:
        """The row names the new head before the old ones go: a crash in between leaves them there, and no harm."""
        if row["pause"]:
            return
        values: Any = (await self._graph.aget_state(thread_config(lease.session_id))).values
        outcome = await threads.rewrite(self._graph, lease.session_id, history.present(values))

        def noted(connection: Connection) -> None:
            leases.checked(connection, lease)
            session_rows.change(connection, lease.session_id, head=outcome.head, unpruned=0)

        await self._database.transact(noted)
        assert outcome.head
        await threads.prune(self._graph, lease.session_id, outcome.head)
        log.info("the thread of session %s was pruned", lease.session_id)
