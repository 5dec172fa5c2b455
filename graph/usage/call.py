"""What a model call costs, as the graph tells it."""

from collections.abc import Callable
from typing import Literal

from langchain_core.messages import AIMessage
from langchain_core.messages.ai import UsageMetadata

from graph import wire
from graph.usage.tokens import estimate_tokens

Purpose = Literal["answer", "classification", "speculation", "summary", "title"]
"""What a model was asked for; a speculation is an answer that was begun and dropped."""


def build_usage(
    usage: UsageMetadata | None, *, agent: str, purpose: Purpose, model: str = "", estimated: bool = False
) -> wire.Usage:
    """Of one call. `agent`: whom it was made for; `model`: who answered, if that is known."""
    counted = usage or build_usage_metadata(0, 0)
    return wire.Usage(
        prompt_tokens=counted["input_tokens"],
        cached_tokens=counted.get("input_token_details", {}).get("cache_read", 0),
        completion_tokens=counted["output_tokens"],
        total_tokens=counted["total_tokens"],
        model_calls=1,
        estimated_calls=1 if estimated else None,
        metadata={"agent": agent, "purpose": purpose, "model": model},
    )


def usage_of(answer: AIMessage, estimate_sent: Callable[[], int], *, agent: str, purpose: Purpose) -> wire.Usage:
    """Of a call that was answered; `sent`: about how many tokens it sent, asked if the model's service does not say."""
    model = str(answer.response_metadata.get("model_name") or "")
    usage = answer.usage_metadata
    if usage and usage["total_tokens"]:
        return build_usage(usage, agent=agent, purpose=purpose, model=model)
    return build_usage(
        build_usage_metadata(estimate_sent(), estimate_tokens(answer, with_envelope=False)),
        agent=agent,
        purpose=purpose,
        model=model,
        estimated=True,
    )


def build_usage_metadata(input_tokens: int, output_tokens: int) -> UsageMetadata:
    return UsageMetadata(
        input_tokens=input_tokens, output_tokens=output_tokens, total_tokens=input_tokens + output_tokens
    )
