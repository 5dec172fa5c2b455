"""What a model call costs, as the graph tells it."""

from typing import Literal

from langchain_core.messages.ai import UsageMetadata

from graph import wire

Purpose = Literal["answer", "classification", "speculation", "summary", "title"]
"""What a model was asked for; a speculation is an answer that was begun and dropped."""


def spent(usage: UsageMetadata | None, *, agent: str, purpose: Purpose, model: str = "") -> wire.Usage:
    """Of one call. `agent`: whom it was made for; `model`: who answered, if that is known."""
    counted = usage or UsageMetadata(input_tokens=0, output_tokens=0, total_tokens=0)
    return wire.Usage(
        prompt_tokens=counted["input_tokens"],
        cached_tokens=counted.get("input_token_details", {}).get("cache_read", 0),
        completion_tokens=counted["output_tokens"],
        total_tokens=counted["total_tokens"],
        model_calls=1,
        metadata={"agent": agent, "purpose": purpose, "model": model},
    )
