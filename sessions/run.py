"""A run as the process holds it: carried out here, followed from elsewhere, or told again."""

import asyncio
from dataclasses import dataclass, field
from uuid import uuid4

from graph import wire
from graph.errors import AgentRuntimeError
from graph.stop import Stop
from sessions.events import Event, EventLog


@dataclass
class Run:
    session_id: str
    id: str = field(default_factory=lambda: uuid4().hex)
    log: EventLog = field(default_factory=EventLog)
    stop: Stop = field(default_factory=Stop)
    over: asyncio.Event = field(default_factory=asyncio.Event)

    told_under: str = ""
    """The id in the ids of events, if it is not the run's own: of what is told of a run that goes on elsewhere."""

    def fail(self, error: AgentRuntimeError) -> list[Event]:
        return self.log.numbered([wire.failure(error, request_id=self.id)])

    def end(self) -> None:
        self.log.close()
        self.over.set()
