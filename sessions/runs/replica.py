"""This process as one of the replicas that share a database: its leases, its workers and its followers."""

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from graph.db.fencing import FencingToken, LeaseLost
from graph.errors import SessionBusy
from graph.execution.outcome import Graph
from graph.run_scope import enter_lease
from graph.settings import Settings
from sessions.runs.admission import Admission
from sessions.runs.errors import cancellation_error
from sessions.runs.executor import RunExecutor
from sessions.runs.followers import Followers
from sessions.runs.lease_keeper import LeaseKeeper
from sessions.runs.lifecycle import Lifecycle, run_periodically
from sessions.runs.recovery import RunRecovery
from sessions.runs.run import RunHandle
from sessions.runs.session_worker import SessionWorker
from sessions.store import leases
from sessions.store import runs as run_rows
from sessions.store.database import Database

log = logging.getLogger("agent_runtime.runs")
POLL_SECONDS = 0.25
"""Between two looks at other replicas' work: a stop request or an outcome is seen this much later at most."""
BUSY_POLL_SECONDS = POLL_SECONDS / 5
"""Between two attempts to lease a session that another replica works on."""
HEARTBEATS_PER_LEASE = 3
"""A lease survives one heartbeat that fails."""


class Replica:
    def __init__(
        self,
        name: str,
        database: Database,
        graph: Graph,
        executor: RunExecutor,
        admission: Admission,
        settings: Settings,
    ) -> None:
        self._database = database
        self._heartbeat_seconds = settings.lease_seconds / HEARTBEATS_PER_LEASE
        self._busy_seconds = settings.queue_timeout_seconds
        self.active: dict[str, RunHandle] = {}
        """The runs that this replica executes, by session id."""
        self.lifecycle = Lifecycle(settings.shutdown_seconds)
        self.leases = LeaseKeeper(name, database, settings.lease_seconds)
        self.followers = Followers(database, self.lifecycle, self.active)
        recovery = RunRecovery(graph, executor)
        self.worker = SessionWorker(
            database, self.lifecycle, self.leases, self.followers, admission, executor, recovery, self.active
        )

    async def start(self) -> None:
        """Recover what an earlier process left behind, and start the heartbeat and the poll."""
        if not self._database.is_shared:
            await self._database.transact(leases.release_all)
        await self._take_over()
        self.lifecycle.spawn(run_periodically(self._heartbeat_seconds, self._heartbeat))
        self.lifecycle.spawn(run_periodically(POLL_SECONDS, self._poll))

    def begin_shutdown(self) -> None:
        """Begin nothing new; runs have `shutdown_seconds` left before they are handed over."""
        if self.lifecycle.begin_shutdown(self.worker.stop_active_runs):
            self.followers.detach_all()

    async def close(self) -> None:
        """Wait until the runs are done or handed over, then end all tasks."""
        self.begin_shutdown()
        await self.lifecycle.close([run.finished for run in self.active.values()])

    def stop_run(self, run_id: str, session_id: str) -> None:
        """Cancel the run if this replica executes it; another replica reads the stop request from the database."""
        active = self.active.get(session_id)
        if active and active.id == run_id:
            active.cancel_token.request(cancellation_error())

    @asynccontextmanager
    async def lease_session(self, session_id: str) -> AsyncIterator[FencingToken]:
        """Have the lease of an idle session while the block runs; then process what has been queued meanwhile.

        Raises SessionBusy, and KeyError if there is no such session.
        """
        lease = await self._acquire_lease(session_id)
        try:
            with enter_lease(lease):
                yield lease
        finally:
            self.worker.process_session(lease)

    async def _acquire_lease(self, session_id: str) -> FencingToken:
        try:
            async with asyncio.timeout(self._busy_seconds):
                while (lease := await self.leases.acquire_if_idle(session_id)) is None:
                    active = self.active.get(session_id)
                    await (active.finished.wait() if active else asyncio.sleep(BUSY_POLL_SECONDS))
        except TimeoutError:
            raise SessionBusy("The session is busy. Try again later.") from None
        return lease

    async def _heartbeat(self) -> None:
        """Renew the leases; stop runs whose lease was lost, and take over sessions that no replica works on."""
        renewal = await self.leases.renew()
        for lost in renewal.lost:
            if run := self.active.get(lost.session_id):
                run.cancel_token.request(LeaseLost(lost.session_id))
        for lease in renewal.found:
            self.worker.process_session(lease)
        if not self.lifecycle.is_closing:
            await self._take_over()

    async def _take_over(self) -> None:
        async for lease in self.leases.take_over_orphaned():
            self.worker.process_session(lease)

    async def _poll(self) -> None:
        """Read stop requests for runs of this replica, and outcomes of runs that it follows."""
        if self.active and self._database.is_shared:
            name = self.leases.name
            for run_id, session_id in await self._database.transact(lambda c: run_rows.stop_requests(c, name)):
                self.stop_run(run_id, session_id)
        await self.followers.poll_outcomes()
