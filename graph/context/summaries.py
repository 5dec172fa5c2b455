"""What each conversation's model is sent. Summaries of what does not fit are made in the background, one at a time.

A summary is handed over at the next step, and is then part of the state: no write of its own, so no lease.
"""

import asyncio
import logging
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from contextvars import Context
from dataclasses import dataclass
from functools import partial
from string import Template
from typing import Any, NamedTuple

from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AnyMessage, HumanMessage, SystemMessage

from graph import wire
from graph.context.token_count import estimate_overhead
from graph.context.transcript import build_transcript
from graph.context.truncation import truncate_to_tokens
from graph.context.window import (
    COMPACTION_THRESHOLD,
    MIN_CONVERSATION_TOKENS,
    ContextWindow,
    fit_context,
    limit_summary_tokens,
)
from graph.sanitize import sanitize_value
from graph.state import INITIAL_WINDOW, State, WindowState
from graph.usage.call import usage_of
from graph.usage.tokens import estimate_tokens
from prompts import SUMMARY_PROMPT, Agent

log = logging.getLogger("agent_runtime.memories")
MAX_CACHED_SUMMARIES = 1_000
"""Of which the last summary is kept until it is asked for."""
RETRY_AFTER_MESSAGES = 10
"""Messages, before a summary that failed is tried again."""


class PreparedContext(NamedTuple):
    messages: Sequence[AnyMessage]
    update: dict[str, Any]
    """Of the state."""
    costs: list[wire.Usage]
    """Of the summary that is handed over."""


class Summary(NamedTuple):
    text: str
    cost: wire.Usage


@dataclass
class SummaryTask:
    """A summary under way, or made."""

    task: "asyncio.Task[Summary | None]"
    """None is what a failure leaves."""
    base: WindowState
    """What it goes on from."""
    upto: int
    last_message: AnyMessage
    """That it tells of: if another one stands there, the thread was rewritten."""
    message_count: int
    """How many messages there were."""
    is_reported: bool = False
    """Whether its cost is."""

    @property
    def is_under_way(self) -> bool:
        return not self.task.done() and not self.task.get_loop().is_closed()

    def result(self) -> Summary | None:
        return self.task.result() if self.task.done() and not self.task.cancelled() else None


class Summarizer:
    def __init__(self, llm: BaseChatModel, budget: int) -> None:
        """`budget`: tokens, for all that is sent."""
        self._llm = llm
        self._budget = budget
        self._rooms: dict[str, int] = {}
        self._summary_tasks: OrderedDict[str, SummaryTask] = OrderedDict()

    def validate_agents(self, agents: Mapping[str, Agent]) -> None:
        """Raises ValueError for agents that leave no room to a conversation."""
        for agent in agents.values():
            if (missing := MIN_CONVERSATION_TOKENS - self._compute_room(agent)) > 0:
                name = f"the {agent.name} agent with its tools"
                raise ValueError(f"AGENT_RUNTIME__CONTEXT_TOKENS: {name} needs {self._budget + missing} or more.")

    def prepare(self, thread: str, state: State, agent: Agent) -> PreparedContext:
        """What the agent's model is sent at the next step; `thread`: its id, empty if nobody will come back to it."""
        messages, before = state["messages"], state.get("memory") or INITIAL_WINDOW
        memory, costs = self._apply_summary(thread, messages, before)
        found = fit_context(messages, memory, self._compute_room(agent))
        if found.summarize_upto and thread:
            self._start_summary(thread, messages, found, agent)
        return PreparedContext(found.messages, {} if found.memory == before else {"memory": found.memory}, costs)

    def preview(self, state: State, agent: Agent) -> Sequence[AnyMessage]:
        """What it would be sent now; nothing comes of it."""
        return fit_context(state["messages"], state.get("memory") or INITIAL_WINDOW, self._compute_room(agent)).messages

    async def aclose(self) -> None:
        tasks = [making.task for making in self._summary_tasks.values() if making.is_under_way]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _compute_room(self, agent: Agent) -> int:
        if agent.name not in self._rooms:
            self._rooms[agent.name] = self._budget - estimate_overhead(agent)
        return self._rooms[agent.name]

    def _apply_summary(
        self, thread: str, messages: Sequence[AnyMessage], memory: WindowState
    ) -> tuple[WindowState, list[wire.Usage]]:
        """It stays at hand until the state has it: a run may have to be done again."""
        making = self._summary_tasks.get(thread)
        summary = making.result() if making else None
        if not making or not summary:
            return memory, []
        costs = [] if making.is_reported else [summary.cost]
        making.is_reported = True
        if not _is_applicable(making, messages, memory):
            del self._summary_tasks[thread]
            return memory, costs
        start, short = (max(making.upto, memory[name]) for name in ("start", "short"))
        return WindowState(summary=summary.text, upto=making.upto, start=start, short=short), costs

    def _start_summary(self, thread: str, messages: Sequence[AnyMessage], found: ContextWindow, agent: Agent) -> None:
        before = self._summary_tasks.get(thread)
        if before and (
            before.is_under_way or (not before.result() and len(messages) < before.message_count + RETRY_AFTER_MESSAGES)
        ):
            return
        room = self._budget - estimate_tokens(SystemMessage(SUMMARY_PROMPT))
        told = build_transcript(messages, found.memory, found.summarize_upto, int(COMPACTION_THRESHOLD * room))
        prompt = Template(SUMMARY_PROMPT).substitute(words=limit_summary_tokens(self._compute_room(agent)) * 2 // 5)
        # in a context of its own: the callbacks and the streams of this run are not the summary's
        making = self._summarize(thread, agent, [SystemMessage(prompt), HumanMessage(told.text)])
        task = asyncio.get_running_loop().create_task(making, name="summary", context=Context())
        self._summary_tasks[thread] = SummaryTask(task, found.memory, told.upto, messages[told.upto - 1], len(messages))
        self._summary_tasks.move_to_end(thread)
        self._evict_summaries()

    def _evict_summaries(self) -> None:
        for thread in [*self._summary_tasks][: max(0, len(self._summary_tasks) - MAX_CACHED_SUMMARIES)]:
            if not self._summary_tasks[thread].is_under_way:
                del self._summary_tasks[thread]

    async def _summarize(self, thread: str, agent: Agent, sent: Sequence[AnyMessage]) -> Summary | None:
        try:
            answer = await self._llm.ainvoke([*sent])
        except Exception as error:
            log.warning("thread %s was not summarised: %r", thread, error)
            return None
        text = truncate_to_tokens(str(sanitize_value(answer.text)).strip(), limit_summary_tokens(self._budget))
        size = partial(estimate_tokens, *sent, with_envelope=False)
        cost = usage_of(answer, size, agent=agent.name, purpose="summary")
        return Summary(text, cost) if text else None


def _is_applicable(making: SummaryTask, messages: Sequence[AnyMessage], memory: WindowState) -> bool:
    """Whether the conversation is still the one that was summarised, and is not told so far yet."""
    at = making.upto - 1
    return memory["upto"] == making.base["upto"] and at < len(messages) and messages[at] == making.last_message
