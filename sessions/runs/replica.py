"""What this replica works on: the leases it holds, the runs it carries out, and those it follows elsewhere."""

import asyncio
import logging
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager
from functools import partial
from typing import Any, TypeVar
from uuid import uuid4

from sqlalchemy import Connection, RowMapping

from graph import wire
from graph.cancellation import CancelToken
from graph.db.fencing import FENCING_TOKEN, FencingToken, LeaseLost
from graph.errors import AgentRuntimeError, EditRefused, GraphUnavailable, Interrupted, SessionBusy
from graph.settings import Settings
from sessions.request import RunRequest
from sessions.runs import replay
from sessions.runs.admission import Admission, Withdrawn, record_refused_edit
from sessions.runs.executor import RunExecutor, ShuttingDown, cancellation_error
from sessions.runs.run import RunHandle
from sessions.store import leases
from sessions.store import runs as run_rows
from sessions.store.database import Database

log = logging.getLogger("agent_runtime.runs")
SHUTDOWN_GRACE_SECONDS = 5
"""For what goes on at the end of the process to reach a point where it can be taken up."""
REPLICA_POLL_SECONDS = 0.25
"""How often a replica asks what the others have done, while something depends on it."""
RESTART_MESSAGE = "The service restarts, the work goes on. Join the session's stream to see the rest."
DATABASE_FAILED_MESSAGE = (
    "The database failed. The work goes on when it is back: join the session's stream to see the rest."
)
T = TypeVar("T")


