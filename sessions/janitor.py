"""Maintain sessions in the background: time-outs, expiry and pruning."""

from graph import wire
from sessions.deletion import erase_expired_sessions
from sessions.deps import Deps
from sessions.pruning import prune_idle_sessions
from sessions.request import RunRequest
from sessions.runs.lifecycle import run_periodically
from sessions.store import calls

MAX_ROUND_SECONDS = 30
"""The longest pause between two looks for overdue calls: their time-outs are that exact at worst."""
ROUNDS_PER_TIMEOUT = 4
"""A short time-out is noticed within a quarter of it."""
SWEEP_SECONDS = 600
"""Between two sweeps over all sessions: expiry and pruning are not urgent, and a sweep reads the whole table."""


class Janitor:
    """Every replica has one: each looks again, under the session's lease, before it changes anything."""

    def __init__(self, deps: Deps) -> None:
        self._deps = deps

    def start(self) -> None:
        """Start the periodic tasks that the settings ask for."""
        spawn, settings = self._deps.runs.replica.lifecycle.spawn, self._deps.settings
        if seconds := settings.approval_timeout_seconds:
            spawn(run_periodically(_round_seconds(seconds), self._deps.runs.approval_timeouts.expire_all))
        if seconds := settings.tool_timeout_seconds:
            spawn(run_periodically(_round_seconds(seconds), self._time_out_tool_calls))
        spawn(run_periodically(SWEEP_SECONDS, self.expire_sessions))
        spawn(run_periodically(SWEEP_SECONDS, self.prune_sessions))

    async def expire_sessions(self) -> None:
        """Erase the sessions whose `SESSION_TTL_HOURS` are over; without that setting, none."""
        if hours := self._deps.settings.session_ttl_hours:
            await erase_expired_sessions(self._deps, hours)

    async def prune_sessions(self) -> None:
        """Prune the idle sessions with more than `PRUNE_AFTER_RUNS` runs; without that setting, none."""
        if min_runs := self._deps.settings.prune_after_runs:
            await prune_idle_sessions(self._deps, min_runs)

    async def _time_out_tool_calls(self) -> None:
        """Answer calls that the IDE did not answer in time; the run continues without a client."""
        deps, seconds = self._deps, self._deps.settings.tool_timeout_seconds
        error = f"timed out: no result came within {seconds:g} seconds; whether the call ran is not known"
        for session_id, call_id in await deps.database.transact(lambda c: calls.find_overdue_calls(c, seconds)):
            result = wire.ToolResult(call_id=call_id, error=error)
            await deps.runs.submit(RunRequest(session_id, result, wire.StreamOptions(), busy="reject"))


def _round_seconds(timeout: float) -> float:
    return min(timeout / ROUNDS_PER_TIMEOUT, MAX_ROUND_SECONDS)
