"""The runs of a process: each is what a message started, a task of its own, one at a time for a session."""

import asyncio
import logging
from collections.abc import Coroutine
from typing import Any

from sqlalchemy import RowMapping

from graph.answers import available
from graph.errors import AgentRuntimeError
from graph.settings import Settings
from graph.turn import Graph
from prompts import team
from sessions import store
from sessions.acceptance import Request, accept
from sessions.database import Database
from sessions.events import Event, EventLog
from sessions.run import Run
from sessions.turns import Turns
from sessions.work import Work, internal

log = logging.getLogger("agent_runtime.runs")


class Runs:
    def __init__(self, database: Database, graph: Graph, settings: Settings) -> None:
        self._database = database
        self._graph = graph
        self._work = Work(database, graph)
        self._patience = settings.session_busy_seconds
        self._team = team(settings.multi_agent_mode)
        self.turns = Turns()
        self._active: dict[str, Run] = {}
        self._tasks: set[asyncio.Task[None]] = set()
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
        row = await self._database.transact(lambda connection: store.last_run(connection, session_id))
        if not row:
            return None
        run = Run(session_id, id=row["id"])
        run.log.add(Event(*event) for event in row["events"] or [])
        run.end()
        return run

    async def cancel(self, session_id: str) -> None:
        """Stops the run that goes on, and closes the open calls; again, it changes nothing. Raises SessionBusy."""
        run = self._active.get(session_id)
        if run and run.work:
            if not run.work.cancelling():
                run.work.cancel()
            await run.over.wait()
        async with self.turns.take(session_id, self._patience):
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
                await self._settle(run.session_id)
                accepted = await accept(self._database, self._graph, request, run.id)
                if isinstance(accepted, list):
                    run.log.add(run.log.numbered(accepted))
                    return
                self._active[run.session_id] = run
                run.settle()
                await self._work.carry_out(run, request.message, request.options, accepted.pause)
        except AgentRuntimeError as error:
            run.log.add(run.fail(error))
        except Exception as error:
            log.exception("run %s broke", run.id)
            self._unsettled.add(run.session_id)
            run.settle(error)
            run.log.add(run.fail(internal()))
        finally:
            self._end(run)

    async def _settle(self, session_id: str) -> None:
        """Before a session's next message: its row has to say again what its thread says."""
        if session_id in self._unsettled:
            for row in await self._database.transact(lambda connection: store.unfinished(connection, session_id)):
                await self._work.take_up(_left(row), row)
            self._unsettled.discard(session_id)

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


def _left(row: RowMapping) -> Run:
    """A run that an earlier process left."""
    return Run(row["session_id"], (row["key"], row["body_hash"]), row["id"], EventLog(row["attempts"] + 1))
