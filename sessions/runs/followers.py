"""The runs that clients of this replica follow while they wait in the queue or another replica executes them."""

from uuid import uuid4

from graph import wire
from graph.errors import Interrupted
from sessions.runs import replay
from sessions.runs.lifecycle import Lifecycle
from sessions.runs.run import RunHandle
from sessions.store.database import Database

RESTART_MESSAGE = "The service restarts, the work goes on. Join the session's stream to see the rest."


class Followers:
    def __init__(self, database: Database, lifecycle: Lifecycle, active: dict[str, RunHandle]) -> None:
        """`active` has the runs that this replica executes, by session id."""
        self._database = database
        self._lifecycle = lifecycle
        self._active = active
        self._followed: dict[str, RunHandle] = {}

    def follow(self, run_id: str, session_id: str) -> RunHandle:
        """Return the handle of a run, wherever it is executed."""
        return self.track_run(RunHandle(session_id, id=run_id))

    def track_run(self, run: RunHandle) -> RunHandle:
        """Follow a run that some replica will execute; if this one does already, return the handle it executes."""
        active = self._active.get(run.session_id)
        if active and active.id == run.id:
            return active
        run = self._followed.setdefault(run.id, run)
        if self._lifecycle.is_closing:
            self.detach_for_shutdown(run)
        return run

    def is_followed(self, run: RunHandle) -> bool:
        return run.id in self._followed

    def discard(self, run: RunHandle) -> None:
        """Stop polling for the run: this replica executes it now."""
        self._followed.pop(run.id, None)

    def end_run(self, run: RunHandle) -> None:
        """End the streams of a run that is done, or that never began."""
        run.end()
        self.discard(run)

    def continue_elsewhere(self, run: RunHandle) -> None:
        """Follow a run that another replica has taken over from this one."""
        self._followed[run.id] = run
        if self._lifecycle.is_closing:
            self.detach_for_shutdown(run)

    def detach_all(self) -> None:
        """End every stream of a followed run, at the shutdown of this replica."""
        for run in [*self._followed.values()]:
            self.detach_for_shutdown(run)

    def detach_for_shutdown(self, run: RunHandle) -> None:
        """End the streams of a run that goes on elsewhere; the last event must not use an id of that run."""
        run.event_id_prefix = uuid4().hex
        self.detach_readers(run, RESTART_MESSAGE)

    def detach_readers(self, run: RunHandle, reason: str) -> None:
        """Send an `interrupted` error that says how to see the rest, and end the streams of the run."""
        run.log.add(run.log.make_detach_event(wire.error_chunk(Interrupted(reason), request_id=run.id)))
        self.end_run(run)

    async def poll_outcomes(self) -> None:
        """Send the stored events of followed runs that have finished elsewhere."""
        if not (run_ids := [*self._followed]):
            return
        finished = await self._database.transact(lambda connection: replay.read_finished_events(connection, run_ids))
        for run_id, events in finished.items():
            if run := self._followed.get(run_id):
                run.log.add_missing(events)
                self.end_run(run)
