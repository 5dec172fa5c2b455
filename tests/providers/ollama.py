"""Ollama: each call whole in one piece. It has no overflow: what does not fit, it leaves out without a word."""

from collections.abc import Iterator, Sequence
from typing import Any

from tests.providers.provider import USAGE, Answer, Message, Provider
from tests.support.llm_server import build_delta


class Ollama(Provider):
    name = "ollama"
    window_tokens = 10**9

    def make_id(self, answer: Answer, number: int) -> str:
        return f"call_{number:08x}"

    def build_fields(self, answer: Answer) -> Message:
        return {"reasoning": "I read it."} if answer.tool else {}

    def iter_events(
        self, answer: Answer, calls: Sequence[Message], fields: Message, reason: str
    ) -> Iterator[dict[str, Any]]:
        yield from (build_delta(role="assistant", content="", **{name: value}) for name, value in fields.items())
        for index, call in enumerate(calls):
            yield build_delta(role="assistant", content="", tool_calls=[{**call, "index": index}])
        yield build_delta(role="assistant", content=answer.text)
        yield build_delta(finish_reason=reason, role="assistant", content="")
        yield {"object": "chat.completion.chunk", "choices": [], "usage": USAGE}
