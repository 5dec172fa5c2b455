"""A run as the process holds it: carried out here, followed from elsewhere, or told again."""

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
    """Of its model calls."""
    earlier_usage: UsageTotals | None = None
    """What it cost before it was cut off and taken up here."""

    event_id_prefix: str = ""
    """The id in the ids of events, if it is not the run's own: of what is told of a run that goes on elsewhere."""

    def make_error_events(self, error: AgentRuntimeError) -> list[RunEvent]:
        return self.log.make_events([wire.error_chunk(error, request_id=self.id)])

    def total_usage(self) -> UsageTotals | None:
        """What it cost so far."""
        return totals.merge_totals(self.earlier_usage, totals.sum_run_calls(self.call_usages))

    def end(self) -> None:
        self.log.close()
        self.finished.set()
