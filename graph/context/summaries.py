"""Prepare the context of each model call, and summarise in the background what does not fit.

Each conversation has at most one summary under way. The next step puts a finished summary into the state: it needs no
write of its own, so no lease.
"""

import asyncio
import logging
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from contextvars import Context
from dataclasses import dataclass
from functools import partial
from string import Template
from typing import NamedTuple

from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AnyMessage, HumanMessage, SystemMessage

from graph import wire
from graph.context.model_limits import ModelLimits
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
from graph.errors import ContextOverflow
from graph.sanitize import sanitize_value
from graph.state import INITIAL_WINDOW, State, StateUpdate, WindowState
from graph.thoughts import strip_thoughts
from graph.usage.call import usage_of
from graph.usage.tokens import estimate_tokens
from prompts import SUMMARY_PROMPT, Agent

log = logging.getLogger("agent_runtime.memories")
MAX_CACHED_SUMMARIES = 1_000
"""Conversations whose last summary is kept in memory. Bounds the memory: a lost summary is made again. Chosen, not
measured."""
RETRY_AFTER_MESSAGES = 10
"""New messages before a failed summary is tried again: a model that is down must not be called at every step. Chosen,
not measured."""


class PreparedContext(NamedTuple):
    """The messages for a model call, and the consequences for the state."""

    messages: Sequence[AnyMessage]
    update: StateUpdate
    """The update of the state; empty if the window did not move."""
    costs: list[wire.Usage]
    """The usage of a summary that was finished since the last step."""


class Summary(NamedTuple):
    """The text of a summary, the part of the conversation that it covers, and the usage of its model call."""

    text: str
    cost: wire.Usage
    upto: int
    """Place in the conversation that the summary reaches."""
    last_message: AnyMessage
    """The last summarised message. If another message stands in its place, the thread was rewritten."""


@dataclass
class SummaryTask:
    """A summary of a conversation, under way or finished."""

    task: "asyncio.Task[Summary | None]"
    """The result of a failed task is None."""
    base: WindowState
    """The window, with the earlier summary, that the summary extends."""
    message_count: int
    """Messages of the conversation when the task started."""
    is_reported: bool = False
    """True: the usage of the summary was reported."""

    @property
    def is_under_way(self) -> bool:
        return not self.task.done() and not self.task.get_loop().is_closed()

    def result(self) -> Summary | None:
        """Return the summary, or None if it is not finished, failed or was cancelled."""
        return self.task.result() if self.task.done() and not self.task.cancelled() else None


