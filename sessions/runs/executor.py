"""Carrying a run out: the graph at work, its outcome stored, then sent; and taking up what a process left behind."""

import asyncio
import logging
from collections.abc import Callable
from dataclasses import replace
from typing import NamedTuple

from sqlalchemy import Connection, RowMapping

from graph import wire
from graph.cancellation import CANCEL_TOKEN
from graph.db.fencing import FENCING_TOKEN, FencingToken, LeaseLost
from graph.db.retry import is_transient
from graph.errors import AgentRuntimeError, Cancelled, GraphLost, GraphUnavailable, Interrupted, LimitReached
from graph.execution.closing import close_thread, has_started, is_closing, is_over
from graph.execution.outcome import Graph, Outcome, Pause, list_open_calls, outcome_from_snapshot, thread_config
from graph.execution.recovery import rebuild_chunks, rebuild_outcome
from graph.execution.run import run_graph
from graph.permissions.decisions import CANCELLED_RESULT
from graph.permissions.gatekeeper import GRANT_LOADER
from graph.timestamps import utc_timestamp
from sessions.event_log import RunEvent
from sessions.runs.run import RunHandle
from sessions.store import audit, calls, grants, leases, routings
from sessions.store import runs as run_rows
from sessions.store import sessions as session_rows
from sessions.store.database import Database

log = logging.getLogger("agent_runtime.runs")
MAX_ATTEMPTS = 2
"""How often a run is begun when the process dies under it."""


class InternalError(AgentRuntimeError):
    """A fault of ours; what it was is in the log, under the run's id."""


class CallClosure(NamedTuple):
    """How open calls are closed: what the audit says of each, and what their model is told."""

    decision: str
    feedback: str
    result_text: str


CANCELLED_BY_USER = CallClosure("cancel", "the user cancelled", CANCELLED_RESULT)


def make_expiry_closure(seconds: float) -> CallClosure:
    """Nobody decided in time: that is not a rejection."""
    sentence = f"expired: nobody decided within {seconds:g} seconds; the call did not run, nobody rejected it"
    return CallClosure("expire", sentence, sentence)


class ShuttingDown(Exception):
    """The process ends; another one takes the run up where its thread is."""


