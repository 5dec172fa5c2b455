"""OpenRouter: `reasoning_details` in pieces that come back joined, comments while a provider is busy."""

import json
from collections.abc import Iterator, Sequence
from typing import Any

from tests.providers.provider import Answer, Message, Provider
from tests.support.llm_server import LLMRequest, Responder, build_delta, encode_sse, respond_status

DETAIL = {"type": "reasoning.text", "format": "anthropic-claude-v1", "index": 0}


class OpenRouter(Provider):
    name = "openrouter"
    address_suffix = "/api/v1"
    path = "/api/v1/chat/completions"

    def make_id(self, answer: Answer, number: int) -> str:
        return f"tool_0_{answer.tool}_{number}"

    def build_fields(self, answer: Answer) -> Message:
        if not answer.tool:
            return {}
        return {"reasoning_details": [{**DETAIL, "text": "I look at it.", "signature": "Eo/+="}]}

    def iter_events(
        self, answer: Answer, calls: Sequence[Message], fields: Message, reason: str
    ) -> Iterator[dict[str, Any]]:
        if fields:
            for piece in ({"text": "I look"}, {"text": " at it."}, {"signature": "Eo/+="}):
                yield build_delta(content="", reasoning_details=[{**DETAIL, **piece}])
        for event in super().iter_events(answer, calls, {}, reason):
            for choice in event["choices"]:
                choice["native_finish_reason"] = choice["finish_reason"]
            yield event

    def encode_stream(self, events: Sequence[dict[str, Any]]) -> bytes:
        return b": OPENROUTER PROCESSING\n\n" * 3 + encode_sse(*events, done=True)

    def refuse_overflow(self, request: LLMRequest) -> Responder:
        used, limit = self.count_tokens(request), self.window_tokens
        message = (
            f"This endpoint's maximum context length is {limit} tokens. However, you requested about {used} tokens"
        )
        return respond_status(400, json.dumps({"error": {"message": f"{message}.", "code": 400}}).encode())