class Summarizer:
    """The contexts and the summaries of all conversations of a process."""

    def __init__(self, llm: BaseChatModel, budget: int, model: str = "", limits: ModelLimits | None = None) -> None:
        """Prepare contexts of at most `budget` tokens, prompt and tools included.

        `model` is the model of agents that name none. `limits` are learned while the models answer.
        """
        self._llm = llm
        self._budget, self._model = budget, model
        self._limits = limits or ModelLimits()
        self._overheads: dict[str, int] = {}
        self._summary_tasks: OrderedDict[str, SummaryTask] = OrderedDict()

    def validate_agents(self, agents: Mapping[str, Agent]) -> None:
        """Check that every agent leaves room for a conversation. Raises ValueError."""
        for agent in agents.values():
            if (missing := MIN_CONVERSATION_TOKENS + self._get_overhead(agent) - self._budget) > 0:
                name = f"the {agent.name} agent with its tools"
                raise ValueError(f"AGENT_RUNTIME__CONTEXT_TOKENS: {name} needs {self._budget + missing} or more.")

    def prepare(self, thread: str, state: State, agent: Agent, max_tokens: int | None = None) -> PreparedContext:
        """Return the context of the agent's next model call; start a summary if one is due.

        `thread` is the id of the thread. It is empty for a graph without a checkpointer, which gets no summaries.
        `max_tokens` bounds the request further, in estimated tokens: a larger one was refused.
        """
        messages, before = state["messages"], state.get("memory") or INITIAL_WINDOW
        memory, costs = self._apply_summary(thread, messages, before)
        context = fit_context(messages, memory, self._compute_room(agent, max_tokens))
        if context.summarize_upto and thread:
            self._start_summary(thread, messages, context, agent)
        return PreparedContext(context.messages, {} if context.memory == before else {"memory": context.memory}, costs)

    def preview(self, state: State, agent: Agent) -> Sequence[AnyMessage]:
        """Return the messages of the agent's next model call without starting or applying a summary."""
        return fit_context(state["messages"], state.get("memory") or INITIAL_WINDOW, self._compute_room(agent)).messages

    async def aclose(self) -> None:
        """Cancel the summaries that are under way."""
        tasks = [summary.task for summary in self._summary_tasks.values() if summary.is_under_way]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _compute_room(self, agent: Agent, max_tokens: int | None = None) -> int:
        """Return the estimated tokens that the agent's prompt and tools leave for the conversation."""
        budget = self._limits.compute_budget(agent.model or self._model, self._budget)
        if max_tokens is not None:
            budget = min(budget, max_tokens)
        return max(budget - self._get_overhead(agent), MIN_CONVERSATION_TOKENS)

    def _get_overhead(self, agent: Agent) -> int:
        if agent.name not in self._overheads:
            self._overheads[agent.name] = estimate_overhead(agent)
        return self._overheads[agent.name]

    def _apply_summary(
        self, thread: str, messages: Sequence[AnyMessage], memory: WindowState
    ) -> tuple[WindowState, list[wire.Usage]]:
        """Return the window with a finished summary in it, and the usage of that summary if it is not reported yet.

        The summary is kept until the state has it, since a run may be repeated.
        """
        task = self._summary_tasks.get(thread)
        summary = task.result() if task else None
        if not task or not summary:
            return memory, []
        costs = [] if task.is_reported else [summary.cost]
        task.is_reported = True
        if memory["upto"] != task.base["upto"] or not _is_applicable(summary, messages):
            del self._summary_tasks[thread]
            return memory, costs
        start, short = (max(summary.upto, memory[name]) for name in ("start", "short"))
        return WindowState(summary=summary.text, upto=summary.upto, start=start, short=short), costs

    def _start_summary(self, thread: str, messages: Sequence[AnyMessage], context: ContextWindow, agent: Agent) -> None:
        """Start a summary unless one is under way or failed a few messages ago."""
        before = self._summary_tasks.get(thread)
        if before and (
            before.is_under_way or (not before.result() and len(messages) < before.message_count + RETRY_AFTER_MESSAGES)
        ):
            return
        # an empty context: the summary must not use the callbacks and the streams of this run
        request = self._summarize(thread, agent, messages, context)
        task = asyncio.get_running_loop().create_task(request, name="summary", context=Context())
        self._summary_tasks[thread] = SummaryTask(task, context.memory, len(messages))
        self._summary_tasks.move_to_end(thread)
        self._evict_summaries()

    def _evict_summaries(self) -> None:
        for thread in [*self._summary_tasks][: max(0, len(self._summary_tasks) - MAX_CACHED_SUMMARIES)]:
            if not self._summary_tasks[thread].is_under_way:
                del self._summary_tasks[thread]

    async def _summarize(
        self, thread: str, agent: Agent, messages: Sequence[AnyMessage], context: ContextWindow
    ) -> Summary | None:
        """Return the summary that the model writes; None if it fails or writes nothing."""
        request = partial(self._request_summary, agent, messages, context)
        try:
            try:
                return await request(self._limits.compute_budget(self._model, self._budget))
            except ContextOverflow as overflow:
                return await request(overflow.budget)
        except Exception as error:
            log.warning("the summary of thread %s failed: %r", thread, error)
            return None

    async def _request_summary(
        self, agent: Agent, messages: Sequence[AnyMessage], context: ContextWindow, budget: int
    ) -> Summary | None:
        """Return a summary of as many messages as fit into a request of `budget` estimated tokens."""
        # tokens are estimated, so the threshold leaves a margin here as well
        room = int(COMPACTION_THRESHOLD * (budget - estimate_tokens(SystemMessage(SUMMARY_PROMPT))))
        transcript = build_transcript(
            messages, context.memory, context.summarize_upto, max(room, MIN_CONVERSATION_TOKENS)
        )
        # 2.5 estimated tokens a word: English has fewer, Russian more. A longer summary is cut. Chosen, not measured.
        words = limit_summary_tokens(self._compute_room(agent)) * 2 // 5
        sent = [SystemMessage(Template(SUMMARY_PROMPT).substitute(words=words)), HumanMessage(transcript.text)]
        answer = await self._llm.ainvoke([*sent])
        text = strip_thoughts(str(sanitize_value(answer.text))).strip()
        text = truncate_to_tokens(text, limit_summary_tokens(self._budget))
        size = partial(estimate_tokens, *sent, with_envelope=False)
        cost = usage_of(answer, size, agent=agent.name, purpose="summary")
        return Summary(text, cost, transcript.upto, messages[transcript.upto - 1]) if text else None


def _is_applicable(summary: Summary, messages: Sequence[AnyMessage]) -> bool:
    """Return whether the conversation is still the one that was summarised."""
    last = summary.upto - 1
    return last < len(messages) and messages[last] == summary.last_message
