"""Claude behind LiteLLM: signed thoughts that come back, results right behind their calls, no blank text."""

import json

from tests.providers.provider import Answer, Message, Provider
from tests.support.llm_server import LLMRequest, Responder, respond_status


class Anthropic(Provider):
    name = "anthropic"
    rule = "anthropic"

    def make_id(self, answer: Answer, number: int) -> str:
        return f"toolu_01{number:022d}"

    def build_fields(self, answer: Answer) -> Message:
        if not answer.tool:
            return {}
        block = {"type": "thinking", "thinking": "The user wants the file.", "signature": "Erk/+="}
        return {"reasoning_content": "The user wants the file.", "thinking_blocks": [block]}

    def refuse_overflow(self, request: LLMRequest) -> Responder:
        used, limit = self.count_tokens(request), self.window_tokens
        inner = {
            "type": "error",
            "error": {
                "type": "invalid_request_error",
                "message": f"prompt is too long: {used} tokens > {limit} maximum",
            },
        }
        message = f"litellm.ContextWindowExceededError: AnthropicError - {json.dumps(inner)}"
        return respond_status(400, json.dumps({"error": {"message": message, "type": None, "code": "400"}}).encode())
