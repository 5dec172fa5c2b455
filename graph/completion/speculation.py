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
from graph.completion.request import estimate_partial_usage, estimate_prompt_tokens
from graph.routing.cache import Choice
from graph.usage.call import usage_of
from prompts import Agent

EmitText = Callable[[str], None]
ModelCall = Callable[[EmitText], Coroutine[Any, Any, Reply]]
"""A specialist's model call, which tells its words as they come."""


class SpeculativeCall:
    """In a context of its own: no tracer and no stream of the graph hears of it."""

    def __init__(self, agent: Agent, sent: Sequence[AnyMessage], call: ModelCall) -> None:
        self.agent = agent
        self._sent = sent
        self._words: list[str] = []
        self._emit: EmitText = self._words.append
        self._is_followed = False
        self._task = asyncio.create_task(call(lambda text: self._emit(text)), context=Context())
        self._task.add_done_callback(_retrieve_exception)

    async def follow_stream(self, emit: EmitText) -> Reply:
        """Tells what it has said, and goes on telling, in the caller's context. Raises what the call raises."""
        self._is_followed = True
        for text in self._words:
            emit(text)
        context = copy_context()
        self._emit = lambda text: context.run(emit, text)
        return await self._task

    def cancel(self, on_usage: Callable[[wire.Usage], None]) -> None:
        """Ends it; tells what it cost if that was for nothing."""
        self._task.cancel()
        if not self._is_followed and (cost := self._measure_usage()):
            on_usage(cost)

    def _measure_usage(self) -> wire.Usage | None:
        """Estimated, unless it has come to its end; None if it failed before its first word."""
        is_over = self._task.done() and not self._task.cancelled()
        if is_over and not self._task.exception():
            size = partial(estimate_prompt_tokens, self.agent, self._sent)
            return usage_of(self._task.result().message, size, agent=self.agent.name, purpose="speculation")
        return (
            None
            if is_over and not self._words
            else estimate_partial_usage(self.agent, self._sent, self._words, "speculation")
        )


def _retrieve_exception(task: "asyncio.Task[Reply]") -> None:
    """An error of a call that nobody takes over is no matter to anybody."""
    if not task.cancelled():
        task.exception()


class Speculator:
    """The calls that wait to be taken over, by thread. `told`: hears what one cost that was for nothing."""

    def __init__(self) -> None:
        self._pending_calls: dict[str, SpeculativeCall] = {}

    async def choose_agent(
        self,
        thread: str,
        choosing: Coroutine[Any, Any, Choice],
        begin: Callable[[], SpeculativeCall],
        on_usage: Callable[[wire.Usage], None],
    ) -> Choice:
        """A choice that takes no time begins no call."""
        chosen = asyncio.ensure_future(choosing)
        begun = None
        try:
            await asyncio.sleep(0)
            begun = None if chosen.done() else begin()
            choice = await chosen
            if begun and begun.agent.name == choice.agent:
                self._pending_calls[thread], begun = begun, None
            return choice
        finally:
            chosen.cancel()
            if begun:
                begun.cancel(on_usage)

    def cancel(self, thread: str, on_usage: Callable[[wire.Usage], None]) -> None:
        """What a run left behind that stopped before anybody could take it over."""
        if begun := self._pending_calls.pop(thread, None):
            begun.cancel(on_usage)

    @contextmanager
    def take_over(
        self, thread: str, agent: str, on_usage: Callable[[wire.Usage], None]
    ) -> Iterator[SpeculativeCall | None]:
        """The call that waits for this agent, if there is one; it ends with the block at the latest."""
        begun = self._pending_calls.pop(thread, None)
        try:
            yield begun if begun and begun.agent.name == agent else None
        finally:
            if begun:
                begun.cancel(on_usage)
