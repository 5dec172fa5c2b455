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

    def fail(self, error: AgentRuntimeError) -> list[Event]:
        return self.log.numbered([wire.failure(error, request_id=self.id)])

    def part(self, error: AgentRuntimeError) -> None:
        """Its readers have to join it again: what they are told hides nothing that the run has still to tell.

        Of a run that they know nothing of yet it is told under an id of its own.
        """
        last = wire.failure(error, request_id=self.id)
        if self.log.events:
            self.log.begin(0)
        else:
            self.id = uuid4().hex
        self.log.add(self.log.numbered([last]))

    def end(self) -> None:
        self.log.close()
        self.over.set()
