"""The specialist's call that begins before the classification has said whose turn it is.

Nothing of it is told, stored or counted as an answer until its specialist takes it over.
"""

import asyncio
from collections.abc import Callable, Coroutine, Iterator, Sequence
from contextlib import contextmanager
from contextvars import Context, copy_context
from typing import Any

from langchain_core.messages import AnyMessage

from graph import wire
from graph.asking import sent_tokens
from graph.classifications import Choice
from graph.reply import Reply
from graph.spending import cost_of, estimate, spent
from graph.tokens import tokens
from prompts import Agent

Tell = Callable[[str], None]
Call = Callable[[Tell], Coroutine[Any, Any, Reply]]
"""A specialist's model call, which tells its words as they come."""


class Begun:
    """In a context of its own: no tracer and no stream of the graph hears of it."""

    def __init__(self, agent: str, call: Call) -> None:
        self.agent = agent
        self.words: list[str] = []
        self._tell: Tell = self.words.append
        self.task = asyncio.create_task(call(lambda text: self._tell(text)), context=Context())
        self.task.add_done_callback(_retrieved)

    async def followed(self, tell: Tell) -> Reply:
        """Tells what it has said, and goes on telling, in the caller's context. Raises what the call raises."""
        for text in self.words:
            tell(text)
        context = copy_context()
        self._tell = lambda text: context.run(tell, text)
        return await self.task

    @property
    def reply(self) -> Reply | None:
        """None if it is not complete."""
        over = self.task.done() and not self.task.cancelled() and not self.task.exception()
        return self.task.result() if over else None


def wasted(begun: Begun, agent: Agent, conversation: Sequence[AnyMessage]) -> wire.Usage | None:
    """What a call cost that was dropped: estimated, unless it had come to its end. None if it failed."""
    if begun.reply:
        return cost_of(
            begun.reply.message, lambda: sent_tokens(agent, conversation), agent=agent.name, purpose="speculation"
        )
    if begun.task.done() and not begun.task.cancelled():
        return None
    usage = estimate(sent_tokens(agent, conversation), tokens("".join(begun.words)))
    return spent(usage, agent=agent.name, purpose="speculation", estimated=True)


def _retrieved(task: "asyncio.Task[Reply]") -> None:
    """An error of a call that nobody takes over is no matter to anybody."""
    if not task.cancelled():
        task.exception()


class Ahead:
    """The calls that wait to be taken over, by thread."""

    def __init__(self) -> None:
        self._begun: dict[str, Begun] = {}

    async def choose(
        self, thread: str, choosing: Coroutine[Any, Any, Choice], begin: Callable[[], Begun]
    ) -> tuple[Choice, Begun | None]:
        """The choice, and the call that was begun for nothing. A choice that takes no time begins none."""
        chosen = asyncio.ensure_future(choosing)
        begun = None
        try:
            await asyncio.sleep(0)
            begun = None if chosen.done() else begin()
            choice = await chosen
            if begun is None or begun.agent != choice.agent:
                return choice, begun
            self._begun[thread], begun = begun, None
            return choice, None
        finally:
            chosen.cancel()
            if begun:
                begun.task.cancel()

    def drop(self, thread: str) -> None:
        """What a run left behind that stopped before anybody could take it over."""
        if begun := self._begun.pop(thread, None):
            begun.task.cancel()

    @contextmanager
    def taken_over(self, thread: str, agent: str) -> Iterator[Begun | None]:
        """The call that waits for this agent, if there is one; it ends with the block at the latest."""
        begun = self._begun.pop(thread, None)
        try:
            yield begun if begun and begun.agent == agent else None
        finally:
            if begun:
                begun.task.cancel()
