"""The only fake of the suite: a model that says its lines in order and remembers what it heard."""

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
class Held:
    """A line that is said when the test lets go of it."""

    line: AIMessageChunk
    release: asyncio.Event = field(default_factory=asyncio.Event)
    asked: asyncio.Event = field(default_factory=asyncio.Event)
    """Set when the model was asked for it."""
    dropped: asyncio.Event = field(default_factory=asyncio.Event)
    """Set when nobody waits for it any more."""


Line = AIMessageChunk | Exception | Held | Callable[[list[BaseMessage]], AIMessageChunk]


class ScriptedModel(BaseChatModel):
    lines: Any
    choices: Any = None
    """What it says when it is given no tools, in order; None: that is among the lines."""
    summaries: Any = iter(())
    """What it says when a summary is asked for, which comes when it likes; `heard` is what is asked else."""
    summarized: list[list[BaseMessage]] = Field(default_factory=list)
    heard: list[list[BaseMessage]] = Field(default_factory=list)
    """The messages of each call."""
    asked_with: list[dict[str, Any]] = Field(default_factory=list)
    """The parameters of each call."""

    @property
    def _llm_type(self) -> str:
        return "scripted"

    def bind_tools(
        self, tools: Sequence[dict[str, Any] | type | Callable[..., Any] | BaseTool], **kwargs: Any
    ) -> Runnable[LanguageModelInput, AIMessage]:
        return self.bind(tools=tools, **kwargs)

    def _next(self, messages: list[BaseMessage], parameters: dict[str, Any]) -> AIMessageChunk | Held:
        if str(messages[0].content).startswith(SUMMARY_PROMPT.partition("\n")[0]):
            self.summarized.append(messages)
            lines = self.summaries
        else:
            self.heard.append(messages)
            self.asked_with.append(parameters)
            lines = self.lines if self.choices is None or "tools" in parameters else self.choices
        line: Line = next(lines)
        if isinstance(line, Exception):
            raise line
        return line if isinstance(line, AIMessageChunk | Held) else line(messages)

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
        line = await _said(self._next(messages, kwargs))
        said = AIMessage(line.content, usage_metadata=line.usage_metadata)
        return ChatResult(generations=[ChatGeneration(message=said)])

    async def _astream(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> AsyncIterator[ChatGenerationChunk]:
        line = await _said(self._next(messages, kwargs))
        words = str(line.content).split(" ")
        for number, word in enumerate(words if line.content else ()):
            yield ChatGenerationChunk(message=AIMessageChunk(content=word if number == 0 else f" {word}"))
        yield ChatGenerationChunk(message=line.model_copy(update={"content": ""}))


async def _said(line: AIMessageChunk | Held) -> AIMessageChunk:
    if isinstance(line, AIMessageChunk):
        return line
    line.asked.set()
    try:
        await line.release.wait()
    except asyncio.CancelledError:
        line.dropped.set()
        raise
    return line.line


def model(*lines: Line, choices: Iterable[Line] | None = None, summaries: Iterable[Line] = ()) -> ScriptedModel:
    chosen = None if choices is None else iter(choices)
    return ScriptedModel(lines=iter(lines), choices=chosen, summaries=iter(summaries))


def says(text: str) -> AIMessageChunk:
    return AIMessageChunk(content=text)


def chooses(agent: str) -> AIMessageChunk:
    """A classification."""
    return AIMessageChunk(content=json.dumps({"agent": agent, "confidence": "high", "reasoning": "It fits."}))


def calls(tool: str, text: str = "", call_id: str | None = "call_1", **arguments: Any) -> AIMessageChunk:
    return asks((tool, call_id, json.dumps(arguments)), text=text)


def asks(*requests: tuple[str, str | None, str], text: str = "") -> AIMessageChunk:
    """Several calls in one message: tool, call id, arguments as the model wrote them."""
    pieces = [
        {"name": tool, "args": arguments, "id": call_id, "index": index, "type": "tool_call_chunk"}
        for index, (tool, call_id, arguments) in enumerate(requests)
    ]
    return AIMessageChunk(content=text, tool_call_chunks=pieces)


def costs(line: AIMessageChunk, read: int, written: int, cached: int = 0, by: str = "") -> AIMessageChunk:
    """The line, with the tokens that its service counted. `by`: the model that answered, if it says so."""
    details: dict[str, Any] = {"input_token_details": {"cache_read": cached}} if cached else {}
    usage = {"input_tokens": read, "output_tokens": written, "total_tokens": read + written, **details}
    return line.model_copy(update={"usage_metadata": usage, "response_metadata": {"model_name": by} if by else {}})


def roles(messages: Iterable[BaseMessage]) -> list[str]:
    return [message.type for message in messages]
