"""A run is what a message starts: accepted, carried out as a task of its own, remembered, after a crash taken up."""

import asyncio
import logging
from collections.abc import Coroutine
from dataclasses import dataclass, field
from typing import Any
from uuid import uuid4

from sqlalchemy import RowMapping
from sqlalchemy.ext.asyncio import AsyncEngine

from graph import turn, wire
from graph.answers import available
from graph.errors import AgentRuntimeError, EditRefused, Interrupted
from graph.settings import Settings
from graph.turn import Graph, Outcome, Pause
from prompts import team
from sessions import store
from sessions.acceptance import Request, accept, refused_edit
from sessions.events import Event, EventLog
from sessions.turns import Turns

log = logging.getLogger("agent_runtime.runs")
ATTEMPTS = 2
"""How often a run is begun when the process dies under it."""


class Failed(AgentRuntimeError):
    """A fault of ours; what it was is in the log, under the run's id."""


@dataclass
class Run:
    """A run that goes on, or one that is told again."""

    session_id: str
    id: str = field(default_factory=lambda: uuid4().hex)
    log: EventLog = field(default_factory=EventLog)
    taken: "asyncio.Future[None]" = field(default_factory=lambda: asyncio.get_running_loop().create_future())
    """Done when the message is stored, or waits for its turn; fails when it cannot be stored."""

    def settle(self, error: Exception | None = None) -> None:
        if not self.taken.done():
            self.taken.set_exception(error) if error else self.taken.set_result(None)

    def fail(self, error: AgentRuntimeError) -> list[Event]:
        return self.log.numbered([wire.failure(error, request_id=self.id)])


class Runs:
    def __init__(self, database: AsyncEngine, graph: Graph, settings: Settings) -> None:
        self._database = database
        self._graph = graph
        self._patience = settings.session_busy_seconds
        self._team = team(settings.multi_agent_mode)
        self.turns = Turns()
        self._active: dict[str, Run] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    async def submit(self, request: Request) -> Run:
        """A run whose events can be followed. Raises what the database raises when nothing could be stored."""
        run = Run(request.session_id)
        if self.turns.busy(request.session_id):
            run.settle()
        self._spawn(self._serve(run, request))
        await run.taken
        return run

    async def join(self, session_id: str) -> Run | None:
        """The run that goes on, else the last one; None if the session has none."""
        if run := self._active.get(session_id):
            return run
        async with self._database.connect() as connection:
            row = await store.last_run(connection, session_id)
        if not row:
            return None
        run = Run(session_id, row["id"])
        run.log.add(Event(*event) for event in row["events"] or [])
        run.log.close()
        return run

    async def recover(self) -> None:
        """Take up the runs that an earlier process left; returns when each of them has its session's turn."""
        async with self._database.connect() as connection:
            left = await store.unfinished(connection)
        runs = [Run(row["session_id"], row["id"], EventLog(row["attempts"] + 1)) for row in left]
        for run, row in zip(runs, left, strict=True):
            self._active[run.session_id] = run
            self._spawn(self._take_up(run, row))
        await asyncio.gather(*(run.taken for run in runs))

    async def close(self) -> None:
        """Runs that still go on are taken up by the next process."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _serve(self, run: Run, request: Request) -> None:
        try:
            async with self.turns.take(run.session_id, self._patience):
                available(request.message, self._team)
                accepted = await accept(self._database, self._graph, request, run.id)
                run.settle()
                if isinstance(accepted, list):
                    run.log.add(run.log.numbered(accepted))
                else:
                    await self._carry_out(run, request.message, request.options, accepted.pause)
        except EditRefused as error:
            await refused_edit(self._database, request)
            run.log.add(run.fail(error))
        except AgentRuntimeError as error:
            run.log.add(run.fail(error))
        except Exception as error:
            log.exception("run %s was not taken", run.id)
            run.settle(error)
            run.log.add(run.fail(_internal()))
        finally:
            run.settle()
            run.log.close()

    async def _carry_out(
        self, run: Run, message: wire.Message | None, options: wire.StreamOptions, pause: Pause | None
    ) -> None:
        self._active[run.session_id] = run
        try:
            outcome = await self._followed(run, message, options, pause)
            await self._finish(run, outcome, run.log.numbered(outcome.chunks), failed=False)
        except Exception:
            log.exception("run %s failed", run.id)
            snapshot = await self._graph.aget_state(turn.config(run.session_id, run.id))
            left = turn.outcome(snapshot.values, snapshot.interrupts, [])
            await self._finish(run, left, run.fail(_internal()), failed=True)
        finally:
            self._end(run)

    async def _followed(
        self, run: Run, message: wire.Message | None, options: wire.StreamOptions, pause: Pause | None
    ) -> Outcome:
        config = turn.config(run.session_id, run.id)
        async for item in turn.run(self._graph, config, message, options, pause):
            if isinstance(item, Outcome):
                return item
            run.log.add(run.log.numbered([item]))
        raise RuntimeError("the turn has no outcome")

    async def _finish(self, run: Run, outcome: Outcome, last: list[Event], *, failed: bool) -> None:
        """Stored first, sent then."""
        events = [event for event in [*run.log.events, *last] if not event.is_token]
        async with self._database.begin() as connection:
            await store.finish(connection, run.id, run.session_id, outcome, events, failed=failed)
        run.log.add(last)

    async def _take_up(self, run: Run, row: RowMapping) -> None:
        log.warning("run %s of session %s was cut off; taking it up", run.id, run.session_id)
        try:
            async with self.turns.take(run.session_id, None):
                run.settle()
                await self._taken_up(run, row)
        except Exception:
            log.exception("run %s was not taken up", run.id)
        finally:
            run.settle()
            self._end(run)

    async def _taken_up(self, run: Run, row: RowMapping) -> None:
        """Its outcome is read off the thread if it is there; else the run goes on, or is done again, or fails."""
        snapshot = await self._graph.aget_state(turn.config(run.session_id, run.id))
        began = (snapshot.metadata or {}).get("run") == run.id
        if began and (snapshot.interrupts or not snapshot.next):
            outcome = turn.recovered(snapshot)
            await self._finish(run, outcome, run.log.numbered(outcome.chunks), failed=False)
        elif row["attempts"] >= ATTEMPTS:
            left = turn.outcome(snapshot.values, snapshot.interrupts, [])
            await self._finish(run, left, run.fail(_interrupted()), failed=True)
        else:
            await self._again(run, row, None if began else wire.parse(row["input"], wire.MESSAGE))

    def _end(self, run: Run) -> None:
        run.log.close()
        self._active.pop(run.session_id, None)

    async def _again(self, run: Run, row: RowMapping, message: wire.Message | None) -> None:
        async with self._database.begin() as connection:
            await store.attempt(connection, run.id, row["attempts"] + 1)
        options = wire.StreamOptions.model_validate(row["options"])
        await self._carry_out(run, message, options, store.pause_of(row))


def _internal() -> Failed:
    return Failed("Something went wrong in the service. Send the message again; if it persists, report the request id.")


def _interrupted() -> Interrupted:
    return Interrupted("The service stopped twice while it worked on this message. Send it again.")
