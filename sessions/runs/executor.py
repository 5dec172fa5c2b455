"""Execute a run: the graph works, its outcome is stored, then its last events are sent."""

import asyncio
import logging
from collections.abc import Callable
from dataclasses import replace

from sqlalchemy import Connection

from graph import wire
from graph.db.fencing import FencingToken, LeaseLost
from graph.db.retry import is_transient
from graph.errors import AgentRuntimeError, Cancelled, GraphLost, GraphUnavailable
from graph.execution.closing import close_thread
from graph.execution.outcome import Graph, Outcome, Pause, outcome_from_snapshot, thread_config
from graph.execution.run import run_graph
from graph.run_scope import RunScope, enter_scope
from graph.timestamps import utc_timestamp
from policy.grants import Grant
from sessions.event_log import RunEvent
from sessions.runs.call_closure import CANCELLED_BY_USER, close_open_calls
from sessions.runs.errors import ShuttingDown, internal_error, time_limit_error
from sessions.runs.run import RunHandle
from sessions.runs.status import RunStatus
from sessions.store import audit, calls, grants, leases, routings
from sessions.store import runs as run_rows
from sessions.store.database import Database

log = logging.getLogger("agent_runtime.runs")


class RunExecutor:
    """Every method writes under a lease and raises LeaseLost, or a fault of the database that may pass.

    The methods that end a run return whether the session has more to do; if it has not, they release the lease.
    """

    def __init__(self, database: Database, graph: Graph, max_run_seconds: float) -> None:
        self._database = database
        self._graph = graph
        self._max_run_seconds = max_run_seconds

    def scope_of(self, run: RunHandle, lease: FencingToken) -> RunScope:
        """Return the scope that the graph's writes, model calls and permission checks of this run need."""

        async def load_grants() -> list[Grant]:
            return await self._database.transact(
                lambda connection: grants.load_active_grants(connection, run.session_id)
            )

        return RunScope(lease, run.cancel_token, load_grants)

    async def execute(
        self,
        run: RunHandle,
        lease: FencingToken,
        message: wire.Message | None,
        options: wire.StreamOptions,
        pause: Pause | None,
    ) -> bool:
        """Run the graph to a pause or an end and store the outcome. Raises ShuttingDown and GraphLost as well.

        `pause` is what the message answers. Without a message the graph continues where its thread stopped.
        """
        time_limit = asyncio.get_running_loop().call_later(
            self._max_run_seconds, run.cancel_token.request, time_limit_error(self._max_run_seconds)
        )
        try:
            with enter_scope(self.scope_of(run, lease)):
                return await self._execute(run, lease, message, options, pause)
        finally:
            time_limit.cancel()

    async def _execute(
        self,
        run: RunHandle,
        lease: FencingToken,
        message: wire.Message | None,
        options: wire.StreamOptions,
        pause: Pause | None,
    ) -> bool:
        try:
            outcome = await self._run_to_outcome(run, message, options, pause)
            if isinstance(run.cancel_token.error, Cancelled) and outcome.pause:
                outcome = await self._close_cancelled_run(run, lease, run.cancel_token.error)
            return await self.finish_run(run, lease, outcome, run.log.make_events(outcome.chunks))
        except (ShuttingDown, LeaseLost, GraphLost):
            raise
        except GraphUnavailable as error:
            return await self.refuse_run(run, lease, error)
        except Exception as error:
            if is_transient(error):
                raise
            log.exception("run %s failed", run.id)
            return await self.give_up_run(run, lease, message, internal_error())

    async def _run_to_outcome(
        self, run: RunHandle, message: wire.Message | None, options: wire.StreamOptions, pause: Pause | None
    ) -> Outcome:
        async for item in run_graph(self._graph, run.session_id, run.id, message, options, pause, run.call_usages):
            if isinstance(item, Outcome):
                return _require_progress(message, item)
            run.log.add(run.log.make_events([item]))
        raise RuntimeError("the graph ended without an outcome")

    async def _close_cancelled_run(self, run: RunHandle, lease: FencingToken, error: Cancelled) -> Outcome:
        """Close the calls of a run that reached a pause before it could be stopped; no client has seen them."""
        outcome = await close_open_calls(self._database, self._graph, lease, CANCELLED_BY_USER, run.id)
        return replace(outcome, chunks=[wire.error_chunk(error, request_id=run.id)])

    async def give_up_run(
        self, run: RunHandle, lease: FencingToken, message: wire.Message | None, error: AgentRuntimeError
    ) -> bool:
        """End a run that failed: its thread is closed unless it waits for a client; the error is its last event."""
        config = thread_config(run.session_id, run.id)
        snapshot = await self._graph.aget_state(config)
        if snapshot.interrupts:
            outcome = outcome_from_snapshot(snapshot, [])
        else:
            outcome = await close_thread(self._graph, config, message)
        last_events = run.make_error_events(error)
        return await self.finish_run(run, lease, outcome, last_events, release_key=_can_be_resent(message, outcome))

    async def finish_run(
        self,
        run: RunHandle,
        lease: FencingToken,
        outcome: Outcome,
        last_events: list[RunEvent],
        *,
        release_key: bool = False,
    ) -> bool:
        """Store the outcome, then send the last events. With `release_key` a retry of the message is a new run."""
        events = [*run.log.replayable_events(), *(event for event in last_events if not event.opt_in)]
        open_calls = outcome.pause.calls if outcome.pause else []

        def store_outcome(connection: Connection) -> bool:
            session = leases.require_lease(connection, lease)
            audit.record_auto_approvals(connection, run.session_id, open_calls)
            calls.record_open(connection, run.session_id, open_calls)
            routings.record_routings(connection, run.session_id, run.id, events)
            run_rows.finish_run(
                connection,
                run.id,
                session,
                outcome,
                events,
                run.total_usage(),
                lease_epoch=lease.epoch,
                release_key=release_key,
            )
            return _release_if_idle(connection, lease)

        has_more = await self._commit_once(run, lease, store_outcome)
        run.log.add(last_events)
        return has_more

    async def refuse_run(self, run: RunHandle, lease: FencingToken, error: AgentRuntimeError) -> bool:
        """End a run whose message cannot be accepted; nothing of it is kept, and a retry is a new run."""
        last_events = run.make_error_events(error)
        values = {
            "status": RunStatus.DONE,
            "idempotency_key": None,
            "events": [event[:3] for event in last_events],
            "finished_at": utc_timestamp(),
        }

        def store_refusal(connection: Connection) -> bool:
            leases.require_lease(connection, lease)
            run_rows.update_run(connection, run.id, lease_epoch=lease.epoch, **values)
            return _release_if_idle(connection, lease)

        has_more = await self._commit_once(run, lease, store_refusal)
        run.log.add(last_events)
        return has_more

    async def _commit_once(self, run: RunHandle, lease: FencingToken, work: Callable[[Connection], bool]) -> bool:
        """Commit the end of a run. A commit whose answer was lost is repeated, and then finds its lease released."""
        try:
            return await self._database.transact(work)
        except LeaseLost:
            row = await self._database.transact(lambda connection: run_rows.find_run(connection, run.id))
            if row and (row["status"], row["lease_epoch"]) == (RunStatus.DONE, lease.epoch):
                return True
            raise

    async def update_run(self, lease: FencingToken, run_id: str, **values: object) -> None:
        """Change columns of a run's row."""

        def store_values(connection: Connection) -> None:
            leases.require_lease(connection, lease)
            run_rows.update_run(connection, run_id, **values)

        await self._database.transact(store_values)

    async def hand_over(self, run: RunHandle, lease: FencingToken) -> None:
        """Release the run to the replica that looks for work first; this is not counted as a recovery attempt."""

        def release_run(connection: Connection) -> None:
            leases.require_lease(connection, lease)
            run_rows.update_run(connection, run.id, status=RunStatus.HANDED_OVER, usage=run.total_usage())
            leases.release_lease(connection, lease)

        await self._database.transact(release_run)


def _release_if_idle(connection: Connection, lease: FencingToken) -> bool:
    """Release the lease unless the session has more to do; return whether it has."""
    if run_rows.first_unfinished(connection, lease.session_id):
        return True
    leases.release_lease(connection, lease)
    return False


def _require_progress(message: wire.Message | None, outcome: Outcome) -> Outcome:
    """Return the outcome. Raises RuntimeError if the thread ignored the message: LangGraph does so without an error."""
    open_ids = [each.call.call_id for each in (outcome.pause.calls if outcome.pause else [])]
    if not outcome.chunks and (not open_ids or getattr(message, "call_id", None) in open_ids):
        raise RuntimeError("the thread ignored the message")
    return outcome


def _can_be_resent(message: wire.Message | None, outcome: Outcome) -> bool:
    """Return whether the client may send the message again: not an answer that the thread has processed."""
    if message is None:
        return False
    if not isinstance(message, wire.ToolResult | wire.HitlDecision):
        return True
    open_calls = outcome.pause.calls if outcome.pause else []
    matching = [each.call for each in open_calls if each.call.call_id == message.call_id]
    return any(call.requires_approval or isinstance(message, wire.ToolResult) for call in matching)
