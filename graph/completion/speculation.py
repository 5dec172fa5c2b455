"""The specialist's call that begins before the classification has said whose turn it is.

Nothing of it is told, stored or counted as an answer until its specialist takes it over.
"""

import asyncio
from collections.abc import Callable, Coroutine, Iterator, Sequence
from contextlib import contextmanager
from contextvars import Context, copy_context
from functools import partial
from typing import Any

from langchain_core.messages import AnyMessage

from graph import wire
from graph.completion.reply import Reply
from graph.completion.request import cut_off, sent_tokens
from graph.routing.cache import Choice
from graph.usage.call import cost_of
from prompts import Agent

Tell = Callable[[str], None]
Call = Callable[[Tell], Coroutine[Any, Any, Reply]]
"""A specialist's model call, which tells its words as they come."""


class Begun:
    """In a context of its own: no tracer and no stream of the graph hears of it."""

    def __init__(self, agent: Agent, sent: Sequence[AnyMessage], call: Call) -> None:
        self.agent = agent
        self._sent = sent
        self._words: list[str] = []
        self._tell: Tell = self._words.append
        self._is_followed = False
        self._task = asyncio.create_task(call(lambda text: self._tell(text)), context=Context())
        self._task.add_done_callback(_retrieved)

    async def followed(self, tell: Tell) -> Reply:
        """Tells what it has said, and goes on telling, in the caller's context. Raises what the call raises."""
        self._is_followed = True
        for text in self._words:
            tell(text)
        context = copy_context()
        self._tell = lambda text: context.run(tell, text)
        return await self._task

    def drop(self, told: Callable[[wire.Usage], None]) -> None:
        """Ends it; tells what it cost if that was for nothing."""
        self._task.cancel()
        if not self._is_followed and (cost := self._cost()):
            told(cost)

    def _cost(self) -> wire.Usage | None:
        """Estimated, unless it has come to its end; None if it failed before its first word."""
        is_over = self._task.done() and not self._task.cancelled()
        if is_over and not self._task.exception():
            size = partial(sent_tokens, self.agent, self._sent)
            return cost_of(self._task.result().message, size, agent=self.agent.name, purpose="speculation")
        return None if is_over and not self._words else cut_off(self.agent, self._sent, self._words, "speculation")


def _retrieved(task: "asyncio.Task[Reply]") -> None:
    """An error of a call that nobody takes over is no matter to anybody."""
    if not task.cancelled():
        task.exception()


class Ahead:
    """The calls that wait to be taken over, by thread. `told`: hears what one cost that was for nothing."""

    def __init__(self) -> None:
        self._begun: dict[str, Begun] = {}

    async def choose(
        self,
        thread: str,
        choosing: Coroutine[Any, Any, Choice],
        begin: Callable[[], Begun],
        told: Callable[[wire.Usage], None],
    ) -> Choice:
        """A choice that takes no time begins no call."""
        chosen = asyncio.ensure_future(choosing)
        begun = None
        try:
            await asyncio.sleep(0)
            begun = None if chosen.done() else begin()
            choice = await chosen
            if begun and begun.agent.name == choice.agent:
                self._begun[thread], begun = begun, None
            return choice
        finally:
            chosen.cancel()
            if begun:
                begun.drop(told)

    def drop(self, thread: str, told: Callable[[wire.Usage], None]) -> None:
        """What a run left behind that stopped before anybody could take it over."""
        if begun := self._begun.pop(thread, None):
            begun.drop(told)

    @contextmanager
    def taken_over(self, thread: str, agent: str, told: Callable[[wire.Usage], None]) -> Iterator[Begun | None]:
        """The call that waits for this agent, if there is one; it ends with the block at the latest."""
        begun = self._begun.pop(thread, None)
        try:
            yield begun if begun and begun.agent.name == agent else None
        finally:
            if begun:
                begun.drop(told)
