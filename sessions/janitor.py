"""What has to be done to sessions that nobody touches."""

from graph import wire
from graph.settings import Settings
from sessions.request import RunRequest
from sessions.runs.lifecycle import run_periodically
from sessions.runs.service import Runs
from sessions.service import Sessions
from sessions.store import calls
from sessions.store.database import Database

ROUND_SECONDS = 30
SWEEP_SECONDS = 600
"""Between two looks at all sessions."""


class Janitor:
    """Any number of replicas may have one: each looks again, under the session's lease, before it changes anything."""

    def __init__(self, database: Database, runs: Runs, sessions: Sessions, settings: Settings) -> None:
        self._database = database
        self._runs = runs
        self._sessions = sessions
        self._settings = settings

    def start(self) -> None:
        spawn, settings = self._runs.replica.lifecycle.spawn, self._settings
        if seconds := settings.approval_timeout_seconds:
            spawn(run_periodically(min(seconds / 4, ROUND_SECONDS), self._runs.approval_timeouts.expire_all))
        if seconds := settings.tool_timeout_seconds:
            spawn(run_periodically(min(seconds / 4, ROUND_SECONDS), self._time_out_tool_calls))
        spawn(run_periodically(SWEEP_SECONDS, self.expire_sessions))
        spawn(run_periodically(SWEEP_SECONDS, self.prune_sessions))

    async def expire_sessions(self) -> None:
        if hours := self._settings.session_ttl_hours:
            await self._sessions.deletion.expire(hours)

    async def prune_sessions(self) -> None:
        if runs := self._settings.prune_after_runs:
            await self._sessions.pruning.prune_idle_sessions(runs)

    async def _time_out_tool_calls(self) -> None:
        """The IDE does not answer: the model is told, and the run goes on without a client."""
        seconds = self._settings.tool_timeout_seconds
        told = f"timed out: no result came within {seconds:g} seconds; whether the call ran is not known"
        for session_id, call_id in await self._database.transact(lambda c: calls.find_overdue_calls(c, seconds)):
            silence = wire.ToolResult(call_id=call_id, error=told)
            await self._runs.submit(RunRequest(session_id, silence, wire.StreamOptions(), busy="reject"))
