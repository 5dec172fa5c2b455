"""A model that requires its own fields of every call goes on with a conversation that another model began."""

import json
from pathlib import Path
from typing import Any

import pytest

from tests.support.llm_server import (
    LLMRequest,
    Responder,
    ScriptedLLM,
    respond_status,
    respond_text,
    respond_tool_call,
)
from tests.support.service import settings_for, start_service, text_chunk

KIMI = "thinking is enabled but reasoning_content is missing in assistant tool call message at index 2"
DEEPSEEK = "The reasoning_content in the thinking mode must be passed back to the API."
GEMINI = "Function call is missing a thought_signature in functionCall parts."


def refuse_without_field(request: LLMRequest, words: str) -> Responder:
    """Refuse a request with a call that lacks the field, as the service of these words does."""
    for message in request.body["messages"]:
        if calls := message.get("tool_calls"):
            place: Any = calls[0].get("extra_content") if words == GEMINI else message.get("reasoning_content")
            if not place:
                return respond_status(400, json.dumps({"error": {"message": words, "code": 400}}).encode())
    return respond_text("Read.")


@pytest.mark.parametrize("words", [KIMI, DEEPSEEK, GEMINI], ids=["Kimi", "DeepSeek", "Gemini"])
async def test_conversation_of_another_model_is_continued(tmp_path: Path, words: str) -> None:
    """Only the first request is refused. The placeholder stays between service and model."""
    first = [respond_tool_call("read_file", path="a.py"), respond_text("One.")]
    async with ScriptedLLM(*first, otherwise=lambda request: refuse_without_field(request, words)) as llm:
        given = {"llm_proxy_url": llm.url, "multi_agent_mode": False, "llm_retries": 0, "log_level": "CRITICAL"}
        async with start_service(None, settings_for(tmp_path, llm_model="plain", **given)) as client:
            session = client.open_session()
            await session.send_text("Read")
            assert await session.send_result("x = 1") == [text_chunk("One.")]
        async with start_service(None, settings_for(tmp_path, llm_model="strict", **given)) as client:
            session = client.open_session()
            assert [await session.send_text(text) for text in ("Again", "And again")] == [[text_chunk("Read.")]] * 2
            history = await client.http.get("/sessions/s-1/history")
        assert len(llm.requests) == 5
    assert not any(word in history.text for word in ("extra_content", "reasoning_content"))


async def test_fallback_that_answered_a_step_does_not_end_the_turn(tmp_path: Path) -> None:
    """The first model is back for the second step, and misses its signature in the call of the fallback."""
    steps = respond_status(503), respond_tool_call("read_file", path="a.py")
    async with ScriptedLLM(*steps, otherwise=lambda request: refuse_without_field(request, GEMINI)) as llm:
        given = {"llm_proxy_url": llm.url, "multi_agent_mode": False, "llm_retries": 0, "log_level": "CRITICAL"}
        names = {"llm_model": "strict", "llm_fallback_model": "plain"}
        async with start_service(None, settings_for(tmp_path, **names, **given)) as client:
            session = client.open_session()
            await session.send_text("Read")
            assert await session.send_result("x = 1") == [text_chunk("Read.")]
    assert [request.body["model"] for request in llm.requests] == ["strict", "plain", "strict", "strict"]