class Replica:
    def __init__(
        self, name: str, database: Database, executor: RunExecutor, admission: Admission, settings: Settings
    ) -> None:
        self._name = name
        self._database = database
        self._executor = executor
        self._admission = admission
        self._lease_seconds = settings.lease_seconds
        self._busy_seconds = settings.session_busy_seconds
        self._shutdown_seconds = settings.shutdown_seconds
        self.active: dict[str, RunHandle] = {}
        """By session: the runs that are carried out here."""
        self._followed: dict[str, RunHandle] = {}
        """By id: the runs that wait, or go on elsewhere."""
        self._leases: dict[str, FencingToken] = {}
        self._acquisitions: Counter[str] = Counter()
        """The sessions whose leases are being taken."""
        self._tasks: set[asyncio.Task[Any]] = set()
        self._shutdown_timer: asyncio.TimerHandle | None = None
        self._is_handing_over = False

    @property
    def is_closing(self) -> bool:
        return self._shutdown_timer is not None

    def spawn(self, work: Coroutine[Any, Any, T]) -> "asyncio.Task[T]":
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def start(self) -> None:
        """Take up what an earlier process left, and go on looking after what is held."""
        if not self._database.is_shared:
            await self._database.transact(leases.release_all)
        await self._take_over()
        self.spawn(run_periodically(self._lease_seconds / 3, self._heartbeat))
        self.spawn(run_periodically(REPLICA_POLL_SECONDS, self._poll))

    def begin_shutdown(self) -> None:
        """Nothing new is begun; what goes on has `shutdown_seconds` left, then it is handed over."""
        if self._shutdown_timer is None:
            self._shutdown_timer = asyncio.get_running_loop().call_later(self._shutdown_seconds, self._stop_active_runs)
            for run in [*self._followed.values()]:
                self._detach_for_shutdown(run)

    def _stop_active_runs(self) -> None:
        self._is_handing_over = True
        for run in self.active.values():
            run.cancel_token.request(ShuttingDown())

    async def close(self) -> None:
        """Runs that still go on are handed over, where their thread is."""
        self.begin_shutdown()
        assert self._shutdown_timer
        left = max(0, self._shutdown_timer.when() - asyncio.get_running_loop().time()) + SHUTDOWN_GRACE_SECONDS
        if over := [asyncio.create_task(run.finished.wait()) for run in self.active.values()]:
            await asyncio.wait(over, timeout=left)
        for task in [*self._tasks, *over]:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def follow(self, run_id: str, session_id: str) -> RunHandle:
        """What goes on here, or elsewhere, under that id."""
        return self.track_run(RunHandle(session_id, id=run_id))

    def track_run(self, run: RunHandle) -> RunHandle:
        """Somebody will carry it out; if that began here already, the run as it is carried out."""
        active = self.active.get(run.session_id)
        if active and active.id == run.id:
            return active
        run = self._followed.setdefault(run.id, run)
        if self.is_closing:
            self._detach_for_shutdown(run)
        return run

    def end_run(self, run: RunHandle) -> None:
        """It is over, or was never begun."""
        run.end()
        self._followed.pop(run.id, None)

    def is_waiting(self, run: RunHandle) -> bool:
        return run.id in self._followed

    def stop_run(self, run_id: str, session_id: str) -> None:
        """If it is carried out here; else its replica finds the wish in the database."""
        active = self.active.get(session_id)
        if active and active.id == run_id:
            active.cancel_token.request(cancellation_error())

    async def track_acquisition(self, session_id: str, work: Callable[[Connection], T]) -> T:
        """A transaction that may take the session's lease."""
        self._acquisitions[session_id] += 1
        try:
            return await self._database.transact(work)
        finally:
            self._acquisitions[session_id] -= 1
            if not self._acquisitions[session_id]:
                del self._acquisitions[session_id]

    @asynccontextmanager
    async def lease_session(self, session_id: str) -> AsyncIterator[FencingToken]:
        """The lease of a session, for what is no run. Raises SessionBusy; KeyError if there is no such session."""
        lease = await self._acquire_lease(session_id)
        token = FENCING_TOKEN.set(lease)
        try:
            yield lease
        finally:
            FENCING_TOKEN.reset(token)
            self.process_session(lease)

    async def _acquire_lease(self, session_id: str) -> FencingToken:
        try:
            async with asyncio.timeout(self._busy_seconds):
                while (
                    lease := await self.track_acquisition(session_id, lambda c: self._acquire_if_idle(c, session_id))
                ) is None:
                    active = self.active.get(session_id)
                    await (active.finished.wait() if active else asyncio.sleep(REPLICA_POLL_SECONDS / 5))
        except TimeoutError:
            raise SessionBusy("The session is at work. Try again later.") from None
        self._leases[session_id] = lease
        return lease

    def _acquire_if_idle(self, connection: Connection, session_id: str) -> FencingToken | None:
        """Raises KeyError."""
        row = leases.lock_row(connection, session_id)
        if row is None:
            raise KeyError(session_id)
        if row["held"] or run_rows.first_unfinished(connection, session_id):
            return None
        return leases.acquire_lease(connection, session_id, self._name, self._lease_seconds)

    def process_session(
        self, lease: FencingToken, run: RunHandle | None = None, work: Coroutine[Any, Any, bool] | None = None
    ) -> None:
        """The run, and all that waits behind it, one after the other; at the end the lease is given back."""
        self._leases[lease.session_id] = lease
        if run and work:
            self.active[lease.session_id] = run
            self.spawn(self._run_worker_loop(lease, self._supervise_run(run, lease, work)))
        else:
            self.spawn(self._run_worker_loop(lease, self._process_next(lease)))

    async def _run_worker_loop(self, lease: FencingToken, work: Awaitable[bool]) -> None:
        delay = REPLICA_POLL_SECONDS
        try:
            while await self._run_with_backoff(lease, work, delay):
                delay = min(delay * 2, 5)
                work = self._process_next(lease)
        finally:
            if self._leases.get(lease.session_id) == lease:
                del self._leases[lease.session_id]

    async def _run_with_backoff(self, lease: FencingToken, work: Awaitable[bool], delay: float) -> bool:
        """Whether there is more to do under the lease; what failed is tried again after a delay, in seconds."""
        try:
            return await work
        except (LeaseLost, ShuttingDown):
            return False
        except Exception as error:
            log.error("session %s stands still, %s; it goes on when it can", lease.session_id, type(error).__name__)
            await asyncio.sleep(delay)
            return True

    async def _process_next(self, lease: FencingToken) -> bool:
        """A message that waited, or a run that was left behind."""
        row = await self._database.transact(lambda connection: self._fetch_next(connection, lease))
        if row is None:
            return False
        is_new = row["status"] == "queued"
        run = self.follow(row["id"], lease.session_id)
        run.cancel_token = CancelToken()  # one that had lost its lease may come back
        run.log.begin_attempt(row["attempts"] + (not is_new), stored_attempt=row["attempts"])
        self._followed.pop(run.id, None)
        self.active[lease.session_id] = run
        if self._is_handing_over:
            run.cancel_token.request(ShuttingDown())
        work = self._admit_and_execute(run, lease, row) if is_new else self._executor.recover(run, lease, row)
        return await self._supervise_run(run, lease, work)

    def _fetch_next(self, connection: Connection, lease: FencingToken) -> RowMapping | None:
        """Without anything to do the lease is given back; at the end of the process, also with it."""
        leases.require_lease(connection, lease)
        row = run_rows.first_unfinished(connection, lease.session_id)
        if row is None or self.is_closing:
            leases.release_lease(connection, lease)
            return None
        return row

    async def _admit_and_execute(self, run: RunHandle, lease: FencingToken, row: RowMapping) -> bool:
        request = RunRequest.from_row(row)
        try:
            pause = await self._database.transact(lambda c: self._admission.admit_queued(c, lease, request, run.id))
        except Withdrawn as error:
            run.log.add(run.make_error_events(error))
            return True
        except AgentRuntimeError as error:
            if isinstance(error, EditRefused):
                await self._database.transact(lambda connection: record_refused_edit(connection, request))
            return await self._executor.refuse_run(run, lease, error)
        return await self._executor.execute(run, lease, request.message, request.options, pause)

    async def _supervise_run(self, run: RunHandle, lease: FencingToken, work: Awaitable[bool]) -> bool:
        try:
            more = await work
        except LeaseLost:
            log.warning("run %s goes on elsewhere", run.id)
            self._followed[run.id] = run
            if self.is_closing:
                self._detach_for_shutdown(run)
            raise
        except ShuttingDown:
            await self._executor.hand_over(run, lease)
            self._detach_readers(run, RESTART_MESSAGE)
            raise
        except Exception as error:
            log.exception("run %s could not be stored", run.id)
            self._detach_readers(run, str(error) if isinstance(error, GraphUnavailable) else DATABASE_FAILED_MESSAGE)
            raise
        else:
            self.end_run(run)
            return more
        finally:
            if self.active.get(run.session_id) is run:
                del self.active[run.session_id]

    def _detach_for_shutdown(self, run: RunHandle) -> None:
        """It goes on elsewhere, and this process ends: what its readers are told of that uses up none of its ids."""
        run.event_id_prefix = uuid4().hex
        self._detach_readers(run, RESTART_MESSAGE)

    def _detach_readers(self, run: RunHandle, reason: str) -> None:
        """The readers of this process are told where to go on."""
        run.log.add(run.log.make_detach_event(wire.error_chunk(Interrupted(reason), request_id=run.id)))
        self.end_run(run)

    async def _heartbeat(self) -> None:
        """Signs of life for all that is held; what is held no more is stopped, what nobody works on is taken over."""
        before = set(self._leases.values())
        renewed = await self._database.transact(lambda c: leases.renew_leases(c, self._name, self._lease_seconds))
        for lost in before - renewed:
            if self._leases.get(lost.session_id) == lost and lost.session_id in self.active:
                self.active[lost.session_id].cancel_token.request(LeaseLost(lost.session_id))
        for lease in renewed - before:
            if lease.session_id not in self._leases and not self._acquisitions[lease.session_id]:
                self.process_session(lease)  # taken by a transaction whose end was not seen
        if not self.is_closing:
            await self._take_over()

    async def _take_over(self) -> None:
        for session_id in await self._database.transact(run_rows.list_orphaned_sessions):
            if lease := await self.track_acquisition(session_id, partial(self._acquire_orphaned, session_id)):
                self.process_session(lease)

    def _acquire_orphaned(self, session_id: str, connection: Connection) -> FencingToken | None:
        row = leases.try_lock_row(connection, session_id)
        if row is None or row["held"] or not run_rows.first_unfinished(connection, session_id):
            return None
        return leases.acquire_lease(connection, session_id, self._name, self._lease_seconds)

    async def _poll(self) -> None:
        """At what other replicas did that concerns this one."""
        if self.active and self._database.is_shared:
            for run_id, session_id in await self._database.transact(lambda c: run_rows.stop_requests(c, self._name)):
                self.stop_run(run_id, session_id)
        if ids := [*self._followed]:
            for run_id, outcome in (
                await self._database.transact(lambda c: replay.read_finished_events(c, ids))
            ).items():
                if run := self._followed.get(run_id):
                    run.log.add_missing(outcome)
                    self.end_run(run)


async def run_periodically(seconds: float, work: Callable[[], Awaitable[None]]) -> None:
    """For ever; what fails is tried again in the next round."""
    while True:
        await asyncio.sleep(seconds)
        try:
            await work()
        except Exception as error:
            log.error("%s failed, %s; it is tried again", work.__name__, type(error).__name__)
