"""CodeLab's own proxy: its stream has text only, always ends with `stop`, and has no usage. Its errors are texts."""

from collections.abc import Iterator, Sequence
from typing import Any

from tests.providers.provider import Answer, Message, Provider, split_text
from tests.support.llm_server import LLMRequest, Responder, build_delta, encode_sse, respond_raw


class CodeLab(Provider):
    name = "codelab"
    address_suffix = ""

    def respond(self, answer: Answer, request: LLMRequest) -> Responder:
        """Lose a streamed call. The request is repeated without a stream, and gets the same answer."""
        if request.is_streaming and answer.tool:
            self.answers.insert(0, answer)
            return respond_raw(encode_sse(build_delta(finish_reason="stop"), done=True))
        return super().respond(answer, request)

    def iter_events(
        self, answer: Answer, calls: Sequence[Message], fields: Message, reason: str
    ) -> Iterator[dict[str, Any]]:
        yield from (build_delta(content=piece) for piece in split_text(answer.text))
        yield build_delta(finish_reason="stop")

    def refuse_overflow(self, request: LLMRequest) -> Responder:
        text = "[Error] LiteLLM proxy stream unavailable: Client error '400 Bad Request'"
        return respond_raw(encode_sse(build_delta(content=text), build_delta(finish_reason="stop"), done=True))
