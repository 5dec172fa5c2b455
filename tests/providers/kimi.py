"""Kimi K2: ids of calls that its template reads, thoughts that come back, usage within the choice."""

from collections.abc import Iterator, Sequence
from typing import Any

from tests.providers.provider import USAGE, Answer, Message, Provider
from tests.support.llm_server import LLMRequest, Responder


class Kimi(Provider):
    name = "kimi"

    def make_id(self, answer: Answer, number: int) -> str:
        return f"functions.{answer.tool}:{number}"

    def build_fields(self, answer: Answer) -> Message:
        return {"reasoning_content": "Let me look."} if answer.tool else {}

    def iter_events(
        self, answer: Answer, calls: Sequence[Message], fields: Message, reason: str
    ) -> Iterator[dict[str, Any]]:
        *events, _ = super().iter_events(answer, calls, fields, reason)
        events[-1]["choices"][0]["usage"] = USAGE
        yield from events

    def refuse_overflow(self, request: LLMRequest) -> Responder:
        limit = self.window_tokens
        return self.refuse(400, f"Invalid request: Your request exceeded model token limit: {limit}")
