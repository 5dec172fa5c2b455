"""A run as the process holds it while it goes on, and as it is told again."""

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
    told_by: tuple[str | None, str] = (None, "")
    """The key and the hash of the message that started it."""
    id: str = field(default_factory=lambda: uuid4().hex)
    log: EventLog = field(default_factory=EventLog)
    taken: "asyncio.Future[None]" = field(default_factory=lambda: asyncio.get_running_loop().create_future())
    """Done when the message is stored, or waits for its turn; fails when it cannot be stored."""
    stop: Stop = field(default_factory=Stop)
    over: asyncio.Event = field(default_factory=asyncio.Event)

    def settle(self, error: Exception | None = None) -> None:
        if not self.taken.done():
            self.taken.set_exception(error) if error else self.taken.set_result(None)

    def fail(self, error: AgentRuntimeError) -> list[Event]:
        return self.log.numbered([wire.failure(error, request_id=self.id)])

    def end(self) -> None:
        self.settle()
        self.log.close()
        self.over.set()
