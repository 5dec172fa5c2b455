"""A run as the process holds it: carried out here, followed from elsewhere, or told again."""

import asyncio
from dataclasses import dataclass, field
from uuid import uuid4

from graph import wire
from graph.cancellation import Stop
from graph.errors import AgentRuntimeError
from graph.usage import totals
from graph.usage.totals import Bill
from sessions.event_log import Event, EventLog


@dataclass
class Run:
    session_id: str
    id: str = field(default_factory=lambda: uuid4().hex)
    log: EventLog = field(default_factory=EventLog)
    stop: Stop = field(default_factory=Stop)
    over: asyncio.Event = field(default_factory=asyncio.Event)
    costs: list[wire.Usage] = field(default_factory=list)
    """Of its model calls."""
    usage: Bill | None = None
    """What it cost before it was cut off and taken up here."""

    told_under: str = ""
    """The id in the ids of events, if it is not the run's own: of what is told of a run that goes on elsewhere."""

    def fail(self, error: AgentRuntimeError) -> list[Event]:
        return self.log.numbered([wire.failure(error, request_id=self.id)])

    def bill(self) -> Bill | None:
        """What it cost so far."""
        return totals.joined(self.usage, totals.of_run(self.costs))

    def end(self) -> None:
        self.log.close()
        self.over.set()
