"""Whole turns with each family of model services: none of its rules is broken, and no fault stays in the session."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.providers.anthropic import Anthropic
from tests.providers.azure import Azure
from tests.providers.codelab import CodeLab
from tests.providers.deepseek import DeepSeek
from tests.providers.gemini import Gemini
from tests.providers.kimi import Kimi
from tests.providers.llama_cpp import LlamaCpp
from tests.providers.minimax import MiniMax
from tests.providers.mistral import Mistral
from tests.providers.ollama import Ollama
from tests.providers.openai import OpenAI
from tests.providers.openrouter import OpenRouter
from tests.providers.provider import Answer, Family, Provider
from tests.providers.qwen_vllm import QwenOnVLLM
from tests.support.llm_server import ScriptedLLM
from tests.support.service import SessionClient, settings_for, start_service, text_chunk

FAMILIES = [
    *(OpenAI, Azure, Anthropic, Gemini, DeepSeek, Kimi, Mistral, QwenOnVLLM, LlamaCpp, Ollama, OpenRouter, MiniMax),
    CodeLab,
]
WITH_OVERFLOW = [family for family in FAMILIES if family not in (Ollama, CodeLab)]
LARGE_RESULT = "a line of the log\n" * 12_000
"""More than a provider of this corpus takes, and less than CONTEXT_TOKENS."""


def by_name(families: list[type[Provider]]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("family", families, ids=lambda family: family.name)


@asynccontextmanager
async def open_session(where: Path, provider: Provider, **changes: Any) -> AsyncIterator[SessionClient]:
    async with ScriptedLLM(otherwise=provider) as llm:
        address = {"llm_proxy_url": llm.url + provider.address_suffix, "llm_model": "model-of-the-user"}
        settings = settings_for(where, **{**address, "llm_retry_delay_seconds": 0.01, **provider.settings, **changes})
        async with start_service(None, settings) as client:
            yield client.open_session()
    assert provider.answers == [], "the service has made fewer requests than the story has answers"


async def expect_call(session: SessionClient, chunks: list[dict[str, Any]], tool: str) -> str:
    """Check that the last chunk is a call of the tool, and return its id."""
    assert (chunks[-1]["type"], chunks[-1].get("tool_name")) == ("tool_call", tool), chunks
    return str(chunks[-1]["call_id"])


@by_name(FAMILIES)
async def test_whole_turn_breaks_no_rule_of_the_provider(tmp_path: Path, family: Family) -> None:
    """A question, two tool steps, a refused call, an approval, an answer; then the next message."""
    provider = family(
        Answer(tool="read_file", arguments={"path": "a.py"}),
        Answer(tool="list_files", arguments={"path": "src"}),
        Answer(tool="read_file", arguments={"path": "../secret"}),
        Answer(tool="write_file", arguments={"path": "a.py", "content": "x = 1\n"}),
        Answer("It is written."),
        Answer("You are welcome."),
    )
    async with open_session(tmp_path, provider) as session:
        call = await expect_call(session, await session.send_text("create a.py"), "read_file")
        call = await expect_call(session, await session.send_result("x = 0\n", call), "list_files")
        refused, *rest = await session.send_result(["b.py"], call)
        assert refused["metadata"]["code"] == "tool_denied"
        call = await expect_call(session, rest, "write_file")
        await expect_call(session, await session.decide("approve", call), "write_file")
        assert (await session.send_result("written", call))[-1] == text_chunk("It is written.")
        assert (await session.send_text("Thanks"))[-1] == text_chunk("You are welcome.")
        history = await session.fetch_history()
    assert {*provider.refusals} <= {"temperature", "parallel_tool_calls", "stream_options"}
    assert len(provider.refusals) == len({*provider.refusals}), "each field is refused once, and then left out"
    assert not any("think" in str(message) or "reasoning" in str(message) for message in history)


@by_name([family for family in FAMILIES if family is not CodeLab])
async def test_answer_at_the_output_limit_is_completed(tmp_path: Path, family: Family) -> None:
    provider = family(Answer("One, two", is_cut=True), Answer(", three."), Answer("Yes."))
    async with open_session(tmp_path, provider, multi_agent_mode=False) as session:
        assert (await session.send_text("Count"))[-1] == text_chunk("One, two, three.")
        assert (await session.send_text("Is that all?"))[-1] == text_chunk("Yes.")


@by_name([family for family in FAMILIES if family is not CodeLab])
async def test_call_at_the_output_limit_is_not_executed(tmp_path: Path, family: Family) -> None:
    cut = Answer(tool="write_file", arguments={"path": "a.md", "content": "long"}, is_cut=True)
    provider = family(cut, Answer("I send it in pieces."), Answer("Yes."))
    async with open_session(tmp_path, provider, multi_agent_mode=False) as session:
        assert (await session.send_text("Write a.md"))[-1] == text_chunk("I send it in pieces.")
        assert (await session.send_text("Go on"))[-1] == text_chunk("Yes.")


@by_name(WITH_OVERFLOW)
async def test_conversation_that_is_too_large_is_made_smaller(tmp_path: Path, family: Family) -> None:
    """The provider's window is smaller than CONTEXT_TOKENS says. The session works, and the limit is known then."""
    provider = family(Answer(tool="read_file", arguments={"path": "big.log"}), Answer("It is a log."), Answer("Yes."))
    async with open_session(tmp_path, provider, multi_agent_mode=False) as session:
        call = await expect_call(session, await session.send_text("Read big.log"), "read_file")
        assert (await session.send_result(LARGE_RESULT, call))[-1] == text_chunk("It is a log.")
        overflows = provider.refusals.count("too large")
        assert overflows >= 1
        assert (await session.send_text("Is it long?"))[-1] == text_chunk("Yes.")
    assert provider.refusals.count("too large") == overflows, "what the provider said about its window is forgotten"
