"""Start the call of the expected specialist while the classification still runs.

No word of it is sent, stored or counted as an answer until its specialist takes it over.
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
from graph.thoughts import EmitPiece, Piece
from graph.usage.call import usage_of
from prompts import Agent

ModelCall = Callable[[EmitPiece], Coroutine[Any, Any, Reply]]
"""A specialist's model call. It passes its words and thoughts to the function as they come."""


class SpeculativeCall:
    """A model call in an empty context, which no tracer and no stream of the graph sees."""

    def __init__(self, agent: Agent, conversation: Sequence[AnyMessage], call: ModelCall) -> None:
        """Start `call`. `conversation` is what it sends; it is needed to estimate the usage."""
        self.agent = agent
        self._conversation = conversation
        self._pieces: list[Piece] = []
        self._emit: EmitPiece = self._pieces.append
        self._is_followed = False
        self._task = asyncio.create_task(call(lambda piece: self._emit(piece)), context=Context())
        self._task.add_done_callback(_retrieve_exception)

    async def follow_stream(self, emit: EmitPiece) -> Reply:
        """Pass the pieces so far and all further pieces to `emit`, in the caller's context, and return the answer.

        Raises what the call raises.
        """
        self._is_followed = True
        for piece in self._pieces:
            emit(piece)
        context = copy_context()
        self._emit = lambda piece: context.run(emit, piece)
        return await self._task

    def cancel(self, on_usage: Callable[[wire.Usage], None]) -> None:
        """Cancel the call. If no one followed it, report its usage."""
        self._task.cancel()
        if not self._is_followed and (usage := self._measure_usage()):
            on_usage(usage)

    def _measure_usage(self) -> wire.Usage | None:
        """Return the usage, which is estimated unless the call ended; None if it failed before its first word."""
        is_over = self._task.done() and not self._task.cancelled()
        if is_over and not self._task.exception():
            size = partial(estimate_prompt_tokens, self.agent, self._conversation)
            reply, name = self._task.result(), self.agent.name
            return usage_of(reply.message, size, agent=name, purpose="speculation", thoughts=reply.thoughts)
        words = [piece if isinstance(piece, str) else piece.text for piece in self._pieces]
        if is_over and not words:
            return None
        return estimate_partial_usage(self.agent, self._conversation, words, "speculation")


def _retrieve_exception(task: "asyncio.Task[Reply]") -> None:
    """Mark the error of a call as seen: asyncio must not log it if no one takes the call over."""
    if not task.cancelled():
        task.exception()


class Speculator:
    """The speculative calls that wait to be taken over, by thread. `on_usage` receives the usage of dropped calls."""

    def __init__(self) -> None:
        self._pending_calls: dict[str, SpeculativeCall] = {}

    async def choose_agent(
        self,
        thread: str,
        classification: Coroutine[Any, Any, Choice],
        start_call: Callable[[], SpeculativeCall],
        on_usage: Callable[[wire.Usage], None],
    ) -> Choice:
        """Return the choice. Keep a speculative call of the chosen agent for `take_over`, and drop any other.

        A classification that needs no time, such as a cached one, starts no call.
        """
        task = asyncio.ensure_future(classification)
        call = None
        try:
            await asyncio.sleep(0)
            call = None if task.done() else start_call()
            choice = await task
            if call and call.agent.name == choice.agent:
                self._pending_calls[thread], call = call, None
            return choice
        finally:
            task.cancel()
            if call:
                call.cancel(on_usage)

    def cancel(self, thread: str, on_usage: Callable[[wire.Usage], None]) -> None:
        """Drop the call of a run that stopped before its specialist could take it over."""
        if call := self._pending_calls.pop(thread, None):
            call.cancel(on_usage)

    @contextmanager
    def take_over(
        self, thread: str, agent: str, on_usage: Callable[[wire.Usage], None]
    ) -> Iterator[SpeculativeCall | None]:
        """Yield the call that waits for this agent, or None. The call is cancelled at the end of the block."""
        call = self._pending_calls.pop(thread, None)
        try:
            yield call if call and call.agent.name == agent else None
        finally:
            if call:
                call.cancel(on_usage)
