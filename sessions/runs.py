"""The runs of a process: each is what a message started, a task of its own, one at a time for a session."""

import asyncio
import logging
from collections.abc import Coroutine
from typing import Any

from sqlalchemy import Connection, RowMapping
from sqlalchemy.exc import SQLAlchemyError

from graph import wire
from graph.answers import available
from graph.errors import AgentRuntimeError, CallNotOpen, Cancelled, GraphUnavailable, Interrupted
from graph.gate import Gatekeeper
from graph.settings import Settings
from graph.turn import Graph, Pause
from prompts import team
from sessions import store
from sessions.acceptance import Request, accept, closed, is_open
from sessions.database import Database
from sessions.events import Event, EventLog
from sessions.run import Run
from sessions.turns import Turns
from sessions.work import ShuttingDown, Work, expiry, internal

log = logging.getLogger("agent_runtime.runs")
CLOSING_SECONDS = 5
"""For what goes on at the end of the process to reach a point where it can be taken up."""


class Runs:
    def __init__(self, database: Database, graph: Graph, gatekeeper: Gatekeeper, settings: Settings) -> None:
        self._database = database
        self._graph = graph
        self._gatekeeper = gatekeeper
        self._work = Work(database, graph, settings.max_run_minutes * 60)
        self._expiry = settings.approval_timeout_seconds
        self._patience = settings.session_busy_seconds
        self._team = team(settings.multi_agent_mode)
        self.turns = Turns()
        self._active: dict[str, Run] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._closing = False
        self._unsettled: set[str] = set()
        """The sessions of runs whose outcome the database did not take."""

    async def submit(self, request: Request) -> Run:
        """A run whose events can be followed. Raises what the database raises when nothing could be stored."""
        told_by = (request.key, request.body_hash)
        active = self._active.get(request.session_id)
        if active and request.key and active.told_by == told_by:
            return active
        run = Run(request.session_id, told_by)
        if self.turns.busy(request.session_id):
            run.settle()
        self._spawn(self._serve(run, request))
        await run.taken
        return run

    async def join(self, session_id: str) -> Run | None:
        """The run that goes on, else the last one; None if the session has none."""
        if run := self._active.get(session_id):
            return run
        last = await self._database.transact(lambda connection: _last(connection, session_id))
        if last is None:
            return None
        run = Run(session_id, id=last[0])
        run.log.add(last[1])
        run.end()
        return run

    async def cancel(self, session_id: str) -> None:
        """Stops the run that goes on, and closes the open calls; again, it changes nothing. Raises SessionBusy."""
        if run := self._active.get(session_id):
            run.stop.want(Cancelled("The run was stopped. Send a message to go on."))
            await run.over.wait()
            return
        async with self.turns.take(session_id, self._patience):
            self._still_open()
            await self._settle(session_id)
            row = await self._database.transact(lambda connection: store.session(connection, session_id))
            if store.pause_of(row):
                await self._work.lay_to_rest(session_id)

    async def recover(self) -> None:
        """Take up the runs that an earlier process left; returns when each of them has its session's turn."""
        left = await self._database.transact(lambda connection: store.unfinished(connection))
        runs = [_left(row) for row in left]
        for run, row in zip(runs, left, strict=True):
            self._active[run.session_id] = run
            self._spawn(self._take_up(run, row))
        await asyncio.gather(*(run.taken for run in runs))
        if self._expiry:
            self._spawn(self._watch())

    async def close(self) -> None:
        """Runs that still go on are taken up by the next process."""
        self._closing = True
        active = [asyncio.create_task(run.over.wait()) for run in self._active.values()]
        for run in self._active.values():
            run.stop.want(ShuttingDown())
        if active:
            await asyncio.wait(active, timeout=CLOSING_SECONDS)
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
                self._still_open()
                available(request.message, self._team)
                await self._settle(run.session_id)
                await self._expire(run.session_id, request.message)
                accepted = await accept(self._database, self._graph, self._gatekeeper, request, run.id)
                if isinstance(accepted, list):
                    run.log.add(run.log.numbered(accepted))
                    return
                self._active[run.session_id] = run
                run.settle()
                await self._work.carry_out(run, request.message, request.options, accepted.pause)
        except AgentRuntimeError as error:
            if isinstance(error, GraphUnavailable):
                self._unsettled.add(run.session_id)
            run.log.add(run.fail(error))
        except Exception as error:
            log.exception("run %s broke", run.id)
            self._unsettled.add(run.session_id)
            run.settle(error if isinstance(error, SQLAlchemyError) else None)
            run.log.add(run.fail(internal()))
        finally:
            self._end(run)

    def _still_open(self) -> None:
        """Raises Interrupted: at the end of the process nothing goes ahead of a run that was cut off."""
        if self._closing:
            raise Interrupted("The service is stopping. Send it again.")

    async def _settle(self, session_id: str) -> None:
        """Before a session's next message: its row has to say again what its thread says."""
        if session_id in self._unsettled:
            for row in await self._database.transact(lambda connection: store.unfinished(connection, session_id)):
                await self._work.take_up(_left(row), row)
            self._unsettled.discard(session_id)

    async def _expire(self, session_id: str, message: wire.Message | None = None) -> None:
        """Close what nobody decided on in time; beside a call that the IDE still works on, when that one is answered.

        Raises CallNotOpen if the message decides on it.
        """
        if not self._expiry:
            return
        row = await self._database.transact(lambda connection: store.session(connection, session_id))
        pause = store.pause_of(row)
        late = store.undecided(pause, self._expiry)
        if pause and late == {each.call.call_id for each in pause.calls}:
            await self._work.lay_to_rest(session_id, expiry(self._expiry))
        if (call_id := getattr(message, "call_id", None)) in late:
            raise CallNotOpen(
                f"The approval of {call_id} expired after {self._expiry:g} seconds. Send a message to go on."
            )

    async def _watch(self) -> None:
        """Looks for approvals that nobody decided on, a few times in the time they have, every 30 s at least."""
        while True:
            await asyncio.sleep(min(self._expiry / 4, 30))
            try:
                paused = await self._database.transact(lambda connection: store.paused(connection, self._expiry))
                for session_id in paused:
                    if not self.turns.busy(session_id):
                        await self._look_through(session_id)
            except Exception:
                log.exception("approvals could not be looked through; they are again later")

    async def _look_through(self, session_id: str) -> None:
        async with self.turns.take(session_id, self._patience):
            await self._settle(session_id)
            await self._expire(session_id)

    async def _take_up(self, run: Run, row: RowMapping) -> None:
        try:
            async with self.turns.take(run.session_id, None):
                run.settle()
                await self._work.take_up(run, row)
        except Exception:
            log.exception("run %s was not taken up", run.id)
            self._unsettled.add(run.session_id)
        finally:
            self._end(run)

    def _end(self, run: Run) -> None:
        run.end()
        if self._active.get(run.session_id) is run:
            del self._active[run.session_id]


def _last(connection: Connection, session_id: str) -> tuple[str, list[Event]] | None:
    """The id of the last run, and what can be told of it again."""
    row = store.last_run(connection, session_id)
    if row is None:
        return None
    pause = store.pause_of(store.session(connection, session_id))
    return row["id"], [_still_true(Event(*event), pause) for event in row["events"] or []]


def _still_true(event: Event, pause: Pause | None) -> Event:
    """In place of a call that is not open any more, under its number, that it is not."""
    chunk = wire.CHUNK.validate_json(event.data)
    if not isinstance(chunk, wire.ToolCall) or is_open(chunk, pause):
        return event
    error = wire.failure(closed(chunk, pause)).model_copy(update={"is_final": chunk.is_final})
    return event._replace(name="error", data=error.encoded())


def _left(row: RowMapping) -> Run:
    """A run that an earlier process left."""
    return Run(row["session_id"], (row["key"], row["body_hash"]), row["id"], EventLog(row["attempts"] + 1))
