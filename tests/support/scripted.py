"""The only fake of the suite: a model that says its lines in order and records its requests."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from langchain_core.callbacks import AsyncCallbackManagerForLLMRun, CallbackManagerForLLMRun
from langchain_core.language_models import BaseChatModel, LanguageModelInput
from langchain_core.messages import AIMessage, AIMessageChunk, BaseMessage
from langchain_core.outputs import ChatGeneration, ChatGenerationChunk, ChatResult
from langchain_core.runnables import Runnable
from langchain_core.tools import BaseTool
from pydantic import Field

from prompts import SUMMARY_PROMPT


@dataclass(frozen=True)
class DeferredReply:
    """A line that the model says when the test releases it."""

    line: AIMessageChunk
    release: asyncio.Event = field(default_factory=asyncio.Event)
    requested: asyncio.Event = field(default_factory=asyncio.Event)
    """Set when the line is requested."""
    dropped: asyncio.Event = field(default_factory=asyncio.Event)
    """Set when nobody waits for the line any more."""


ScriptLine = AIMessageChunk | Exception | DeferredReply | Callable[[list[BaseMessage]], AIMessageChunk]


class ScriptedModel(BaseChatModel):
    lines: Any
    choices: Any = None
    """The answers to requests without tools, in order; None: they are among the lines."""
    summaries: Any = iter(())
    """The answers to requests of a summary, which may come at any time; `prompts` has the other requests."""
    summary_prompts: list[list[BaseMessage]] = Field(default_factory=list)
    prompts: list[list[BaseMessage]] = Field(default_factory=list)
    """The messages of each request but those of a summary."""
    call_parameters: list[dict[str, Any]] = Field(default_factory=list)
    """The parameters of each of these requests."""

    @property
    def _llm_type(self) -> str:
        return "scripted"

    def bind_tools(
        self, tools: Sequence[dict[str, Any] | type | Callable[..., Any] | BaseTool], **kwargs: Any
    ) -> Runnable[LanguageModelInput, AIMessage]:
        return self.bind(tools=tools, **kwargs)

    def _take_line(self, messages: list[BaseMessage], parameters: dict[str, Any]) -> AIMessageChunk | DeferredReply:
        if str(messages[0].content).startswith(SUMMARY_PROMPT.partition("\n")[0]):
            self.summary_prompts.append(messages)
            lines = self.summaries
        else:
            self.prompts.append(messages)
            self.call_parameters.append(parameters)
            lines = self.lines if self.choices is None or "tools" in parameters else self.choices
        line: ScriptLine = next(lines)
        if isinstance(line, Exception):
            raise line
        return line if isinstance(line, AIMessageChunk | DeferredReply) else line(messages)

    def _generate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        raise NotImplementedError

    async def _agenerate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        line = await _wait_for_release(self._take_line(messages, kwargs))
        said = AIMessage(line.content, usage_metadata=line.usage_metadata)
        return ChatResult(generations=[ChatGeneration(message=said)])

    async def _astream(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> AsyncIterator[ChatGenerationChunk]:
        line = await _wait_for_release(self._take_line(messages, kwargs))
        words = str(line.content).split(" ")
        for number, word in enumerate(words if line.content else ()):
            yield ChatGenerationChunk(message=AIMessageChunk(content=word if number == 0 else f" {word}"))
        yield ChatGenerationChunk(message=line.model_copy(update={"content": ""}))


async def _wait_for_release(line: AIMessageChunk | DeferredReply) -> AIMessageChunk:
    if isinstance(line, AIMessageChunk):
        return line
    line.requested.set()
    try:
        await line.release.wait()
    except asyncio.CancelledError:
        line.dropped.set()
        raise
    return line.line


def make_model(
    *lines: ScriptLine, choices: Iterable[ScriptLine] | None = None, summaries: Iterable[ScriptLine] = ()
) -> ScriptedModel:
    chosen = None if choices is None else iter(choices)
    return ScriptedModel(lines=iter(lines), choices=chosen, summaries=iter(summaries))


def say_text(text: str) -> AIMessageChunk:
    return AIMessageChunk(content=text)


def choose_agent(agent: str) -> AIMessageChunk:
    """Return the answer to a classification."""
    return AIMessageChunk(content=json.dumps({"agent": agent, "confidence": "high", "reasoning": "It fits."}))


def call_tool(tool: str, text: str = "", call_id: str | None = "call_1", **arguments: Any) -> AIMessageChunk:
    return call_tools((tool, call_id, json.dumps(arguments)), text=text)


def call_tools(*requests: tuple[str, str | None, str], text: str = "") -> AIMessageChunk:
    """Return a message with several calls: tool, call id, and arguments as the model wrote them."""
    pieces = [
        {"name": tool, "args": arguments, "id": call_id, "index": index, "type": "tool_call_chunk"}
        for index, (tool, call_id, arguments) in enumerate(requests)
    ]
    return AIMessageChunk(content=text, tool_call_chunks=pieces)


def with_usage(line: AIMessageChunk, read: int, written: int, cached: int = 0, model_name: str = "") -> AIMessageChunk:
    """Return the line with the tokens that its service counted, and the name of the model if it gives one."""
    details: dict[str, Any] = {"input_token_details": {"cache_read": cached}} if cached else {}
    usage = {"input_tokens": read, "output_tokens": written, "total_tokens": read + written, **details}
    return line.model_copy(
        update={"usage_metadata": usage, "response_metadata": {"model_name": model_name} if model_name else {}}
    )


def list_roles(messages: Iterable[BaseMessage]) -> list[str]:
    return [message.type for message in messages]
