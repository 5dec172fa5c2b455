"""DeepSeek in thinking mode: the thoughts of a call come back, comments keep the stream alive."""

from collections.abc import Sequence
from typing import Any

from tests.providers.provider import Answer, Message, Provider
from tests.support.llm_server import encode_sse


class DeepSeek(Provider):
    name = "deepseek"
    address_suffix = ""

    def make_id(self, answer: Answer, number: int) -> str:
        return f"call_{number:02d}_Bb7kKzR"

    def build_fields(self, answer: Answer) -> Message:
        return {"reasoning_content": f"I need {answer.tool}."} if answer.tool else {}

    def encode_stream(self, events: Sequence[dict[str, Any]]) -> bytes:
        return b": keep-alive\n\n" + b"".join(encode_sse(event) + b": keep-alive\n\n" for event in events) + DONE


DONE = b"data: [DONE]\n\n"
