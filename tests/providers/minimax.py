"""MiniMax: the last chunk repeats the whole message, thoughts stand in the text, errors have a code of their own."""

import json
from collections.abc import Iterator, Sequence
from typing import Any

from tests.providers.provider import Answer, Message, Provider, split_text
from tests.support.llm_server import LLMRequest, Responder, build_delta, respond_status


class MiniMax(Provider):
    name = "minimax"

    def make_id(self, answer: Answer, number: int) -> str:
        return f"call_function_{number:012d}_1"

    def build_text(self, answer: Answer) -> str:
        return f"<think>\nI weigh it.\n</think>\n\n{answer.text}"

    def iter_events(
        self, answer: Answer, calls: Sequence[Message], fields: Message, reason: str
    ) -> Iterator[dict[str, Any]]:
        text = self.build_text(answer)
        yield from (build_delta(role="assistant", content=piece) for piece in split_text(text))
        yield from (build_delta(role="assistant", tool_calls=[{**call, "index": 0}]) for call in calls)
        message = {"role": "assistant", "content": text, **({"tool_calls": [*calls]} if calls else {})}
        choice = {"index": 0, "delta": {}, "message": message, "finish_reason": reason}
        yield {"object": "chat.completion", "choices": [choice], "usage": {"total_tokens": 1020}}

    def refuse_overflow(self, request: LLMRequest) -> Responder:
        error = {
            "type": "bad_request_error",
            "message": "invalid params, context window exceeds limit (2013)",
            "http_code": "400",
        }
        return respond_status(400, json.dumps({"type": "error", "error": error, "request_id": "05"}).encode())
