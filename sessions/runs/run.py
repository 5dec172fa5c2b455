"""The handle of a run in this process: executed here, followed from elsewhere, or replayed."""

import asyncio
from dataclasses import dataclass, field
from uuid import uuid4

from graph import wire
from graph.cancellation import CancelToken
from graph.errors import AgentRuntimeError
from graph.usage import totals
from graph.usage.totals import UsageTotals
from sessions.event_log import EventLog, RunEvent


@dataclass
class RunHandle:
    session_id: str
    id: str = field(default_factory=lambda: uuid4().hex)
    log: EventLog = field(default_factory=EventLog)
    cancel_token: CancelToken = field(default_factory=CancelToken)
    finished: asyncio.Event = field(default_factory=asyncio.Event)
    call_usages: list[wire.Usage] = field(default_factory=list)
    """The usage of each of its model calls."""
    earlier_usage: UsageTotals | None = None
    """The usage before another replica died or handed the run over."""

    event_id_prefix: str = ""
    """Replaces the run's id in the ids of events, where an event must not use one of the run's own ids."""

    def make_error_events(self, error: AgentRuntimeError) -> list[RunEvent]:
        """Return the error as the next event, not yet added to the log."""
        return self.log.make_events([wire.error_chunk(error, request_id=self.id)])

    def total_usage(self) -> UsageTotals | None:
        """Return the usage of all attempts so far; None without a model call."""
        return totals.merge_totals(self.earlier_usage, totals.sum_run_calls(self.call_usages))

    def end(self) -> None:
        """Close the log: its readers end, and `finished` is set."""
        self.log.close()
        self.finished.set()
