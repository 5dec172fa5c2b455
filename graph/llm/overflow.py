"""Recognise the refusal of a request that is too large, and read the sizes that it names."""

import re
from typing import NamedTuple

from graph.llm.refusals import Refusal


class Overflow(NamedTuple):
    """The sizes in tokens, as the service counts them; 0 if it does not say them."""

    limit: int = 0
    """The most that the model takes: of the prompt, or of prompt and answer together."""
    counted: int = 0
    """The size of the request."""


_NAMES = (
    "contextlengthexceeded",  # OpenAI, and most services that imitate it
    "contextwindowexceeded",  # LiteLLM
    "exceedcontextsize",  # llama.cpp
    "contextexceeded",
    "contextoverflow",
    "maxcontextlength",
    "requesttoolarge",  # Anthropic
)
"""Parts of a code or a type, as `Refusal.names` has them."""

_N = r"(?P<{}>\d[\d,_]*)"
_LIMIT, _COUNTED = _N.format("limit"), _N.format("counted")
_PATTERNS = [
    re.compile(pattern, re.IGNORECASE | re.DOTALL)
    for pattern in (
        # Anthropic
        rf"prompt is too long: {_COUNTED} tokens > {_LIMIT}",
        rf"exceed context limit: {_COUNTED} \+ \d+ > {_LIMIT}",
        # Gemini: the count may be missing
        rf"token count(?: of)?(?: \(?{_COUNTED}\)?)? exceeds the (?:maximum number of tokens allowed|limit of) "
        rf"\(?{_LIMIT}",
        # llama.cpp, llama-cpp-python, and their relatives
        rf"\({_COUNTED} tokens\) exceeds the available context size \({_LIMIT}",
        rf"tokens \({_COUNTED}\) exceeds? (?:the )?context (?:window|size)(?: of)? \(?{_LIMIT}",
        # a rate of tokens in a minute that one request exceeds, on OpenAI and Groq: waiting does not help
        rf"request too large\b.{{0,300}}?\blimit:? {_LIMIT}, requested:? {_COUNTED}",
        # SGLang, vLLM for embeddings and prompts
        rf"(?:\(|length |length of ){_COUNTED}(?: tokens)?\)? is longer than the "
        rf"(?:model's context length|maximum model length)(?: of)? \(?{_LIMIT}",
        # Mistral
        rf"prompt contains {_COUNTED} tokens.{{0,60}}?too large for model with {_LIMIT}",
        # Together
        rf"(?:prompt|input) is too long: {_COUNTED}, .{{0,40}}?context length:? {_LIMIT}",
        # Moonshot
        rf"exceeded model token limit: {_LIMIT}(?: \(requested: {_COUNTED})?",
        # Cerebras
        rf"current length is {_COUNTED} while limit is {_LIMIT}",
        # text-generation-inference
        rf"must (?:be <=|have less than) {_LIMIT}(?: tokens)?\. given: {_COUNTED}",
        # older vLLM
        rf"passed {_COUNTED} input tokens.{{0,120}}?context length is only {_LIMIT}",
        # GPT-5, xAI, OpenAI, vLLM, DeepSeek, OpenRouter, LM Studio: the limit, then perhaps the size
        rf"(?:configured limit of|(?:maximum|max|model's|model) (?:context|prompt|model|input) length (?:is|of)|"
        rf"context length (?:of|is)) (?:only )?\(?{_LIMIT}(?: tokens)?"
        rf"(?:.{{0,120}}?(?:requested(?: a total of)?|resulted in|passed|contains?(?: at least)?|has)(?: about)? "
        rf"{_COUNTED}(?: input)? tokens)?",
        rf"input length \({_COUNTED}\) exceeds .{{0,40}}?context length \({_LIMIT}",
        rf"range of input length should be \[\d+, {_LIMIT}",  # Qwen at DashScope
        # no numbers, or numbers in fields of their own
        r"(?:prompt|input|request|conversation|messages?) (?:is|are) too (?:long|large)",
        r"(?:prompt|payload|request entity|request body|request) too (?:long|large)",
        r"messages\[\d+\]\.content.{0,20}string too long|prompt exceeds max(?:imum)? length",
        r"exceed(?:s|ed|ing)?\b.{0,40}?\b(?:context (?:window|length|size|limit)|token limit|maximum prompt length)",
        r"context (?:window|length|size)\b.{0,30}?\bexceed",
        r"(?:longer|greater|larger) than the (?:\w+ )?context (?:window|length|size)",
        r"too many tokens: size limit exceeded|reduce the length of the (?:messages|prompt|input)",
    )
]
"""The words of services. The first pattern that is found counts, so patterns with two numbers come first."""
_LARGE_FOR_RATE = re.compile(r"request too large", re.IGNORECASE)


def find_overflow(refusal: Refusal) -> Overflow | None:
    """Return the sizes if the refusal says that the request is too large; None if it says something else."""
    if refusal.status in (401, 402, 403, 404) or (
        refusal.status == 429 and not _LARGE_FOR_RATE.search(refusal.message)
    ):
        return None
    match = next(filter(None, (pattern.search(refusal.message) for pattern in _PATTERNS)), None)
    is_named = any(name in refusal.names for name in _NAMES) or "ContextWindowExceededError" in refusal.message
    if not match and not is_named and refusal.status != 413 and not refusal.context_tokens:
        return None
    sizes = match.groupdict() if match else {}
    return Overflow(
        refusal.context_tokens or _parse_size(sizes.get("limit")),
        refusal.counted_tokens or _parse_size(sizes.get("counted")),
    )


def _parse_size(digits: str | None) -> int:
    return int(re.sub("[,_]", "", digits)[:12]) if digits else 0
