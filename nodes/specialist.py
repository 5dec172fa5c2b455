"""Make one model call of one specialist: its prompt, its tools, and the part of the conversation that fits.

A text that was cut off at the output limit gets a second call.
"""

from collections.abc import Sequence
from functools import partial
from typing import Any

from langchain_core.messages import AIMessage, AnyMessage
from langchain_core.messages import ToolCall as RequestedCall
from langchain_core.runnables import RunnableConfig
from langgraph.runtime import Runtime

from graph import wire
from graph.completion.continuation import (
    append_words,
    build_continuation,
    build_truncation_note,
    can_continue,
    join_replies,
)
from graph.completion.reply import Reply
from graph.completion.request import estimate_partial_usage, estimate_prompt_tokens, request_completion
from graph.completion.speculation import SpeculativeCall
from graph.conversation import current_turn
from graph.errors import AgentRuntimeError, Cancelled, ContextOverflow, LimitReached, LLMInvalidAnswer
from graph.marks import chunk_metadata_of, is_aside, mark_truncated
from graph.permissions.endings import fill_result
from graph.run_scope import await_cancellable
from graph.services import Services
from graph.state import State, StateUpdate, get_thread_id
from graph.thoughts import Piece, Thoughts, quote_thoughts
from graph.usage.call import usage_of
from prompts import Agent


async def specialist(
    state: State,
    runtime: Runtime[wire.StreamOptions],
    config: RunnableConfig,
    *,
    agent: Agent,
    services: Services,
) -> StateUpdate:
    calls, thread = ModelCalls(state, runtime, agent, services), get_thread_id(config)
    try:
        with services.speculator.take_over(thread, agent.name, runtime.stream_writer) as speculative_call:
            services.budgets.check_limits(state.get("spent"))
            if question := services.budgets.warning_question(state.get("spent")):
                return {"messages": [question.model_copy(update={"name": agent.name})]}
            reply = await calls.answer(thread, speculative_call)
        if can_continue(reply):
            reply = await calls.continue_reply(reply)
        if not str(reply.message.content).strip() and not reply.message.tool_calls:
            raise LLMInvalidAnswer("The model's answer was empty. Send the message again.")
        _check_tool_call_limit(state, services.settings.max_turn_tool_calls, reply.message.tool_calls)
    except AgentRuntimeError as error:
        runtime.stream_writer(wire.error_chunk(error))
        return {**calls.update, "ended": True}
    message = _build_message(reply, agent)
    ends = [services.gatekeeper.ends_turn(agent.name, call["name"], call["args"]) for call in message.tool_calls]
    if not any(ends) or reply.answers:  # the answer of a call that ends the turn holds the text
        _emit_text(message, calls.options, runtime)
    return {**calls.update, "messages": [message, *reply.answers], "ended": not message.tool_calls}


