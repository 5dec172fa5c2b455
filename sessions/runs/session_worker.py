"""Work on one session at a time under its lease: its current run, then the messages that wait behind it."""

import asyncio
import logging
from collections.abc import Awaitable, Coroutine
from typing import Any

from sqlalchemy import Connection, RowMapping

from graph.cancellation import CancelToken
from graph.db.fencing import FencingToken, LeaseLost
from graph.errors import AgentRuntimeError, EditRefused, GraphUnavailable
from sessions.request import RunRequest
from sessions.runs.admission import Admission, Withdrawn, record_refused_edit
from sessions.runs.errors import ShuttingDown
from sessions.runs.executor import RunExecutor
from sessions.runs.followers import RESTART_MESSAGE, Followers
from sessions.runs.lease_keeper import LeaseKeeper
from sessions.runs.lifecycle import Lifecycle
from sessions.runs.recovery import RunRecovery
from sessions.runs.run import RunHandle
from sessions.runs.status import RunStatus
from sessions.store import leases
from sessions.store import runs as run_rows
from sessions.store.database import Database

log = logging.getLogger("agent_runtime.runs")
FIRST_RETRY_SECONDS, MAX_RETRY_SECONDS = 0.25, 5
"""The delay after a failure doubles: short for a lost connection, bounded so that work resumes soon after an outage."""
DATABASE_FAILED_MESSAGE = (
    "The database failed. The work goes on when it is back: join the session's stream to see the rest."
)


class SessionWorker:
    def __init__(
        self,
        database: Database,
        lifecycle: Lifecycle,
        leases_of_replica: LeaseKeeper,
        followers: Followers,
        admission: Admission,
        executor: RunExecutor,
        recovery: RunRecovery,
        active: dict[str, RunHandle],
    ) -> None:
        """`active` has the runs that this replica executes, by session id; the worker maintains it."""
        self._database = database
        self._lifecycle = lifecycle
        self._leases = leases_of_replica
        self._followers = followers
        self._admission = admission
        self._executor = executor
        self._recovery = recovery
        self._active = active
        self._is_handing_over = False

    def stop_active_runs(self) -> None:
        """Interrupt every run at its next model call, so that it is handed over."""
        self._is_handing_over = True
        for run in self._active.values():
            run.cancel_token.request(ShuttingDown())

    def process_session(
        self, lease: FencingToken, run: RunHandle | None = None, work: Coroutine[Any, Any, bool] | None = None
    ) -> None:
        """Start a task that finishes `run` by `work`, then all that waits behind it, and releases the lease."""
        self._leases.add(lease)
        if run and work:
            self._active[lease.session_id] = run
            self._lifecycle.spawn(self._run_loop(lease, self._supervise_run(run, lease, work)))
        else:
            self._lifecycle.spawn(self._run_loop(lease, self._process_next(lease)))

    async def _run_loop(self, lease: FencingToken, work: Awaitable[bool]) -> None:
        delay: float = FIRST_RETRY_SECONDS
        try:
            while await self._run_with_backoff(lease, work, delay):
                delay = min(delay * 2, MAX_RETRY_SECONDS)
                work = self._process_next(lease)
        finally:
            self._leases.discard(lease)

    async def _run_with_backoff(self, lease: FencingToken, work: Awaitable[bool], delay: float) -> bool:
        """Return whether there is more to do under the lease. After a failure, wait `delay` seconds first."""
        try:
            return await work
        except (LeaseLost, ShuttingDown):
            return False
        except Exception as error:
            log.error("session %s is stalled, %s; retrying in %g s", lease.session_id, type(error).__name__, delay)
            await asyncio.sleep(delay)
            return True

    async def _process_next(self, lease: FencingToken) -> bool:
        """Execute the next queued message, or recover an interrupted run; return whether there is more to do."""
        row = await self._database.transact(lambda connection: self._fetch_next(connection, lease))
        if row is None:
            return False
        is_new = row["status"] == RunStatus.QUEUED
        run = self._followers.follow(row["id"], lease.session_id)
        run.cancel_token = CancelToken()  # the handle of a run that lost its lease still has the old one
        run.log.begin_attempt(row["attempts"] + (not is_new), stored_attempt=row["attempts"])
        self._followers.discard(run)
        self._active[lease.session_id] = run
        if self._is_handing_over:
            run.cancel_token.request(ShuttingDown())
        work = self._admit_and_execute(run, lease, row) if is_new else self._recovery.recover(run, lease, row)
        return await self._supervise_run(run, lease, work)

    def _fetch_next(self, connection: Connection, lease: FencingToken) -> RowMapping | None:
        """Return the row of the next run. With nothing to do, or at shutdown, release the lease and return None."""
        leases.require_lease(connection, lease)
        row = run_rows.first_unfinished(connection, lease.session_id)
        if row is None or self._lifecycle.is_closing:
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
        """Await the run's end, and end or detach the streams of its readers."""
        try:
            has_more = await work
        except LeaseLost:
            log.warning("run %s continues on another replica", run.id)
            self._followers.continue_elsewhere(run)
            raise
        except ShuttingDown:
            await self._executor.hand_over(run, lease)
            self._followers.detach_readers(run, RESTART_MESSAGE)
            raise
        except Exception as error:
            log.exception("run %s could not be stored", run.id)
            reason = str(error) if isinstance(error, GraphUnavailable) else DATABASE_FAILED_MESSAGE
            self._followers.detach_readers(run, reason)
            raise
        else:
            self._followers.end_run(run)
            return has_more
        finally:
            if self._active.get(run.session_id) is run:
                del self._active[run.session_id]
