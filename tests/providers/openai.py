"""OpenAI's reasoning models: no temperature but 1, no `parallel_tool_calls`."""

from tests.providers.provider import Provider
from tests.support.llm_server import LLMRequest, Responder


class OpenAI(Provider):
    name = "openai"

    def find_refusal(self, request: LLMRequest) -> tuple[str, Responder] | None:
        if request.body.get("temperature", 1) != 1:
            sentence = "Unsupported value: 'temperature' does not support 0.3 with this model. Only the default (1)"
            return "temperature", self.refuse(
                400, f"{sentence} value is supported.", param="temperature", code="unsupported_value"
            )
        if "parallel_tool_calls" in request.body:
            sentence = "Unsupported parameter: 'parallel_tool_calls' is not supported with this model."
            return "parallel_tool_calls", self.refuse(
                400, sentence, param="parallel_tool_calls", code="unsupported_parameter"
            )
        return None
