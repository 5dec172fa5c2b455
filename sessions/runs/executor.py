"""Carrying a run out: the graph at work, its outcome stored, then sent; and taking up what a process left behind."""

import asyncio
import logging
from collections.abc import Callable
from dataclasses import replace
from typing import NamedTuple

from sqlalchemy import Connection, RowMapping

from graph import wire
from graph.cancellation import STOP
from graph.db.fencing import FENCE, Fence, LeaseLost
from graph.db.retry import is_transient
from graph.errors import AgentRuntimeError, Cancelled, GraphLost, GraphUnavailable, Interrupted, LimitReached
from graph.execution.closing import close_thread, has_started, is_closing, is_over
from graph.execution.outcome import Graph, Outcome, Pause, list_open_calls, outcome_from_snapshot, thread_config
from graph.execution.recovery import recovered, so_far
from graph.execution.run import run_graph
from graph.permissions.decisions import CANCELLED
from graph.permissions.gatekeeper import GRANTS
from graph.timestamps import now
from sessions.event_log import Event
from sessions.runs.run import Run
from sessions.store import audit, calls, grants, leases, routings
from sessions.store import runs as run_rows
from sessions.store import sessions as session_rows
from sessions.store.database import Database

log = logging.getLogger("agent_runtime.runs")
ATTEMPTS = 2
"""How often a run is begun when the process dies under it."""


class Failed(AgentRuntimeError):
    """A fault of ours; what it was is in the log, under the run's id."""


class Closing(NamedTuple):
    """How open calls are closed: what the audit says of each, and what their model is told."""

    decision: str
    feedback: str
    told: str


CANCEL = Closing("cancel", "the user cancelled", CANCELLED)


def expiry(seconds: float) -> Closing:
    """Nobody decided in time: that is not a rejection."""
    sentence = f"expired: nobody decided within {seconds:g} seconds; the call did not run, nobody rejected it"
    return Closing("expire", sentence, sentence)


class ShuttingDown(Exception):
    """The process ends; another one takes the run up where its thread is."""


