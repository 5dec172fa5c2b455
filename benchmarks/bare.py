"""Run the same graph without HTTP and database: turns in a loop, with a model that costs next to nothing."""

import time
from collections.abc import AsyncIterator
from itertools import count
from typing import Any

from langchain_core.callbacks import AsyncCallbackManagerForLLMRun, CallbackManagerForLLMRun
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, AIMessageChunk, BaseMessage, ToolMessage
from langchain_core.messages.tool import tool_call
from langchain_core.outputs import ChatGeneration, ChatGenerationChunk, ChatResult
from langchain_core.runnables import Runnable
from langgraph.checkpoint.memory import InMemorySaver

from benchmarks.client import FILE_CONTENT, QUESTION
from benchmarks.model import ANSWER, CHOICE
from graph import wire
from graph.execution.outcome import Graph, Outcome, Pause
from graph.execution.run import run_graph
from graph.services import Services
from graph.settings import Settings
from graph.topology import build_graph

calls = count()


class BenchmarkModel(BaseChatModel):
    """A chat model with the answers of `benchmarks.model`."""

    @property
    def _llm_type(self) -> str:
        return "scripted"

    def bind_tools(self, tools: Any, **kwargs: Any) -> Runnable[Any, AIMessage]:
        return self.bind(tools=tools, **kwargs)

    def _generate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        return ChatResult(generations=[ChatGeneration(message=AIMessage(CHOICE))])

    async def _astream(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> AsyncIterator[ChatGenerationChunk]:
        yield ChatGenerationChunk(message=_script_answer(messages[-1], "tools" in kwargs))


def _script_answer(last: BaseMessage, has_tools: bool) -> AIMessageChunk:
    if not has_tools or isinstance(last, ToolMessage):
        return AIMessageChunk(content=ANSWER if has_tools else CHOICE, chunk_position="last")
    call = tool_call(name="read_file", args={"path": "src/values.py"}, id=f"call_{next(calls)}")
    return AIMessageChunk(content="", tool_calls=[call], chunk_position="last")


async def measure_turn_cpu(sessions: int, turns: int) -> float:
    """Return the CPU seconds per turn. The first turn of each session does not count."""
    graph: Graph = build_graph(Services.from_settings(BenchmarkModel(), Settings(_env_file=None))).compile(
        checkpointer=InMemorySaver()
    )
    names = [f"bare-{number}" for number in range(sessions)]
    for name in names:
        await _execute_turn(graph, name)
    before = time.process_time()
    for _ in range(turns):
        for name in names:
            await _execute_turn(graph, name)
    return (time.process_time() - before) / (sessions * turns)


async def _execute_turn(graph: Graph, name: str) -> None:
    request = await _process_message(graph, name, wire.UserMessage(content=QUESTION), None)
    assert request.pause is not None
    call_id = request.pause.calls[0].call.call_id
    answer = await _process_message(
        graph, name, wire.ToolResult(call_id=call_id, tool_name="read_file", result=FILE_CONTENT), request.pause
    )
    assert answer.pause is None


async def _process_message(graph: Graph, name: str, message: wire.Message, pause: Pause | None) -> Outcome:
    async for item in run_graph(graph, name, "", message, wire.StreamOptions(), pause, []):
        if isinstance(item, Outcome):
            return item
    raise RuntimeError("The turn has no outcome.")
