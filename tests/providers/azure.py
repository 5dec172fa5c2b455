"""Azure OpenAI: a deployment's address with its version, a key header of its own, filter results in each chunk."""

from collections.abc import Iterator, Sequence
from typing import Any, ClassVar

from tests.providers.provider import Answer, Message, Provider
from tests.support.llm_server import LLMRequest, Responder, respond_status

FILTERS = {"hate": {"filtered": False, "severity": "safe"}}


class Azure(Provider):
    name = "azure"
    path = "/openai/deployments/gpt/chat/completions?api-version=2025-01-01-preview"
    address_suffix = path
    settings: ClassVar[dict[str, Any]] = {"llm_api_key": "azure-key-0123456789"}

    def find_refusal(self, request: LLMRequest) -> tuple[str, Responder] | None:
        if request.headers.get("api-key") != self.settings["llm_api_key"]:
            body = b'{"error": {"code": "401", "message": "Access denied due to invalid subscription key."}}'
            return "api-key", respond_status(401, body)
        return None

    def iter_events(
        self, answer: Answer, calls: Sequence[Message], fields: Message, reason: str
    ) -> Iterator[dict[str, Any]]:
        yield {"object": "", "choices": [], "prompt_filter_results": [{"prompt_index": 0, **FILTERS}]}
        for event in super().iter_events(answer, calls, fields, reason):
            for choice in event["choices"]:
                choice["content_filter_results"] = FILTERS
            yield event
