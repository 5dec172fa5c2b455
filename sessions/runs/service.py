"""The runs of the sessions: each is what a message started, carried out here or by another replica."""

import asyncio
from contextlib import suppress

from langchain_core.language_models import BaseChatModel
from sqlalchemy import Connection
from sqlalchemy.exc import IntegrityError

from graph.errors import AgentRuntimeError, EditRefused, Interrupted, SessionBusy
from graph.execution.closing import delete_thread
from graph.execution.outcome import Graph
from graph.permissions.decisions import available
from graph.permissions.gatekeeper import Gatekeeper
from graph.settings import Settings
from graph.usage.meter import Meter
from prompts import team
from sessions.request import Request
from sessions.runs import replay
from sessions.runs.admission import Accepted, Door, InTheWay, Started, Waiting, refused_edit
from sessions.runs.approval_timeouts import Approvals
from sessions.runs.executor import Work
from sessions.runs.idempotency import Joined, Told
from sessions.runs.replica import Replica
from sessions.runs.run import Run
from sessions.runs.titles import Titles
from sessions.store import leases
from sessions.store import runs as run_rows
from sessions.store import sessions as session_rows
from sessions.store.database import Database


class Runs:
    def __init__(
        self,
        database: Database,
        graph: Graph,
        gatekeeper: Gatekeeper,
        settings: Settings,
        namer: BaseChatModel | None = None,
    ) -> None:
        """`namer`: the model that finds titles, if there is one."""
        self._database = database
        self._graph = graph
        self.titles = Titles(database, namer, Meter(settings))
        self._patience = settings.session_busy_seconds
        self._team = team(settings.multi_agent_mode)
        name = leases.replica()
        self._door = Door(gatekeeper, name, settings.lease_seconds, settings.session_queue, settings.session_busy)
        self.work = Work(database, graph, settings.max_run_minutes * 60)
        self.replica = Replica(name, database, self.work, self._door, settings)
        self.approvals = Approvals(database, self.replica, self.work, settings)

    async def submit(self, request: Request) -> Run:
        """A run whose events can be followed.

        Raises Interrupted at the end of the process, and what the database raises when nothing could be stored.
        """
        if self.replica.is_closing:
            raise Interrupted("The service is stopping. Send it again.")
        return await asyncio.shield(self.replica.spawn(self._submitted(request)))

    async def _submitted(self, request: Request) -> Run:
        run = Run(request.session_id)
        try:
            available(request.message, self._team)
            await self.approvals.close_late(request.session_id, request.message)
            accepted = await self._accepted(request, run)
        except AgentRuntimeError as error:
            run.log.add(run.fail(error))
            run.end()
            return run
        match accepted:
            case Started(lease, pause, names):
                work = self.work.carry_out(run, lease, request.message, request.options, pause)
                self.replica.tend(lease, run, work)
                if names:
                    self.replica.spawn(self.titles.after(run, request.message))
            case Waiting(stopped):
                if stopped:
                    self.replica.stop(stopped, run.session_id)
                return self._waiting(run)
            case Joined(run_id):
                return self.replica.follow(run_id, request.session_id)
            case Told(chunks):
                run.log.add(run.log.numbered(chunks))
                run.end()
        return run

    async def _accepted(self, request: Request, run: Run) -> Accepted:
        tried = False

        def work(connection: Connection) -> Accepted:
            nonlocal tried
            before = self._door.taken_before(connection, run.id) if tried else None
            tried = True
            return before or self._door.take_in(connection, request, run.id)

        try:
            return await self.replica.taking(request.session_id, work)
        except IntegrityError:  # another replica has made the session in the same moment
            return await self.replica.taking(request.session_id, work)
        except EditRefused:
            await self._database.transact(lambda connection: refused_edit(connection, request))
            raise
        except InTheWay:
            await self._clear(request.session_id)
            return await self.replica.taking(request.session_id, work)

    async def _clear(self, session_id: str) -> None:
        with suppress(KeyError):  # it was erased in the meantime
            async with self.replica.hold(session_id):
                await delete_thread(self._graph, session_id)
                await self._database.transact(lambda connection: session_rows.clear_deleted(connection, session_id))

    def _waiting(self, run: Run) -> Run:
        """The run that the message will be; what this replica did of it in the meantime stays."""
        run = self.replica.expect(run)
        loop = asyncio.get_running_loop()
        loop.call_later(self._patience, lambda: self.replica.spawn(self._withdraw(run)))
        return run

    async def _withdraw(self, run: Run) -> None:
        """A message that waited too long, if it still waits."""
        if not self.replica.is_waiting(run):
            return
        if await self._database.transact(lambda connection: run_rows.withdraw(connection, run.id)):
            run.log.add(
                run.fail(SessionBusy("The session still works on an earlier message. Send this one again later."))
            )
            self.replica.forget(run)

    async def join(self, session_id: str) -> Run | None:
        """The run that goes on, else the last one; None if the session has none."""
        if run := self.replica.active.get(session_id):
            return run
        row, events = await self._database.transact(lambda connection: replay.last(connection, session_id))
        if row is None:
            return None
        if row["status"] != "done":
            return self.replica.follow(row["id"], session_id)
        run = Run(session_id, id=row["id"])
        run.log.add(events)
        run.end()
        return run

    async def cancel(self, session_id: str) -> None:
        """Stops the run that goes on, and closes the open calls; again, it changes nothing. Raises SessionBusy."""
        await self.stop(session_id)
        if await self._database.transact(lambda connection: run_rows.rests_paused(connection, session_id)):
            async with self.replica.hold(session_id) as lease:
                row = await self._database.transact(lambda connection: session_rows.session(connection, session_id))
                if session_rows.pause_of(row):
                    await self.work.lay_to_rest(lease)

    async def stop(self, session_id: str) -> None:
        """The run that goes on, if any; returns when it is over. Raises SessionBusy."""
        wanted = await self._database.transact(lambda connection: run_rows.want(connection, session_id, "cancel"))
        if wanted:
            run = self.replica.follow(wanted, session_id)
            self.replica.stop(wanted, session_id)
            await self._over(run)

    async def _over(self, run: Run) -> None:
        try:
            await asyncio.wait_for(run.over.wait(), self._patience)
        except TimeoutError:
            raise SessionBusy("The run does not end. Try again later.") from None
