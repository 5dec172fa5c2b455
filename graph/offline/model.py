"""The offline model `fake-llm`: no key, no network, the same answer each time. It shows each agent at work.

Without tools it classifies or summarises. With tools it runs the story that fits the user's last message (`intents`),
up to the next call that has no result yet.
"""

import json
import re
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from typing import Any

from langchain_core.callbacks import AsyncCallbackManagerForLLMRun, CallbackManagerForLLMRun
from langchain_core.language_models import BaseChatModel, LanguageModelInput
from langchain_core.messages import AIMessage, AIMessageChunk, BaseMessage, HumanMessage, SystemMessage, ToolMessage
from langchain_core.messages.ai import UsageMetadata
from langchain_core.outputs import ChatGeneration, ChatGenerationChunk, ChatResult
from langchain_core.runnables import Runnable
from langchain_core.tools import BaseTool
from langchain_core.utils.function_calling import convert_to_openai_tool

from graph.context.window import strip_service_note
from graph.offline.intents import start_story
from graph.offline.turn import CallResult, StoryCall, Turn, advance_story
from graph.routing.words import classify_by_keywords
from graph.settings import OFFLINE_MODEL
from prompts import SUMMARY_PROMPT

MAX_SUMMARY_LINE = 200
"""Characters of a request that a summary keeps: one line of the user's words. Chosen, not measured."""


class OfflineModel(BaseChatModel):
    """A deterministic chat model without a network."""

    @property
    def _llm_type(self) -> str:
        return OFFLINE_MODEL

    def bind_tools(
        self, tools: Sequence[dict[str, Any] | type | Callable[..., Any] | BaseTool], **kwargs: Any
    ) -> Runnable[LanguageModelInput, AIMessage]:
        return self.bind(tools=[convert_to_openai_tool(tool) for tool in tools], **kwargs)

    def _generate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        return ChatResult(generations=[ChatGeneration(message=generate_reply(messages, kwargs.get("tools")))])

    async def _agenerate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        return self._generate(messages, stop, **kwargs)

    def _stream(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> Iterator[ChatGenerationChunk]:
        for chunk in _split_chunks(generate_reply(messages, kwargs.get("tools"))):
            if run_manager:
                run_manager.on_llm_new_token(str(chunk.text), chunk=chunk)
            yield chunk

    async def _astream(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> AsyncIterator[ChatGenerationChunk]:
        for chunk in _split_chunks(generate_reply(messages, kwargs.get("tools"))):
            if run_manager:
                await run_manager.on_llm_new_token(str(chunk.text), chunk=chunk)
            yield chunk


def generate_reply(messages: Sequence[BaseMessage], tools: Sequence[dict[str, Any]] | None) -> AIMessage:
    """Return the answer to a conversation. Without tools it is a choice of an agent or a summary."""
    if tools is None:
        message = AIMessage(_summarize(messages) if _is_summary_request(messages) else _classify_request(messages))
    else:
        turn = _build_turn(messages, {tool["function"]["name"] for tool in tools})
        message = _build_message(advance_story(turn, *start_story(turn)), messages)
    message.usage_metadata = _count_usage(messages, message)
    return message


def _is_summary_request(messages: Sequence[BaseMessage]) -> bool:
    return str(messages[0].text).startswith(SUMMARY_PROMPT.partition("\n")[0])


def _summarize(messages: Sequence[BaseMessage]) -> str:
    """Return the earlier summary and the user's requests, one line each."""
    lines = [parsed for line in str(messages[-1].text).split("\n") if (parsed := _parse_line(line))]
    before = [line["summary so far"] for line in lines if "summary so far" in line]
    requests = [f"- {line['text'][:MAX_SUMMARY_LINE]}" for line in lines if line.get("from") == "user"]
    return "\n".join([*before, *requests]) or "-"


def _parse_line(line: str) -> dict[str, Any]:
    """Return the JSON object in a line; empty for a line that was cut."""
    try:
        parsed: dict[str, Any] = json.loads(line)
    except ValueError:
        return {}
    return parsed


def _classify_request(messages: Sequence[BaseMessage]) -> str:
    """Return the choice that the keywords make as the classifier's JSON; `null` if the prompt names no agents."""
    system = "\n".join(str(m.text) for m in messages if isinstance(m, SystemMessage))
    team = re.findall(r"(?m)^- (\w+): ", system)
    choice = classify_by_keywords(_extract_request(messages), team) if team else None
    return json.dumps(
        choice and {f: getattr(choice, f) for f in ("agent", "confidence", "reasoning")}, ensure_ascii=False
    )


def _build_turn(messages: Sequence[BaseMessage], tools: set[str]) -> Turn:
    """Return the turn since the user's last message, with the results of its calls."""
    start = max((i for i, m in enumerate(messages) if isinstance(m, HumanMessage)), default=-1)
    since = messages[start + 1 :]
    calls = {call["id"]: call for m in since if isinstance(m, AIMessage) for call in m.tool_calls}
    results = [
        CallResult(
            StoryCall(calls[m.tool_call_id]["name"], calls[m.tool_call_id]["args"]), str(m.text), m.status == "error"
        )
        for m in since
        if isinstance(m, ToolMessage) and m.tool_call_id in calls
    ]
    return Turn(_extract_request(messages), frozenset(tools), results)


def _extract_request(messages: Sequence[BaseMessage]) -> str:
    return strip_service_note(next((str(m.text) for m in reversed(messages) if isinstance(m, HumanMessage)), ""))


def _build_message(step: StoryCall | str, messages: Sequence[BaseMessage]) -> AIMessage:
    if isinstance(step, str):
        return AIMessage(step)
    number = 1 + sum(len(m.tool_calls) for m in messages if isinstance(m, AIMessage))
    call = {"name": step.name, "args": step.args, "id": f"call_{number}", "type": "tool_call"}
    return AIMessage(step.comment, tool_calls=[call])


def _count_usage(messages: Sequence[BaseMessage], message: AIMessage) -> UsageMetadata:
    """Count words in place of tokens."""
    sent = sum(len(str(m.text).split()) for m in messages)
    written = len(str(message.text).split()) + sum(len(json.dumps(call["args"]).split()) for call in message.tool_calls)
    return UsageMetadata(input_tokens=sent, output_tokens=written, total_tokens=sent + written)


def _split_chunks(message: AIMessage) -> Iterator[ChatGenerationChunk]:
    """Yield the message word by word, then one chunk with its calls and its usage."""
    for word in re.findall(r"\s*\S+|\s+$", str(message.text)):
        yield ChatGenerationChunk(message=AIMessageChunk(content=word))
    calls = [
        {"name": c["name"], "args": json.dumps(c["args"]), "id": c["id"], "index": i, "type": "tool_call_chunk"}
        for i, c in enumerate(message.tool_calls)
    ]
    last = AIMessageChunk(
        content="", tool_call_chunks=calls, usage_metadata=message.usage_metadata, chunk_position="last"
    )
    yield ChatGenerationChunk(message=last)
