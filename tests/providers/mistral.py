"""Mistral's own service: ids of nine characters, roles that alternate, no field that it does not know."""

import json
import re

from tests.providers.provider import Answer, Provider
from tests.support.llm_server import LLMRequest, Responder, respond_status

ID = re.compile(r"[a-zA-Z0-9]{9}")
KNOWN_FIELDS = {
    *("model", "messages", "stream", "tools", "tool_choice", "parallel_tool_calls", "temperature", "max_tokens"),
    *("top_p", "stop", "random_seed", "response_format", "safe_prompt", "n"),
}


class Mistral(Provider):
    name = "mistral"
    rule = "mistral"
    cut_reason = "model_length"

    def find_refusal(self, request: LLMRequest) -> tuple[str, Responder] | None:
        if unknown := sorted(request.body.keys() - KNOWN_FIELDS):
            detail = [{"type": "extra_forbidden", "loc": ["body", unknown[0]], "msg": "Extra inputs are not permitted"}]
            body = {"object": "error", "message": {"detail": detail}, "type": "invalid_request_error"}
            return unknown[0], respond_status(422, json.dumps(body).encode())
        ids = [call["id"] for message in request.body["messages"] for call in message.get("tool_calls") or []]
        if wrong := [each for each in ids if not ID.fullmatch(each)]:
            sentence = f"Tool call id was {wrong[0]} but must be a-z, A-Z, 0-9, with a length of 9."
            return sentence, self.refuse(400, sentence)
        return None

    def make_id(self, answer: Answer, number: int) -> str:
        return f"aB3dE{number:04d}"

    def refuse_overflow(self, request: LLMRequest) -> Responder:
        used, limit = self.count_tokens(request), self.window_tokens
        message = f"Prompt contains {used} tokens and 0 draft tokens, too large for model with {limit} maximum context"
        body = {"object": "error", "message": f"{message} length", "type": "invalid_request_prompt", "code": "3051"}
        return respond_status(400, json.dumps(body).encode())
