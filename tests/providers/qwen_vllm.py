"""Qwen on vLLM: blank lines before each call, a thought of which only the end tag is sent."""

from tests.providers.provider import Answer, Provider
from tests.support.llm_server import LLMRequest, Responder


class QwenOnVLLM(Provider):
    name = "qwen on vllm"

    def make_id(self, answer: Answer, number: int) -> str:
        return f"chatcmpl-tool-{number:032x}"

    def build_text(self, answer: Answer) -> str:
        return f"I think about it.\n</think>\n\n{answer.text}"

    def refuse_overflow(self, request: LLMRequest) -> Responder:
        limit = self.window_tokens
        message = f"This model's maximum context length is {limit} tokens. However, your request has more input tokens."
        return self.refuse(
            400, f"{message} Please reduce the length of the input messages.", type="BadRequestError", code=400
        )
