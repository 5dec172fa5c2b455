"""A Mistral model on llama.cpp's server: its template fails for roles that do not alternate, with status 500."""

import json

from tests.providers.provider import Provider
from tests.support.history_rules import RULES
from tests.support.llm_server import LLMRequest, Responder, respond_status


class LlamaCpp(Provider):
    name = "llama.cpp"
    rule = "openai"

    def find_refusal(self, request: LLMRequest) -> tuple[str, Responder] | None:
        if fault := RULES["mistral"](request.body["messages"]):
            error = {"code": 500, "message": f"Jinja Exception: {fault}", "type": "server_error"}
            return fault, respond_status(500, json.dumps({"error": error}).encode())
        return None

    def refuse_overflow(self, request: LLMRequest) -> Responder:
        error = {
            "code": 400,
            "message": "the request exceeds the available context size, try increasing it",
            "type": "exceed_context_size_error",
            "n_prompt_tokens": self.count_tokens(request),
            "n_ctx": self.window_tokens,
        }
        return respond_status(400, json.dumps({"error": error}).encode())
