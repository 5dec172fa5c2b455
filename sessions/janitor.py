"""What has to be done to sessions that nobody touches."""

from graph import wire
from graph.settings import Settings
from sessions.request import Request
from sessions.runs.replica import every
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
        spawn, settings = self._runs.replica.spawn, self._settings
        if seconds := settings.approval_timeout_seconds:
            spawn(every(min(seconds / 4, ROUND_SECONDS), self._runs.approvals.look_through))
        if seconds := settings.tool_timeout_seconds:
            spawn(every(min(seconds / 4, ROUND_SECONDS), self._tell_of_silence))
        spawn(every(SWEEP_SECONDS, self.expire))
        spawn(every(SWEEP_SECONDS, self.prune))

    async def expire(self) -> None:
        if hours := self._settings.session_ttl_hours:
            await self._sessions.removal.expire(hours)

    async def prune(self) -> None:
        if runs := self._settings.prune_after_runs:
            await self._sessions.pruning.look_through(runs)

    async def _tell_of_silence(self) -> None:
        """The IDE does not answer: the model is told, and the run goes on without a client."""
        seconds = self._settings.tool_timeout_seconds
        told = f"timed out: no result came within {seconds:g} seconds; whether the call ran is not known"
        for session_id, call_id in await self._database.transact(lambda c: calls.unanswered(c, seconds)):
            silence = wire.ToolResult(call_id=call_id, error=told)
            await self._runs.submit(Request(session_id, silence, wire.StreamOptions(), busy="reject"))
