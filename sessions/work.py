"""Carrying a run out: the graph at work, its outcome stored, then sent; and taking up what a process left behind."""

import asyncio
import logging
from typing import NamedTuple

from sqlalchemy import Connection, RowMapping

from graph import turn, wire
from graph.answers import CANCELLED
from graph.errors import AgentRuntimeError, Cancelled, GraphLost, GraphUnavailable, Interrupted, LimitReached
from graph.gate import GRANTS
from graph.recovery import recovered
from graph.stop import STOP
from graph.turn import Graph, Outcome, Pause
from sessions import audit, grants, store
from sessions.database import Database
from sessions.events import Event
from sessions.run import Run

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
    """The process ends; the next one takes the run up where its thread is."""


class Work:
    """Every method wants its session's turn."""

    def __init__(self, database: Database, graph: Graph, seconds: float) -> None:
        """`seconds`: how long a run may take."""
        self._database = database
        self._graph = graph
        self._seconds = seconds

    async def carry_out(
        self, run: Run, message: wire.Message | None, options: wire.StreamOptions, pause: Pause | None
    ) -> None:
        STOP.set(run.stop)
        GRANTS.set(lambda: self._database.transact(lambda connection: grants.standing(connection, run.session_id)))
        late = asyncio.get_running_loop().call_later(self._seconds, run.stop.want, _too_long(self._seconds))
        try:
            outcome = await self._followed(run, message, options, pause)
            await self._finish(run, outcome, run.log.numbered(outcome.chunks))
        except ShuttingDown:
            log.warning("run %s was cut off", run.id)
        except GraphLost:
            raise
        except GraphUnavailable as error:
            await self._finish(run, None, run.fail(error), again=True)
        except Exception:
            log.exception("run %s failed", run.id)
            left = await self._left(run, message)
            await self._finish(run, left, run.fail(internal()), again=_can_be_sent_again(message, left))
        else:
            if isinstance(run.stop.error, Cancelled) and outcome.pause:
                await self.lay_to_rest(run.session_id)
        finally:
            late.cancel()

    async def _followed(
        self, run: Run, message: wire.Message | None, options: wire.StreamOptions, pause: Pause | None
    ) -> Outcome:
        async for item in turn.run(self._graph, run.session_id, run.id, message, options, pause):
            if isinstance(item, Outcome):
                return _answering(message, item)
            run.log.add(run.log.numbered([item]))
        raise RuntimeError("the turn has no outcome")

    async def _finish(self, run: Run, outcome: Outcome | None, last: list[Event], *, again: bool = False) -> None:
        """Stored first, sent then. Without an outcome the thread is as it was.

        With `again` the run gives its key back: a retry is a new run.
        """
        events = [event for event in [*run.log.events, *last] if not event.opt_in]

        def finished(connection: Connection) -> None:
            audit.passed(connection, run.session_id, outcome.pause.calls if outcome and outcome.pause else [])
            store.finish(connection, run.id, run.session_id, outcome, events, again=again)

        await self._database.transact(finished)
        run.log.add(last)

    async def _left(self, run: Run, message: wire.Message | None) -> Outcome:
        """What a run leaves behind that failed: a thread that waits for its client, or rests."""
        config = turn.config(run.session_id, run.id)
        snapshot = await self._graph.aget_state(config)
        if snapshot.interrupts:
            return turn.outcome(snapshot.values, snapshot.interrupts, [])
        return await turn.stopped(self._graph, config, message)

    async def lay_to_rest(self, session_id: str, closing: Closing = CANCEL) -> None:
        """Close what is open in a session whose thread no run works on any more."""
        config = turn.config(session_id)
        before = turn.pending((await self._graph.aget_state(config)).values)
        outcome = await turn.stopped(self._graph, config, told=closing.told)
        entries = [audit.entry(each, closing.decision, "system", feedback=closing.feedback) for each in before]

        def rested(connection: Connection) -> None:
            audit.append(connection, session_id, entries)
            store.rest(connection, session_id, outcome)

        await self._database.transact(rested)

    async def take_up(self, run: Run, row: RowMapping) -> None:
        """Its outcome is read off the thread if it is there; else the run goes on, or is done again, or fails."""
        log.warning("run %s of session %s was cut off; taking it up", run.id, run.session_id)
        STOP.set(run.stop)
        message = wire.parse(row["input"], wire.MESSAGE)
        snapshot = await self._graph.aget_state(turn.config(run.session_id, run.id))
        began = turn.began(snapshot, run.id)
        if began and (snapshot.interrupts or not snapshot.next):
            outcome = recovered(snapshot, message, row["created_at"])
            await self._finish(run, outcome, run.log.numbered(outcome.chunks))
        elif row["attempts"] >= ATTEMPTS:
            left = await self._left(run, message)
            await self._finish(run, left, run.fail(_interrupted()), again=_can_be_sent_again(message, left))
        else:
            await self._again(run, row, None if began else message)

    async def _again(self, run: Run, row: RowMapping, message: wire.Message | None) -> None:
        attempt = row["attempts"] + 1
        await self._database.transact(lambda connection: store.attempt(connection, run.id, attempt))
        options = wire.StreamOptions.model_validate(row["options"])
        await self.carry_out(run, message, options, store.pause_of(row))


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
    return any(each.call.call_id == message.call_id for each in (left.pause.calls if left.pause else []))


def _too_long(seconds: float) -> LimitReached:
    return LimitReached(f"The run was stopped after {seconds / 60:g} minutes. Send a message to go on.")


def internal() -> Failed:
    return Failed(
        "Something went wrong in the service. Send a message to go on; if it persists, report the request id."
    )


def _interrupted() -> Interrupted:
    return Interrupted("The service stopped twice while it worked on this message. Send it again.")
