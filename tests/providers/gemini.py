"""Gemini 3 at its OpenAI-compatible address: a signature with each call, whole calls in one piece, a list as error."""

import json
from collections.abc import Iterator, Sequence
from typing import Any

from tests.providers.provider import USAGE, Answer, Message, Provider, split_text
from tests.support.llm_server import LLMRequest, Responder, build_delta, respond_status


class Gemini(Provider):
    name = "gemini"
    rule = "gemini"
    address_suffix = "/v1beta/openai/"
    path = "/v1beta/openai/chat/completions"

    def build_call(self, answer: Answer) -> Message:
        signature = {"google": {"thought_signature": f"CsYB+/{len(self.answers)}=="}}
        return {**super().build_call(answer), "extra_content": signature}

    def make_id(self, answer: Answer, number: int) -> str:
        return f"function-call-{9007199254740993 + number}"

    def iter_events(
        self, answer: Answer, calls: Sequence[Message], fields: Message, reason: str
    ) -> Iterator[dict[str, Any]]:
        for piece in split_text(answer.text):
            yield build_delta(role="assistant", content=piece)
        for call in calls:
            yield build_delta(role="assistant", tool_calls=[{**call, "index": 0}])
        yield {**build_delta(finish_reason=reason, role="assistant"), "usage": USAGE}

    def get_finish_reason(self, answer: Answer) -> str:
        return "stop"

    def refuse_overflow(self, request: LLMRequest) -> Responder:
        used, limit = self.count_tokens(request), self.window_tokens
        message = f"The input token count ({used}) exceeds the maximum number of tokens allowed ({limit})."
        error = {"code": 400, "message": message, "status": "INVALID_ARGUMENT"}
        return respond_status(400, json.dumps([{"error": error}]).encode())
