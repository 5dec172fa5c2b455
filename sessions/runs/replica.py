"""What this replica works on: the leases it holds, the runs it carries out, and those it follows elsewhere."""

import asyncio
import logging
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any, TypeVar
from uuid import uuid4

from sqlalchemy import Connection, RowMapping

from graph import wire
from graph.cancellation import Stop
from graph.db.fencing import FENCE, Fence, LeaseLost
from graph.errors import AgentRuntimeError, EditRefused, GraphUnavailable, Interrupted, SessionBusy
from graph.settings import Settings
from sessions.request import Request
from sessions.runs import replay
from sessions.runs.admission import Door, Withdrawn, refused_edit
from sessions.runs.executor import ShuttingDown, Work, cancelled
from sessions.runs.run import Run
from sessions.store import leases
from sessions.store import runs as run_rows
from sessions.store.database import Database

log = logging.getLogger("agent_runtime.runs")
CLOSING_SECONDS = 5
"""For what goes on at the end of the process to reach a point where it can be taken up."""
GLANCE_SECONDS = 0.25
"""How often a replica asks what the others have done, while something depends on it."""
RESTARTS = "The service restarts, the work goes on. Join the session's stream to see the rest."
FAILED = "The database failed. The work goes on when it is back: join the session's stream to see the rest."
T = TypeVar("T")


