"""What each conversation's model is sent. Summaries of what does not fit are made in the background, one at a time.

A summary is handed over at the next step, and is then part of the state: no write of its own, so no lease.
"""

import asyncio
import logging
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from contextvars import Context
from dataclasses import dataclass
from string import Template
from typing import Any, NamedTuple

from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AnyMessage, HumanMessage, SystemMessage

from graph import wire
from graph.context.token_count import counted, overhead
from graph.context.transcript import material
from graph.context.truncation import clipped
from graph.context.window import FULL, LEAST_ROOM, Fit, fit, summary_size
from graph.sanitize import clean
from graph.state import FRESH, Memory, State
from graph.usage.call import cost_of, size
from prompts import SUMMARY, Agent

log = logging.getLogger("agent_runtime.memories")
THREADS = 1_000
"""Of which the last summary is kept until it is asked for."""
PAUSE = 10
"""Messages, before a summary that failed is tried again."""


class Given(NamedTuple):
    messages: Sequence[AnyMessage]
    update: dict[str, Any]
    """Of the state."""
    costs: list[wire.Usage]
    """Of the summary that is handed over."""


class Summary(NamedTuple):
    text: str
    cost: wire.Usage


@dataclass
class Making:
    """A summary under way, or made."""

    task: "asyncio.Task[Summary | None]"
    """None is what a failure leaves."""
    base: Memory
    """What it goes on from."""
    upto: int
    last: AnyMessage
    """That it tells of: if another one stands there, the thread was rewritten."""
    begun: int
    """How many messages there were."""
    is_told: bool = False
    """Whether its cost is."""

    @property
    def is_under_way(self) -> bool:
        return not self.task.done() and not self.task.get_loop().is_closed()

    def result(self) -> Summary | None:
        return self.task.result() if self.task.done() and not self.task.cancelled() else None


class Memories:
    def __init__(self, llm: BaseChatModel, budget: int) -> None:
        """`budget`: tokens, for all that is sent."""
        self._llm = llm
        self._budget = budget
        self._rooms: dict[str, int] = {}
        self._making: OrderedDict[str, Making] = OrderedDict()

    def check(self, agents: Mapping[str, Agent]) -> None:
        """Raises ValueError for agents that leave no room to a conversation."""
        for agent in agents.values():
            if (missing := LEAST_ROOM - self._room(agent)) > 0:
                name = f"the {agent.name} agent with its tools"
                raise ValueError(f"AGENT_RUNTIME__CONTEXT_TOKENS: {name} needs {self._budget + missing} or more.")

    def given(self, thread: str, state: State, agent: Agent) -> Given:
        """What the agent's model is sent at the next step; `thread`: its id, empty if nobody will come back to it."""
        messages, before = state["messages"], state.get("memory") or FRESH
        memory, costs = self._handed_over(thread, messages, before)
        found = fit(messages, memory, self._room(agent))
        if found.due and thread:
            self._begin(thread, messages, found, agent)
        return Given(found.messages, {} if found.memory == before else {"memory": found.memory}, costs)

    def seen(self, state: State, agent: Agent) -> Sequence[AnyMessage]:
        """What it would be sent now; nothing comes of it."""
        return fit(state["messages"], state.get("memory") or FRESH, self._room(agent)).messages

    async def aclose(self) -> None:
        tasks = [making.task for making in self._making.values() if making.is_under_way]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _room(self, agent: Agent) -> int:
        if agent.name not in self._rooms:
            self._rooms[agent.name] = self._budget - overhead(agent)
        return self._rooms[agent.name]

    def _handed_over(
        self, thread: str, messages: Sequence[AnyMessage], memory: Memory
    ) -> tuple[Memory, list[wire.Usage]]:
        """It stays at hand until the state has it: a run may have to be done again."""
        making = self._making.get(thread)
        summary = making.result() if making else None
        if not making or not summary:
            return memory, []
        costs = [] if making.is_told else [summary.cost]
        making.is_told = True
        if not _goes_on(making, messages, memory):
            del self._making[thread]
            return memory, costs
        start, short = (max(making.upto, memory[name]) for name in ("start", "short"))
        return Memory(summary=summary.text, upto=making.upto, start=start, short=short), costs

    def _begin(self, thread: str, messages: Sequence[AnyMessage], found: Fit, agent: Agent) -> None:
        before = self._making.get(thread)
        if before and (before.is_under_way or (not before.result() and len(messages) < before.begun + PAUSE)):
            return
        room = self._budget - counted(SystemMessage(SUMMARY))
        told = material(messages, found.memory, found.due, int(FULL * room))
        prompt = Template(SUMMARY).substitute(words=summary_size(self._room(agent)) * 2 // 5)
        # in a context of its own: the callbacks and the streams of this run are not the summary's
        making = self._summarized(thread, agent, [SystemMessage(prompt), HumanMessage(told.text)])
        task = asyncio.get_running_loop().create_task(making, name="summary", context=Context())
        self._making[thread] = Making(task, found.memory, told.upto, messages[told.upto - 1], len(messages))
        self._making.move_to_end(thread)
        self._forget()

    def _forget(self) -> None:
        for thread in [*self._making][: max(0, len(self._making) - THREADS)]:
            if not self._making[thread].is_under_way:
                del self._making[thread]

    async def _summarized(self, thread: str, agent: Agent, sent: Sequence[AnyMessage]) -> Summary | None:
        try:
            answer = await self._llm.ainvoke([*sent])
        except Exception as error:
            log.warning("thread %s was not summarised: %r", thread, error)
            return None
        text = clipped(str(clean(answer.text)).strip(), summary_size(self._budget))
        cost = cost_of(answer, lambda: size(sent), agent=agent.name, purpose="summary")
        return Summary(text, cost) if text else None


def _goes_on(making: Making, messages: Sequence[AnyMessage], memory: Memory) -> bool:
    """Whether the conversation is still the one that was summarised, and is not told so far yet."""
    at = making.upto - 1
    return memory["upto"] == making.base["upto"] and at < len(messages) and messages[at] == making.last
