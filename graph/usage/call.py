"""Build the usage of one model call: reported by the model's service, or estimated."""

from collections.abc import Callable
from typing import Literal

from langchain_core.messages import AIMessage
from langchain_core.messages.ai import UsageMetadata

from graph import wire
from graph.usage.tokens import estimate_text_tokens, estimate_tokens

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


def usage_of(
    answer: AIMessage, estimate_sent: Callable[[], int], *, agent: str, purpose: Purpose, thoughts: str = ""
) -> wire.Usage:
    """Return the usage of an answered call. What the model's service does not report is estimated.

    `estimate_sent` returns the tokens of the prompt. It is called only if the service does not report them. `thoughts`
    belong to the answer, but are no longer in it.
    """
    model = str(answer.response_metadata.get("model_name") or "")
    usage = answer.usage_metadata
    prompt, completion, total = (
        (usage["input_tokens"], usage["output_tokens"], usage["total_tokens"]) if usage else (0, 0, 0)
    )
    estimate = 0 if completion else estimate_tokens(answer, with_envelope=False) + estimate_text_tokens(thoughts)
    if usage and prompt and not estimate:
        return build_usage(usage, agent=agent, purpose=purpose, model=model)
    if total and not (prompt or completion):
        completion = min(estimate, total)
        counts = build_usage_metadata(total - completion, completion)
    else:
        counts = build_usage_metadata(prompt or estimate_sent(), completion or estimate)
        if usage:
            counts["input_token_details"] = usage.get("input_token_details", {})
    return build_usage(counts, agent=agent, purpose=purpose, model=model, estimated=True)


def build_usage_metadata(input_tokens: int, output_tokens: int) -> UsageMetadata:
    return UsageMetadata(
        input_tokens=input_tokens, output_tokens=output_tokens, total_tokens=input_tokens + output_tokens
    )