class Replica:
    def __init__(self, name: str, database: Database, work: Work, door: Door, settings: Settings) -> None:
        self._name = name
        self._database = database
        self._work = work
        self._door = door
        self._lease_seconds = settings.lease_seconds
        self._patience = settings.session_busy_seconds
        self._shutdown_seconds = settings.shutdown_seconds
        self.active: dict[str, Run] = {}
        """By session: the runs that are carried out here."""
        self._followed: dict[str, Run] = {}
        """By id: the runs that wait, or go on elsewhere."""
        self._held: dict[str, Fence] = {}
        self._taking: Counter[str] = Counter()
        """The sessions whose leases are being taken."""
        self._tasks: set[asyncio.Task[Any]] = set()
        self._end: asyncio.TimerHandle | None = None
        self._is_over = False

    @property
    def is_closing(self) -> bool:
        return self._end is not None

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
        self.spawn(every(self._lease_seconds / 3, self._pulse))
        self.spawn(every(GLANCE_SECONDS, self._glance))

    def begin_closing(self) -> None:
        """Nothing new is begun; what goes on has `shutdown_seconds` left, then it is handed over."""
        if self._end is None:
            self._end = asyncio.get_running_loop().call_later(self._shutdown_seconds, self._hand_over)
            for run in [*self._followed.values()]:
                self._leave(run)

    def _hand_over(self) -> None:
        self._is_over = True
        for run in self.active.values():
            run.stop.want(ShuttingDown())

    async def close(self) -> None:
        """Runs that still go on are handed over, where their thread is."""
        self.begin_closing()
        assert self._end
        left = max(0, self._end.when() - asyncio.get_running_loop().time()) + CLOSING_SECONDS
        if over := [asyncio.create_task(run.over.wait()) for run in self.active.values()]:
            await asyncio.wait(over, timeout=left)
        for task in [*self._tasks, *over]:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def follow(self, run_id: str, session_id: str) -> Run:
        """What goes on here, or elsewhere, under that id."""
        return self.expect(Run(session_id, id=run_id))

    def expect(self, run: Run) -> Run:
        """Somebody will carry it out; if that began here already, the run as it is carried out."""
        active = self.active.get(run.session_id)
        if active and active.id == run.id:
            return active
        run = self._followed.setdefault(run.id, run)
        if self.is_closing:
            self._leave(run)
        return run

    def forget(self, run: Run) -> None:
        """It is over, or was never begun."""
        run.end()
        self._followed.pop(run.id, None)

    def is_waiting(self, run: Run) -> bool:
        return run.id in self._followed

    def stop(self, run_id: str, session_id: str) -> None:
        """If it is carried out here; else its replica finds the wish in the database."""
        active = self.active.get(session_id)
        if active and active.id == run_id:
            active.stop.want(cancelled())

    async def taking(self, session_id: str, work: Callable[[Connection], T]) -> T:
        """A transaction that may take the session's lease."""
        self._taking[session_id] += 1
        try:
            return await self._database.transact(work)
        finally:
            self._taking[session_id] -= 1
            if not self._taking[session_id]:
                del self._taking[session_id]

    @asynccontextmanager
    async def hold(self, session_id: str) -> AsyncIterator[Fence]:
        """The lease of a session, for what is no run. Raises SessionBusy; KeyError if there is no such session."""
        lease = await self._acquired(session_id)
        token = FENCE.set(lease)
        try:
            yield lease
        finally:
            FENCE.reset(token)
            self.tend(lease)

    async def _acquired(self, session_id: str) -> Fence:
        try:
            async with asyncio.timeout(self._patience):
                while (lease := await self.taking(session_id, lambda c: self._free(c, session_id))) is None:
                    active = self.active.get(session_id)
                    await (active.over.wait() if active else asyncio.sleep(GLANCE_SECONDS / 5))
        except TimeoutError:
            raise SessionBusy("The session is at work. Try again later.") from None
        self._held[session_id] = lease
        return lease

    def _free(self, connection: Connection, session_id: str) -> Fence | None:
        """Raises KeyError."""
        row = leases.locked(connection, session_id)
        if row is None:
            raise KeyError(session_id)
        if row["held"] or run_rows.first_unfinished(connection, session_id):
            return None
        return leases.take(connection, session_id, self._name, self._lease_seconds)

    def tend(self, lease: Fence, run: Run | None = None, work: Coroutine[Any, Any, bool] | None = None) -> None:
        """The run, and all that waits behind it, one after the other; at the end the lease is given back."""
        self._held[lease.session_id] = lease
        if run and work:
            self.active[lease.session_id] = run
            self.spawn(self._tended(lease, self._working(run, lease, work)))
        else:
            self.spawn(self._tended(lease, self._next(lease)))

    async def _tended(self, lease: Fence, work: Awaitable[bool]) -> None:
        delay = GLANCE_SECONDS
        try:
            while await self._goes_on(lease, work, delay):
                delay = min(delay * 2, 5)
                work = self._next(lease)
        finally:
            if self._held.get(lease.session_id) == lease:
                del self._held[lease.session_id]

    async def _goes_on(self, lease: Fence, work: Awaitable[bool], delay: float) -> bool:
        """Whether there is more to do under the lease; what failed is tried again after a delay, in seconds."""
        try:
            return await work
        except (LeaseLost, ShuttingDown):
            return False
        except Exception as error:
            log.error("session %s stands still, %s; it goes on when it can", lease.session_id, type(error).__name__)
            await asyncio.sleep(delay)
            return True

    async def _next(self, lease: Fence) -> bool:
        """A message that waited, or a run that was left behind."""
        row = await self._database.transact(lambda connection: self._picked(connection, lease))
        if row is None:
            return False
        is_new = row["status"] == "queued"
        run = self.follow(row["id"], lease.session_id)
        run.stop = Stop()  # one that had lost its lease may come back
        run.log.begin(row["attempts"] + (not is_new), stored=row["attempts"])
        self._followed.pop(run.id, None)
        self.active[lease.session_id] = run
        if self._is_over:
            run.stop.want(ShuttingDown())
        work = self._admitted(run, lease, row) if is_new else self._work.take_up(run, lease, row)
        return await self._working(run, lease, work)

    def _picked(self, connection: Connection, lease: Fence) -> RowMapping | None:
        """Without anything to do the lease is given back; at the end of the process, also with it."""
        leases.checked(connection, lease)
        row = run_rows.first_unfinished(connection, lease.session_id)
        if row is None or self.is_closing:
            leases.release(connection, lease)
            return None
        return row

    async def _admitted(self, run: Run, lease: Fence, row: RowMapping) -> bool:
        request = Request.stored(row)
        try:
            pause = await self._database.transact(lambda c: self._door.admit(c, lease, request, run.id))
        except Withdrawn as error:
            run.log.add(run.fail(error))
            return True
        except AgentRuntimeError as error:
            if isinstance(error, EditRefused):
                await self._database.transact(lambda connection: refused_edit(connection, request))
            return await self._work.refuse(run, lease, error)
        return await self._work.carry_out(run, lease, request.message, request.options, pause)

    async def _working(self, run: Run, lease: Fence, work: Awaitable[bool]) -> bool:
        try:
            more = await work
        except LeaseLost:
            log.warning("run %s goes on elsewhere", run.id)
            self._followed[run.id] = run
            if self.is_closing:
                self._leave(run)
            raise
        except ShuttingDown:
            await self._work.hand_over(run, lease)
            self._part(run, RESTARTS)
            raise
        except Exception as error:
            log.exception("run %s could not be stored", run.id)
            self._part(run, str(error) if isinstance(error, GraphUnavailable) else FAILED)
            raise
        else:
            self.forget(run)
            return more
        finally:
            if self.active.get(run.session_id) is run:
                del self.active[run.session_id]

    def _leave(self, run: Run) -> None:
        """It goes on elsewhere, and this process ends: what its readers are told of that uses up none of its ids."""
        run.told_under = uuid4().hex
        self._part(run, RESTARTS)

    def _part(self, run: Run, sentence: str) -> None:
        """The readers of this process are told where to go on."""
        run.log.add(run.log.aside(wire.failure(Interrupted(sentence), request_id=run.id)))
        self.forget(run)

    async def _pulse(self) -> None:
        """Signs of life for all that is held; what is held no more is stopped, what nobody works on is taken over."""
        before = set(self._held.values())
        renewed = await self._database.transact(lambda c: leases.renew(c, self._name, self._lease_seconds))
        for lost in before - renewed:
            if self._held.get(lost.session_id) == lost and lost.session_id in self.active:
                self.active[lost.session_id].stop.want(LeaseLost(lost.session_id))
        for lease in renewed - before:
            if lease.session_id not in self._held and not self._taking[lease.session_id]:
                self.tend(lease)  # taken by a transaction whose end was not seen
        if not self.is_closing:
            await self._take_over()

    async def _take_over(self) -> None:
        for session_id in await self._database.transact(run_rows.left_behind):
            if lease := await self.taking(session_id, lambda c, left=session_id: self._abandoned(c, left)):  # type: ignore[misc]
                self.tend(lease)

    def _abandoned(self, connection: Connection, session_id: str) -> Fence | None:
        row = leases.unlocked(connection, session_id)
        if row is None or row["held"] or not run_rows.first_unfinished(connection, session_id):
            return None
        return leases.take(connection, session_id, self._name, self._lease_seconds)

    async def _glance(self) -> None:
        """At what other replicas did that concerns this one."""
        if self.active and self._database.is_shared:
            for run_id, session_id in await self._database.transact(lambda c: run_rows.wanted(c, self._name)):
                self.stop(run_id, session_id)
        if ids := [*self._followed]:
            for run_id, outcome in (await self._database.transact(lambda c: replay.outcomes(c, ids))).items():
                if run := self._followed.get(run_id):
                    run.log.add_later(outcome)
                    self.forget(run)


async def every(seconds: float, work: Callable[[], Awaitable[None]]) -> None:
    """For ever; what fails is tried again in the next round."""
    while True:
        await asyncio.sleep(seconds)
        try:
            await work()
        except Exception as error:
            log.error("%s failed, %s; it is tried again", work.__name__, type(error).__name__)