class ModelCalls:
    """The model calls of one step. Their words go to the client, and their usage to the meter."""

    def __init__(self, state: State, runtime: Runtime[wire.StreamOptions], agent: Agent, services: Services) -> None:
        self._state, self._runtime, self._agent, self._services = state, runtime, agent, services
        self.options = runtime.context or wire.StreamOptions()
        self.update: StateUpdate = {}
        """The update of the state by the preparation of the calls."""
        self._usages: list[wire.Usage] = []
        self._earlier_text = ""
        """The words of the calls before the present one. The client has them, but not yet their message."""

    def report_usage(self, usage: wire.Usage) -> None:
        self._usages.append(usage)
        self._runtime.stream_writer(usage)

    async def answer(self, thread: str, speculative_call: SpeculativeCall | None) -> Reply:
        """Return the reply to the conversation. If it is too large for the model, send a smaller part, once.

        Raises what the model raises.
        """
        try:
            return await self.complete(self._prepare(thread), [], speculative_call)
        except ContextOverflow as overflow:
            return await self.complete(self._prepare(thread, overflow.budget), [])

    def _prepare(self, thread: str, max_tokens: int | None = None) -> Sequence[AnyMessage]:
        state: Any = {**self._state, **self.update}
        prepared = self._services.summarizer.prepare(thread, state, self._agent, max_tokens)
        self.update = {**self.update, **prepared.update}
        for usage in prepared.costs:
            self.report_usage(usage)
        return prepared.messages

    async def complete(
        self, context: Sequence[AnyMessage], words: list[str], speculative_call: SpeculativeCall | None = None
    ) -> Reply:
        """Return the reply of a new call, or of the speculative one. Append its words to `words` as they come.

        The usage of a call that was stopped or broke off is estimated. Raises what the model raises.
        """
        has_started, streams_tokens, write = False, self.options.tokens, self._runtime.stream_writer

        def emit(piece: Piece) -> None:
            if isinstance(piece, Thoughts):
                self._emit_thoughts(piece, words)
                return
            words.append(piece)
            if streams_tokens:
                write(wire.AssistantMessage(token=piece))

        async def start_request() -> Reply:
            nonlocal has_started
            has_started = True
            if speculative_call:
                return await speculative_call.follow_stream(emit)
            history, llm = self._state["messages"], self._services.llm
            return await request_completion(llm, self._agent, context, self.options, emit, history)

        try:
            reply = await await_cancellable(start_request())
        except AgentRuntimeError as error:
            if words or (has_started and isinstance(error, Cancelled | LimitReached)):
                self.report_usage(estimate_partial_usage(self._agent, context, words, "answer"))
            raise
        size = partial(estimate_prompt_tokens, self._agent, context)
        self.report_usage(
            usage_of(reply.message, size, agent=self._agent.name, purpose="answer", thoughts=reply.thoughts)
        )
        return reply

    def _emit_thoughts(self, thoughts: Thoughts, words: list[str]) -> None:
        """Emit thoughts as a message of their own: if they are shown, or if the client has them as tokens already."""
        metadata, write = {"thoughts": True}, self._runtime.stream_writer
        if thoughts.was_released:
            words.clear()
            if self.options.tokens:
                write(wire.AssistantMessage(content=self._earlier_text + thoughts.text, metadata=metadata))
                return
        if self._services.settings.llm_thoughts == "drop" or self._earlier_text:
            return
        text = quote_thoughts(thoughts.text)
        if self.options.tokens:
            write(wire.AssistantMessage(token=text))
        write(wire.assistant_chunk(text, self.options, is_final=False, metadata=metadata))

    async def continue_reply(self, reply: Reply) -> Reply:
        """Return the reply with its rest, from one more call. Without one it stays as it is, cut off.

        Raises the error that the run was stopped with.
        """
        messages = [*self._state["messages"], *build_continuation(reply.message)]
        after: Any = {**self._state, **self.update, "messages": messages}
        context = self._services.summarizer.preview(after, self._agent)
        if not self._has_budget_left() or not any(message is reply.message for message in context):
            return reply
        self._earlier_text, words = str(reply.message.content), list[str]()
        try:
            return join_replies(reply, await self.complete(context, words))
        except AgentRuntimeError as error:
            if isinstance(error, Cancelled | LimitReached):
                raise
            return append_words(reply, words)

    def _has_budget_left(self) -> bool:
        """Return whether the budgets allow another call in this step, without a question to the user."""
        meter, budgets = self._services.meter, self._services.budgets
        usage = meter.accumulate(self._state.get("spent"), map(meter.price_call, self._usages))
        try:
            budgets.check_limits(usage)
        except LimitReached:
            return False
        return not budgets.warning_question(usage)


def _build_message(reply: Reply, agent: Agent) -> AIMessage:
    """Return the agent's message for the conversation."""
    message = reply.message.model_copy(update={"name": agent.name})
    if reply.truncation and not message.tool_calls:
        return mark_truncated(message, reply.truncation)
    return message if reply.answers else fill_result(message)


def _check_tool_call_limit(state: State, limit: int, new_calls: Sequence[RequestedCall]) -> None:
    """Raise LimitReached if the model has made more tool calls than allowed since the user's last message."""
    count = len(new_calls)
    for message in current_turn(state["messages"]):
        if isinstance(message, AIMessage) and not is_aside(message):
            count += len(message.tool_calls)
    if count > limit:
        raise LimitReached(f"The turn was stopped at its limit of {limit} tool calls. Send a message to go on.")


def _emit_text(message: AIMessage, options: wire.StreamOptions, runtime: Runtime[wire.StreamOptions]) -> None:
    """Emit the whole text, if there is one. A text that was cut off says so at its end."""
    if not (text := str(message.content)):
        return
    note = build_truncation_note(message)
    if note and options.tokens:
        runtime.stream_writer(wire.AssistantMessage(token=note))
    metadata, is_final = chunk_metadata_of(message), not message.tool_calls
    runtime.stream_writer(wire.assistant_chunk(text + note, options, is_final=is_final, metadata=metadata))
