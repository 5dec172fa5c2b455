"""Carrying a run out: the graph at work, its outcome stored, then sent; and taking up what a process left behind."""

import asyncio
import logging

from sqlalchemy import RowMapping
from sqlalchemy.ext.asyncio import AsyncEngine

from graph import turn, wire
from graph.errors import AgentRuntimeError, Cancelled, Interrupted
from graph.turn import Graph, Outcome, Pause
from sessions import audit, store
from sessions.events import Event
from sessions.run import Run

log = logging.getLogger("agent_runtime.runs")
ATTEMPTS = 2
"""How often a run is begun when the process dies under it."""


class Failed(AgentRuntimeError):
    """A fault of ours; what it was is in the log, under the run's id."""


class Work:
    """Every method wants its session's turn."""

    def __init__(self, database: AsyncEngine, graph: Graph) -> None:
        self._database = database
        self._graph = graph

    async def carry_out(
        self, run: Run, message: wire.Message | None, options: wire.StreamOptions, pause: Pause | None
    ) -> None:
        run.work = asyncio.create_task(self._followed(run, message, options, pause))
        try:
            outcome = await run.work
            await self._finish(run, outcome, run.log.numbered(outcome.chunks))
        except asyncio.CancelledError:
            if _is_cancelled_itself():
                raise
            await self._cancelled(run)
        except Exception:
            log.exception("run %s failed", run.id)
            await self._finish(run, await self._left(run), run.fail(internal()), failed=True)

    async def _followed(
        self, run: Run, message: wire.Message | None, options: wire.StreamOptions, pause: Pause | None
    ) -> Outcome:
        config = turn.config(run.session_id, run.id)
        async for item in turn.run(self._graph, config, message, options, pause):
            if isinstance(item, Outcome):
                return item
            run.log.add(run.log.numbered([item]))
        raise RuntimeError("the turn has no outcome")

    async def _finish(self, run: Run, outcome: Outcome, last: list[Event], *, failed: bool = False) -> None:
        """Stored first, sent then."""
        events = [event for event in [*run.log.events, *last] if not event.is_token]
        async with self._database.begin() as connection:
            await store.finish(connection, run.id, run.session_id, outcome, events, failed=failed)
        run.log.add(last)

    async def _left(self, run: Run) -> Outcome:
        snapshot = await self._graph.aget_state(turn.config(run.session_id, run.id))
        return turn.outcome(snapshot.values, snapshot.interrupts, [])

    async def _cancelled(self, run: Run) -> None:
        left = await self.lay_to_rest(run.session_id)
        await self._finish(run, left, run.fail(Cancelled("The run was stopped. Send a message to go on.")))

    async def lay_to_rest(self, session_id: str) -> Outcome:
        """Close what is open in a session whose thread no run works on."""
        config = turn.config(session_id)
        before = turn.pending((await self._graph.aget_state(config)).values)
        outcome = await turn.stopped(self._graph, config)
        async with self._database.begin() as connection:
            entries = [audit.entry(each, "cancel", "system", feedback="the user cancelled") for each in before]
            await audit.append(connection, session_id, entries)
            await store.rest(connection, session_id, outcome)
        return outcome

    async def take_up(self, run: Run, row: RowMapping) -> None:
        """Its outcome is read off the thread if it is there; else the run goes on, or is done again, or fails."""
        log.warning("run %s of session %s was cut off; taking it up", run.id, run.session_id)
        snapshot = await self._graph.aget_state(turn.config(run.session_id, run.id))
        began = (snapshot.metadata or {}).get("run") == run.id
        if began and (snapshot.interrupts or not snapshot.next):
            outcome = turn.recovered(snapshot)
            await self._finish(run, outcome, run.log.numbered(outcome.chunks))
        elif row["attempts"] >= ATTEMPTS:
            await self._finish(run, await self._left(run), run.fail(_interrupted()), failed=True)
        else:
            await self._again(run, row, None if began else wire.parse(row["input"], wire.MESSAGE))

    async def _again(self, run: Run, row: RowMapping, message: wire.Message | None) -> None:
        async with self._database.begin() as connection:
            await store.attempt(connection, run.id, row["attempts"] + 1)
        options = wire.StreamOptions.model_validate(row["options"])
        await self.carry_out(run, message, options, store.pause_of(row))


def _is_cancelled_itself() -> bool:
    task = asyncio.current_task()
    return bool(task and task.cancelling())


def internal() -> Failed:
    return Failed("Something went wrong in the service. Send the message again; if it persists, report the request id.")


def _interrupted() -> Interrupted:
    return Interrupted("The service stopped twice while it worked on this message. Send it again.")
