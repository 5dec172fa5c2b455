"""The runs of the sessions: submit a message, join a run, cancel it."""

import asyncio
from contextlib import suppress

from langchain_core.language_models import BaseChatModel
from sqlalchemy import Connection
from sqlalchemy.exc import IntegrityError

from graph.errors import AgentRuntimeError, EditRefused, Interrupted, SessionBusy
from graph.execution.closing import delete_thread
from graph.execution.outcome import Graph
from graph.permissions.decisions import require_available
from graph.permissions.gatekeeper import Gatekeeper
from graph.settings import Settings
from graph.usage.meter import Meter
from prompts import select_team
from sessions.request import RunRequest
from sessions.runs import replay
from sessions.runs.admission import Accepted, Admission, DeletedSessionExists, Queued, Started, record_refused_edit
from sessions.runs.approval_timeouts import ApprovalTimeouts
from sessions.runs.call_closure import close_open_calls
from sessions.runs.executor import RunExecutor
from sessions.runs.idempotency import Joined, Replayed
from sessions.runs.replica import Replica
from sessions.runs.run import RunHandle
from sessions.runs.status import RunStatus
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
        title_model: BaseChatModel | None = None,
    ) -> None:
        """Without a `title_model`, sessions keep their first message as title."""
        self._database = database
        self._graph = graph
        self.titles = Titles(database, title_model, Meter(settings))
        self._busy_seconds = settings.queue_timeout_seconds
        self._team = select_team(settings.multi_agent_mode)
        name = leases.make_replica_name()
        self._admission = Admission(
            gatekeeper, name, settings.lease_seconds, settings.max_queued_messages, settings.multitask_strategy
        )
        self.executor = RunExecutor(database, graph, settings.max_run_minutes * 60)
        self.replica = Replica(name, database, graph, self.executor, self._admission, settings)
        self.approval_timeouts = ApprovalTimeouts(database, graph, self.replica, settings)

    async def submit(self, request: RunRequest) -> RunHandle:
        """Accept the message and return the run whose events answer it.

        A message that cannot be accepted gets a finished run with one error event. Raises Interrupted at shutdown, and
        the error of the database if nothing could be stored.
        """
        if self.replica.lifecycle.is_closing:
            raise Interrupted("The service is stopping. Send it again.")
        return await asyncio.shield(self.replica.lifecycle.spawn(self._submit(request)))

    async def _submit(self, request: RunRequest) -> RunHandle:
        run = RunHandle(request.session_id)
        try:
            require_available(request.message, self._team)
            await self.approval_timeouts.expire(request.session_id, request.message)
            accepted = await self._accept(request, run)
        except AgentRuntimeError as error:
            run.log.add(run.make_error_events(error))
            run.end()
            return run
        match accepted:
            case Started(lease, pause, names):
                work = self.executor.execute(run, lease, request.message, request.options, pause)
                self.replica.worker.process_session(lease, run, work)
                if names:
                    self.replica.lifecycle.spawn(self.titles.improve_after_run(run, request.message))
            case Queued(stopped):
                if stopped:
                    self.replica.stop_run(stopped, run.session_id)
                return self._follow_queued(run)
            case Joined(run_id):
                return self.replica.followers.follow(run_id, request.session_id)
            case Replayed(chunks):
                run.log.add(run.log.make_events(chunks))
                run.end()
        return run

    async def _accept(self, request: RunRequest, run: RunHandle) -> Accepted:
        tried = False

        def work(connection: Connection) -> Accepted:
            nonlocal tried
            before = self._admission.find_committed(connection, run.id) if tried else None
            tried = True
            return before or self._admission.accept(connection, request, run.id)

        try:
            return await self.replica.leases.track_acquisition(request.session_id, work)
        except IntegrityError:  # another replica created the session at the same moment
            return await self.replica.leases.track_acquisition(request.session_id, work)
        except EditRefused:
            await self._database.transact(lambda connection: record_refused_edit(connection, request))
            raise
        except DeletedSessionExists:
            await self._clear_deleted(request.session_id)
            return await self.replica.leases.track_acquisition(request.session_id, work)

    async def _clear_deleted(self, session_id: str) -> None:
        with suppress(KeyError):  # erased meanwhile
            async with self.replica.lease_session(session_id):
                await delete_thread(self._graph, session_id)
                await self._database.transact(lambda connection: session_rows.clear_deleted(connection, session_id))

    def _follow_queued(self, run: RunHandle) -> RunHandle:
        """Follow the run that the queued message becomes; withdraw it if it waits for too long."""
        run = self.replica.followers.track_run(run)
        loop = asyncio.get_running_loop()
        loop.call_later(self._busy_seconds, lambda: self.replica.lifecycle.spawn(self._withdraw_late(run)))
        return run

    async def _withdraw_late(self, run: RunHandle) -> None:
        """Withdraw the message if it is still queued, and send `session_busy`."""
        if not self.replica.followers.is_followed(run):
            return
        if await self._database.transact(lambda connection: run_rows.withdraw(connection, run.id)):
            run.log.add(
                run.make_error_events(
                    SessionBusy("The session still works on an earlier message. Send this one again later.")
                )
            )
            self.replica.followers.end_run(run)

    async def join(self, session_id: str) -> RunHandle | None:
        """Return the current run, else the last one; None if the session has none."""
        if run := self.replica.active.get(session_id):
            return run
        row, events = await self._database.transact(lambda connection: replay.replay_latest_run(connection, session_id))
        if row is None:
            return None
        if row["status"] != RunStatus.DONE:
            return self.replica.followers.follow(row["id"], session_id)
        run = RunHandle(session_id, id=row["id"])
        run.log.add(events)
        run.end()
        return run

    async def cancel(self, session_id: str) -> None:
        """Stop the current run and close the open calls; a second call changes nothing. Raises SessionBusy."""
        await self.stop(session_id)
        if await self._database.transact(lambda connection: run_rows.is_idle_and_paused(connection, session_id)):
            async with self.replica.lease_session(session_id) as lease:
                row = await self._database.transact(
                    lambda connection: session_rows.find_session(connection, session_id)
                )
                if session_rows.pause_of(row):
                    await close_open_calls(self._database, self._graph, lease)

    async def stop(self, session_id: str) -> None:
        """Stop the current run, if there is one, and wait until it is over. Raises SessionBusy."""
        run_id = await self._database.transact(
            lambda connection: run_rows.request_stop(connection, session_id, "cancel")
        )
        if run_id:
            run = self.replica.followers.follow(run_id, session_id)
            self.replica.stop_run(run_id, session_id)
            await self._wait_until_over(run)

    async def _wait_until_over(self, run: RunHandle) -> None:
        try:
            await asyncio.wait_for(run.finished.wait(), self._busy_seconds)
        except TimeoutError:
            raise SessionBusy("The run does not end. Try again later.") from None
