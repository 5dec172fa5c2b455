"""Build the usage of one model call: reported by the model's service, or estimated."""

from collections.abc import Callable
from typing import Literal

from langchain_core.messages import AIMessage
from langchain_core.messages.ai import UsageMetadata

from graph import wire
from graph.usage.tokens import estimate_tokens

Purpose = Literal["answer", "classification", "speculation", "summary", "title"]
"""The purpose of a model call. A speculation is an answer that was started and dropped."""


def build_usage(
    usage: UsageMetadata | None, *, agent: str, purpose: Purpose, model: str = "", estimated: bool = False
) -> wire.Usage:
    """Return the usage of one call. `agent` is the agent that it was made for, `model` the model if it is known."""
    counts = usage or build_usage_metadata(0, 0)
    return wire.Usage(
        prompt_tokens=counts["input_tokens"],
        cached_tokens=counts.get("input_token_details", {}).get("cache_read", 0),
        completion_tokens=counts["output_tokens"],
        total_tokens=counts["total_tokens"],
        model_calls=1,
        estimated_calls=1 if estimated else None,
        metadata={"agent": agent, "purpose": purpose, "model": model},
    )


def usage_of(answer: AIMessage, estimate_sent: Callable[[], int], *, agent: str, purpose: Purpose) -> wire.Usage:
    """Return the usage of an answered call.

    `estimate_sent` returns the tokens of the prompt. It is called only if the model's service reports no usage.
    """
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