class RunExecutor:
    """Every method writes under a lease and raises LeaseLost; those that carry a run out return whether more waits.

    If nothing waits the lease is given back. A fault of the database that passes is raised too.
    """

    def __init__(self, database: Database, graph: Graph, max_run_seconds: float) -> None:
        """`seconds`: how long a run may take."""
        self._database = database
        self._graph = graph
        self._seconds = max_run_seconds

    async def execute(
        self,
        run: RunHandle,
        lease: FencingToken,
        message: wire.Message | None,
        options: wire.StreamOptions,
        pause: Pause | None,
    ) -> bool:
        """Raises ShuttingDown as well."""
        CANCEL_TOKEN.set(run.cancel_token)
        FENCING_TOKEN.set(lease)
        GRANT_LOADER.set(
            lambda: self._database.transact(lambda connection: grants.load_active_grants(connection, run.session_id))
        )
        late = asyncio.get_running_loop().call_later(
            self._seconds, run.cancel_token.request, _time_limit_error(self._seconds)
        )
        try:
            outcome = await self._run_to_outcome(run, message, options, pause)
            if isinstance(run.cancel_token.error, Cancelled) and outcome.pause:
                outcome = await self._close_cancelled_run(run, lease, run.cancel_token.error)
            return await self._finish_run(run, lease, outcome, run.log.make_events(outcome.chunks))
        except (ShuttingDown, LeaseLost, GraphLost):
            raise
        except GraphUnavailable as error:
            return await self.refuse_run(run, lease, error)
        except Exception as error:
            if is_transient(error):
                raise
            log.exception("run %s failed", run.id)
            left = await self._outcome_after_failure(run, message)
            return await self._finish_run(
                run, lease, left, run.make_error_events(internal_error()), release_key=_can_be_resent(message, left)
            )
        finally:
            late.cancel()

    async def _run_to_outcome(
        self, run: RunHandle, message: wire.Message | None, options: wire.StreamOptions, pause: Pause | None
    ) -> Outcome:
        async for item in run_graph(self._graph, run.session_id, run.id, message, options, pause, run.call_usages):
            if isinstance(item, Outcome):
                return _require_progress(message, item)
            run.log.add(run.log.make_events([item]))
        raise RuntimeError("the turn has no outcome")

    async def _close_cancelled_run(self, run: RunHandle, lease: FencingToken, error: Cancelled) -> Outcome:
        """The run got as far as a pause before it could be stopped: its calls are closed before anyone saw them."""
        rested = await self.close_open_calls(lease, CANCELLED_BY_USER, run.id)
        return replace(rested, chunks=[wire.error_chunk(error, request_id=run.id)])

    async def _finish_run(
        self, run: RunHandle, lease: FencingToken, outcome: Outcome, last: list[RunEvent], *, release_key: bool = False
    ) -> bool:
        """Stored first, sent then. With `again` the run gives its key back: a retry is a new run."""
        events = [*run.log.replayable_events(), *(event for event in last if not event.opt_in)]
        waiting_for = outcome.pause.calls if outcome.pause else []

        def store_outcome(connection: Connection) -> bool:
            session = leases.require_lease(connection, lease)
            audit.record_auto_approvals(connection, run.session_id, waiting_for)
            calls.record_open(connection, run.session_id, waiting_for)
            routings.record_routings(connection, run.session_id, run.id, events)
            run_rows.finish_run(
                connection,
                run.id,
                session,
                outcome,
                events,
                run.total_usage(),
                epoch=lease.epoch,
                release_key=release_key,
            )
            return _release_if_idle(connection, lease)

        more = await self._commit_once(run, lease, store_outcome)
        run.log.add(last)
        return more

    async def _commit_once(self, run: RunHandle, lease: FencingToken, work: Callable[[Connection], bool]) -> bool:
        """A transaction whose end the connection did not live to see is made again, and then finds its lease gone."""
        try:
            return await self._database.transact(work)
        except LeaseLost:
            row = await self._database.transact(lambda connection: run_rows.find_run(connection, run.id))
            if row and (row["status"], row["epoch"]) == ("done", lease.epoch):
                return True
            raise

    async def refuse_run(self, run: RunHandle, lease: FencingToken, error: AgentRuntimeError) -> bool:
        """A message that cannot be taken: sent again it is a new one."""
        last = run.make_error_events(error)
        values = {
            "status": "done",
            "key": None,
            "events": [event[:3] for event in last],
            "finished_at": utc_timestamp(),
        }

        def store_refusal(connection: Connection) -> bool:
            leases.require_lease(connection, lease)
            run_rows.update_run(connection, run.id, epoch=lease.epoch, **values)
            return _release_if_idle(connection, lease)

        more = await self._commit_once(run, lease, store_refusal)
        run.log.add(last)
        return more

    async def _outcome_after_failure(self, run: RunHandle, message: wire.Message | None) -> Outcome:
        """What a run leaves behind that failed: a thread that waits for its client, or rests."""
        config = thread_config(run.session_id, run.id)
        snapshot = await self._graph.aget_state(config)
        if snapshot.interrupts:
            return outcome_from_snapshot(snapshot, [])
        return await close_thread(self._graph, config, message)

    async def close_open_calls(
        self, lease: FencingToken, closing: CallClosure = CANCELLED_BY_USER, run_id: str = ""
    ) -> Outcome:
        """Close what is open in a session whose thread no run works on any more."""
        FENCING_TOKEN.set(lease)
        config = thread_config(lease.session_id, run_id)
        open_calls = list_open_calls((await self._graph.aget_state(config)).values)
        outcome = await close_thread(self._graph, config, result_text=closing.result_text)
        entries = [audit.make_entry(each, closing.decision, "system", feedback=closing.feedback) for each in open_calls]

        def store_closure(connection: Connection) -> None:
            """Once, also if the transaction is made again."""
            head = leases.require_lease(connection, lease)["head"]
            if outcome.checkpoint_id and head == outcome.checkpoint_id:
                return
            audit.append_entries(connection, lease.session_id, entries)
            calls.record_decisions(connection, lease.session_id, entries)
            session_rows.record_outcome(connection, lease.session_id, outcome)

        await self._database.transact(store_closure)
        return outcome

    async def recover(self, run: RunHandle, lease: FencingToken, row: RowMapping) -> bool:
        """Its outcome is read off the thread if it is there; else the run goes on, or is done again, or fails."""
        log.warning("run %s of session %s was cut off; taking it up", run.id, run.session_id)
        CANCEL_TOKEN.set(run.cancel_token)
        FENCING_TOKEN.set(lease)
        run.earlier_usage = row["usage"]
        if row["wanted"]:
            run.cancel_token.request(cancellation_error())
        message = wire.parse_message(row["input"], wire.MESSAGE_ADAPTER)
        snapshot = await self._graph.aget_state(thread_config(run.session_id, run.id))
        began = has_started(snapshot, run.id)
        losses = row["losses"] + (row["status"] == "running")
        if is_over(snapshot, run.id):
            outcome = rebuild_outcome(snapshot, message, row["created_at"])
            return await self._finish_run(run, lease, outcome, run.log.make_events(outcome.chunks))
        if losses >= MAX_ATTEMPTS or is_closing(snapshot, run.id):
            left = await self._outcome_after_failure(run, message)
            last = run.make_error_events(_interruption_error())
            return await self._finish_run(run, lease, left, last, release_key=_can_be_resent(message, left))
        await self._begin_attempt(run, lease, losses)
        if began:
            run.log.add(run.log.make_events(rebuild_chunks(snapshot, message, row["created_at"])))
        options = wire.StreamOptions.model_validate(row["options"])
        return await self.execute(run, lease, None if began else message, options, session_rows.pause_of(row))

    async def _begin_attempt(self, run: RunHandle, lease: FencingToken, recovery_attempts: int) -> None:
        values = {"attempts": run.log.attempt, "losses": recovery_attempts, "status": "running", "epoch": lease.epoch}
        await self.update_run(lease, run.id, **values)
        run.log.stored_attempt = run.log.attempt

    async def update_run(self, lease: FencingToken, run_id: str, **values: object) -> None:
        """In the row of a run."""

        def store_values(connection: Connection) -> None:
            leases.require_lease(connection, lease)
            run_rows.update_run(connection, run_id, **values)

        await self._database.transact(store_values)

    async def hand_over(self, run: RunHandle, lease: FencingToken) -> None:
        """To whoever looks for work first; that the run was cut off is not held against it."""

        def release_run(connection: Connection) -> None:
            leases.require_lease(connection, lease)
            run_rows.update_run(connection, run.id, status="handed", usage=run.total_usage())
            leases.release_lease(connection, lease)

        await self._database.transact(release_run)


