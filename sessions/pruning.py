"""Delete the old checkpoints of idle sessions; the conversation itself stays."""

import logging

from sqlalchemy import Connection, RowMapping

from graph.db.fencing import FencingToken
from graph.execution import history, threads
from graph.execution.outcome import read_state, thread_config
from sessions.deps import Deps
from sessions.lookup import lease_each
from sessions.store import leases
from sessions.store import sessions as session_rows

log = logging.getLogger("agent_runtime.janitor")


async def prune_idle_sessions(deps: Deps, min_runs: int) -> None:
    """Prune idle sessions that had more than `min_runs` runs since they were last pruned.

    Threads on a LangGraph server are pruned by that server.
    """
    if threads.local_checkpointer(deps.graph) is None:
        return

    async def prune_session(row: RowMapping, lease: FencingToken) -> None:
        if not row["pause"]:
            await _prune_thread(deps, lease)

    candidates = await deps.database.transact(lambda c: session_rows.prune_candidates(c, min_runs))
    await lease_each(deps, candidates, prune_session, include_deleted=False)


async def _prune_thread(deps: Deps, lease: FencingToken) -> None:
    """Rewrite the thread as one checkpoint, name that in the row, then delete the others.

    A crash in between leaves the old checkpoints behind, which is harmless.
    """
    state = await read_state(deps.graph, thread_config(lease.session_id))
    outcome = await threads.rewrite_thread(deps.graph, lease.session_id, history.snapshot_conversation(state))

    def record_checkpoint(connection: Connection) -> None:
        leases.require_lease(connection, lease)
        session_rows.update_session(
            connection, lease.session_id, checkpoint_id=outcome.checkpoint_id, runs_since_prune=0
        )

    await deps.database.transact(record_checkpoint)
    assert outcome.checkpoint_id
    await threads.prune_thread(deps.graph, lease.session_id, outcome.checkpoint_id)
    log.info("the thread of session %s was pruned", lease.session_id)