class Work:
    """Every method writes under a lease and raises LeaseLost; those that carry a run out return whether more waits.

    If nothing waits the lease is given back. A fault of the database that passes is raised too.
    """

    def __init__(self, database: Database, graph: Graph, seconds: float) -> None:
        """`seconds`: how long a run may take."""
        self._database = database
        self._graph = graph
        self._seconds = seconds

    async def carry_out(
        self, run: Run, lease: Fence, message: wire.Message | None, options: wire.StreamOptions, pause: Pause | None
    ) -> bool:
        """Raises ShuttingDown as well."""
        STOP.set(run.stop)
        FENCE.set(lease)
        GRANTS.set(lambda: self._database.transact(lambda connection: grants.standing(connection, run.session_id)))
        late = asyncio.get_running_loop().call_later(self._seconds, run.stop.want, _too_long(self._seconds))
        try:
            outcome = await self._followed(run, message, options, pause)
            if isinstance(run.stop.error, Cancelled) and outcome.pause:
                outcome = await self._cancelled(run, lease, run.stop.error)
            return await self._finish(run, lease, outcome, run.log.numbered(outcome.chunks))
        except (ShuttingDown, LeaseLost, GraphLost):
            raise
        except GraphUnavailable as error:
            return await self.refuse(run, lease, error)
        except Exception as error:
            if is_transient(error):
                raise
            log.exception("run %s failed", run.id)
            left = await self._left(run, message)
            return await self._finish(run, lease, left, run.fail(internal()), again=_can_be_sent_again(message, left))
        finally:
            late.cancel()

    async def _followed(
        self, run: Run, message: wire.Message | None, options: wire.StreamOptions, pause: Pause | None
    ) -> Outcome:
        async for item in run_graph(self._graph, run.session_id, run.id, message, options, pause, run.costs):
            if isinstance(item, Outcome):
                return _answering(message, item)
            run.log.add(run.log.numbered([item]))
        raise RuntimeError("the turn has no outcome")

    async def _cancelled(self, run: Run, lease: Fence, error: Cancelled) -> Outcome:
        """The run got as far as a pause before it could be stopped: its calls are closed before anyone saw them."""
        rested = await self.lay_to_rest(lease, CANCEL, run.id)
        return replace(rested, chunks=[wire.failure(error, request_id=run.id)])

    async def _finish(
        self, run: Run, lease: Fence, outcome: Outcome, last: list[Event], *, again: bool = False
    ) -> bool:
        """Stored first, sent then. With `again` the run gives its key back: a retry is a new run."""
        events = [*run.log.of_attempt(), *(event for event in last if not event.opt_in)]
        waiting_for = outcome.pause.calls if outcome.pause else []

        def finished(connection: Connection) -> bool:
            session = leases.checked(connection, lease)
            audit.passed(connection, run.session_id, waiting_for)
            calls.opened(connection, run.session_id, waiting_for)
            routings.add(connection, run.session_id, run.id, events)
            run_rows.finish(connection, run.id, session, outcome, events, run.bill(), epoch=lease.epoch, again=again)
            return _more(connection, lease)

        more = await self._stored(run, lease, finished)
        run.log.add(last)
        return more

    async def _stored(self, run: Run, lease: Fence, finished: Callable[[Connection], bool]) -> bool:
        """A transaction whose end the connection did not live to see is made again, and then finds its lease gone."""
        try:
            return await self._database.transact(finished)
        except LeaseLost:
            row = await self._database.transact(lambda connection: run_rows.run(connection, run.id))
            if row and (row["status"], row["epoch"]) == ("done", lease.epoch):
                return True
            raise

    async def refuse(self, run: Run, lease: Fence, error: AgentRuntimeError) -> bool:
        """A message that cannot be taken: sent again it is a new one."""
        last = run.fail(error)
        values = {"status": "done", "key": None, "events": [event[:3] for event in last], "finished_at": now()}

        def refused(connection: Connection) -> bool:
            leases.checked(connection, lease)
            run_rows.change_run(connection, run.id, epoch=lease.epoch, **values)
            return _more(connection, lease)

        more = await self._stored(run, lease, refused)
        run.log.add(last)
        return more

    async def _left(self, run: Run, message: wire.Message | None) -> Outcome:
        """What a run leaves behind that failed: a thread that waits for its client, or rests."""
        config = thread_config(run.session_id, run.id)
        snapshot = await self._graph.aget_state(config)
        if snapshot.interrupts:
            return outcome_from_snapshot(snapshot, [])
        return await close_thread(self._graph, config, message)

    async def lay_to_rest(self, lease: Fence, closing: Closing = CANCEL, run_id: str = "") -> Outcome:
        """Close what is open in a session whose thread no run works on any more."""
        FENCE.set(lease)
        config = thread_config(lease.session_id, run_id)
        open_calls = list_open_calls((await self._graph.aget_state(config)).values)
        outcome = await close_thread(self._graph, config, told=closing.told)
        entries = [audit.entry(each, closing.decision, "system", feedback=closing.feedback) for each in open_calls]

        def rested(connection: Connection) -> None:
            """Once, also if the transaction is made again."""
            head = leases.checked(connection, lease)["head"]
            if outcome.head and head == outcome.head:
                return
            audit.append(connection, lease.session_id, entries)
            calls.decided(connection, lease.session_id, entries)
            session_rows.rest(connection, lease.session_id, outcome)

        await self._database.transact(rested)
        return outcome

    async def take_up(self, run: Run, lease: Fence, row: RowMapping) -> bool:
        """Its outcome is read off the thread if it is there; else the run goes on, or is done again, or fails."""
        log.warning("run %s of session %s was cut off; taking it up", run.id, run.session_id)
        STOP.set(run.stop)
        FENCE.set(lease)
        run.usage = row["usage"]
        if row["wanted"]:
            run.stop.want(cancelled())
        message = wire.parse(row["input"], wire.MESSAGE)
        snapshot = await self._graph.aget_state(thread_config(run.session_id, run.id))
        began = has_started(snapshot, run.id)
        losses = row["losses"] + (row["status"] == "running")
        if is_over(snapshot, run.id):
            outcome = recovered(snapshot, message, row["created_at"])
            return await self._finish(run, lease, outcome, run.log.numbered(outcome.chunks))
        if losses >= ATTEMPTS or is_closing(snapshot, run.id):
            left = await self._left(run, message)
            last = run.fail(_interrupted())
            return await self._finish(run, lease, left, last, again=_can_be_sent_again(message, left))
        await self._begin_again(run, lease, losses)
        if began:
            run.log.add(run.log.numbered(so_far(snapshot, message, row["created_at"])))
        options = wire.StreamOptions.model_validate(row["options"])
        return await self.carry_out(run, lease, None if began else message, options, session_rows.pause_of(row))

    async def _begin_again(self, run: Run, lease: Fence, losses: int) -> None:
        values = {"attempts": run.log.attempt, "losses": losses, "status": "running", "epoch": lease.epoch}
        await self.noted(lease, run.id, **values)
        run.log.stored = run.log.attempt

    async def noted(self, lease: Fence, run_id: str, **values: object) -> None:
        """In the row of a run."""

        def work(connection: Connection) -> None:
            leases.checked(connection, lease)
            run_rows.change_run(connection, run_id, **values)

        await self._database.transact(work)

    async def hand_over(self, run: Run, lease: Fence) -> None:
        """To whoever looks for work first; that the run was cut off is not held against it."""

        def handed(connection: Connection) -> None:
            leases.checked(connection, lease)
            run_rows.change_run(connection, run.id, status="handed", usage=run.bill())
            leases.release(connection, lease)

        await self._database.transact(handed)


def _more(connection: Connection, lease: Fence) -> bool:
    if run_rows.first_unfinished(connection, lease.session_id):
        return True
    leases.release(connection, lease)
    return False


def _answering(message: wire.Message | None, outcome: Outcome) -> Outcome:
    """The outcome. Raises RuntimeError if the thread did not take the message in: langgraph says nothing of that."""
    waiting = [each.call.call_id for each in (outcome.pause.calls if outcome.pause else [])]
    if not outcome.chunks and (not waiting or getattr(message, "call_id", None) in waiting):
        raise RuntimeError("the thread did not take the message in")
    return outcome


def _can_be_sent_again(message: wire.Message | None, left: Outcome) -> bool:
    """Not an answer that the thread has taken in, nor what the thread went on with by itself."""
    if message is None:
        return False
    if not isinstance(message, wire.ToolResult | wire.HitlDecision):
        return True
    waiting = [each.call for each in (left.pause.calls if left.pause else []) if each.call.call_id == message.call_id]
    return any(call.requires_approval or isinstance(message, wire.ToolResult) for call in waiting)


def _too_long(seconds: float) -> LimitReached:
    return LimitReached(f"The run was stopped after {seconds / 60:g} minutes. Send a message to go on.")


def cancelled() -> Cancelled:
    return Cancelled("The run was stopped. Send a message to go on.")


def internal() -> Failed:
    return Failed(
        "Something went wrong in the service. Send a message to go on; if it persists, report the request id."
    )


def _interrupted() -> Interrupted:
    return Interrupted("The service stopped twice while it worked on this message. Send it again.")
