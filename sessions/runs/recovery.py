"""Continue a run whose replica died or handed it over."""

import logging

from sqlalchemy import RowMapping

from graph import wire
from graph.db.fencing import FencingToken
from graph.execution.closing import has_started, is_closing, is_over
from graph.execution.outcome import Graph, thread_config
from graph.execution.recovery import rebuild_chunks, rebuild_outcome
from graph.run_scope import enter_scope
from sessions.runs.errors import cancellation_error, interruption_error
from sessions.runs.executor import RunExecutor
from sessions.runs.run import RunHandle
from sessions.runs.status import RunStatus
from sessions.store import sessions as session_rows

log = logging.getLogger("agent_runtime.runs")
MAX_RECOVERY_ATTEMPTS = 2
"""A run that was lost this often is given up: a message that kills its process must not kill every replica in turn."""


class RunRecovery:
    def __init__(self, graph: Graph, executor: RunExecutor) -> None:
        self._graph = graph
        self._executor = executor

    async def recover(self, run: RunHandle, lease: FencingToken, row: RowMapping) -> bool:
        """Finish, continue, repeat or give up the run of this row; return whether the session has more to do.

        The outcome is read from the thread if it is there. Raises what `RunExecutor.execute` raises.
        """
        log.warning("run %s of session %s was interrupted; recovering it", run.id, run.session_id)
        run.earlier_usage = row["usage"]
        if row["stop_requested"]:
            run.cancel_token.request(cancellation_error())
        with enter_scope(self._executor.scope_of(run, lease)):
            return await self._recover(run, lease, row)

    async def _recover(self, run: RunHandle, lease: FencingToken, row: RowMapping) -> bool:
        message = wire.parse_message(row["input"], wire.MESSAGE_ADAPTER)
        snapshot = await self._graph.aget_state(thread_config(run.session_id, run.id))
        attempts = row["recovery_attempts"] + (row["status"] == RunStatus.RUNNING)
        if is_over(snapshot, run.id):
            outcome = rebuild_outcome(snapshot, message, row["created_at"])
            return await self._executor.finish_run(run, lease, outcome, run.log.make_events(outcome.chunks))
        if attempts >= MAX_RECOVERY_ATTEMPTS or is_closing(snapshot, run.id):
            return await self._executor.give_up_run(run, lease, message, interruption_error())
        await self._begin_attempt(run, lease, attempts)
        has_begun = has_started(snapshot, run.id)
        if has_begun:
            run.log.add(run.log.make_events(rebuild_chunks(snapshot, message, row["created_at"])))
        options = wire.StreamOptions.model_validate(row["options"])
        pause = session_rows.pause_of(row)
        return await self._executor.execute(run, lease, None if has_begun else message, options, pause)

    async def _begin_attempt(self, run: RunHandle, lease: FencingToken, recovery_attempts: int) -> None:
        await self._executor.update_run(
            lease,
            run.id,
            attempts=run.log.attempt,
            recovery_attempts=recovery_attempts,
            status=RunStatus.RUNNING,
            lease_epoch=lease.epoch,
        )
        run.log.stored_attempt = run.log.attempt