def _release_if_idle(connection: Connection, lease: FencingToken) -> bool:
    if run_rows.first_unfinished(connection, lease.session_id):
        return True
    leases.release_lease(connection, lease)
    return False


def _require_progress(message: wire.Message | None, outcome: Outcome) -> Outcome:
    """The outcome. Raises RuntimeError if the thread did not take the message in: langgraph says nothing of that."""
    waiting = [each.call.call_id for each in (outcome.pause.calls if outcome.pause else [])]
    if not outcome.chunks and (not waiting or getattr(message, "call_id", None) in waiting):
        raise RuntimeError("the thread did not take the message in")
    return outcome


def _can_be_resent(message: wire.Message | None, left: Outcome) -> bool:
    """Not an answer that the thread has taken in, nor what the thread went on with by itself."""
    if message is None:
        return False
    if not isinstance(message, wire.ToolResult | wire.HitlDecision):
        return True
    waiting = [each.call for each in (left.pause.calls if left.pause else []) if each.call.call_id == message.call_id]
    return any(call.requires_approval or isinstance(message, wire.ToolResult) for call in waiting)


def _time_limit_error(seconds: float) -> LimitReached:
    return LimitReached(f"The run was stopped after {seconds / 60:g} minutes. Send a message to go on.")


def cancellation_error() -> Cancelled:
    return Cancelled("The run was stopped. Send a message to go on.")


def internal_error() -> InternalError:
    return InternalError(
        "Something went wrong in the service. Send a message to go on; if it persists, report the request id."
    )


def _interruption_error() -> Interrupted:
    return Interrupted("The service stopped twice while it worked on this message. Send it again.")
