"""The rules of model services for the messages of a request, as their public pages state them.

Each function returns the first fault that the service would answer with a refusal; None: it accepts the messages. They
know no code of the product. Messages are those of an OpenAI request, system prompt included.

Sources: OpenAI, "Chat Completions API reference", "Function calling guide". Anthropic, "Messages API reference", "How
to implement tool use", "Handling tool results", behind LiteLLM, "Anthropic provider". Mistral AI, "Function calling",
the request validator of mistral-common, and the chat templates of Mistral and Devstral models. Google, "Gemini API:
function calling", "Troubleshooting guide". Google, "Gemma formatting and system instructions", with the results of
tools in messages of the user, as llama.cpp writes them for a template without tools.
"""

import json
import re
from collections.abc import Callable, Iterator, Sequence
from itertools import groupby, pairwise
from typing import Any

Message = dict[str, Any]

FUNCTION_NAME = re.compile(r"[A-Za-z0-9_-]{1,64}")


def find_openai_fault(messages: Sequence[Message]) -> str | None:
    return next(_iter_openai_faults(messages), None)


def _iter_openai_faults(messages: Sequence[Message]) -> Iterator[str]:
    waiting: list[str] = []
    for message in messages:
        if message["role"] == "tool":
            if message["tool_call_id"] not in waiting:
                yield "a tool message is no response to the tool calls before it"
            waiting = [call_id for call_id in waiting if call_id != message["tool_call_id"]]
            continue
        if waiting:
            yield f"these tool calls have no response: {waiting}"
        waiting = [call["id"] for call in _get_calls(message)]
        if message["role"] not in ("system", "user", "assistant"):
            yield f"no role: {message['role']}"
        if not isinstance(message.get("content"), str) and not waiting:
            yield f"a message without content: {message}"
        for call in _get_calls(message):
            if not FUNCTION_NAME.fullmatch(call["function"]["name"]) or call["type"] != "function":
                yield f"no function: {call}"
            if not isinstance(json.loads(call["function"]["arguments"]), dict):
                yield f"arguments that are no object: {call}"
    if waiting:
        yield f"these tool calls have no response: {waiting}"


def find_anthropic_fault(messages: Sequence[Message]) -> str | None:
    """LiteLLM takes the system prompt out, and makes one turn of neighbours of one side; results are the user's."""
    return next(_iter_anthropic_faults(messages), None)


def _iter_anthropic_faults(messages: Sequence[Message]) -> Iterator[str]:
    if [message["role"] for message in messages].count("system") != 1 or messages[0]["role"] != "system":
        yield "one system prompt, before all messages"
    turns = [(side, [*group]) for side, group in groupby(messages[1:], _get_side)]
    if not turns or turns[0][0] != "user":
        yield "the first message is not the user's"
    if turns and turns[-1][0] != "user":
        yield "the last message is not the user's: this model continues no answer"
    yield from ("a text of nothing but white space" for m in messages if _has_blank_text(m))
    used: set[str] = set()
    for (_, before), (role, turn) in pairwise([("user", []), *turns]):
        uses = [call["id"] for message in before for call in _get_calls(message)]
        results = [message["tool_call_id"] for message in turn if message["role"] == "tool"]
        if role == "user" and sorted(uses) != sorted(results):
            yield f"tool_use ids without tool_result blocks immediately after: {uses}, {results}"
        if [message["role"] for message in turn] != sorted(message["role"] for message in turn):
            yield "a text before a tool_result"
        if len({*uses} - used) < len(uses):
            yield f"tool_use ids must be unique: {uses}"
        used |= {*uses}


def _has_blank_text(message: Message) -> bool:
    """Return whether a text block has only white space. A result may be empty, and LiteLLM drops an empty text."""
    content = message["content"] or ""
    return not content.strip() and (bool(content) or not (_get_calls(message) or message["role"] == "tool"))


def find_mistral_fault(messages: Sequence[Message]) -> str | None:
    return next(_iter_mistral_faults(messages), None)


def _iter_mistral_faults(messages: Sequence[Message]) -> Iterator[str]:
    roles = [message["role"] for message in messages]
    counted = [m["role"] for m in messages if m["role"] != "tool" and not _get_calls(m)]
    counted = counted[1:] if roles[:1] == ["system"] else counted
    if counted != [("user", "assistant")[place % 2] for place in range(len(counted))]:
        yield f"conversation roles must alternate user and assistant, but for tool calls and results: {counted}"
    if roles[-1:] not in (["user"], ["tool"]):
        yield f"expected last role user or tool, but got {roles[-1:]}"
    yield from (
        f"unexpected role {role!r} after role {before!r}"
        for before, role in pairwise(roles)
        if role not in MISTRAL_NEXT_ROLES[before]
    )
    if sum(len(_get_calls(message)) for message in messages) != roles.count("tool"):
        yield "not the same number of function calls and responses"
    yield from (
        "an assistant message with neither content nor tool calls"
        for message in messages
        if message["role"] == "assistant" and not message["content"] and not _get_calls(message)
    )


MISTRAL_NEXT_ROLES = {
    "system": {"user"},
    "user": {"assistant"},
    "assistant": {"user", "tool"},
    "tool": {"assistant", "tool"},
}
"""The roles that may follow a role. Versions of the validator differ; these are the ones that all of them allow."""


def find_gemini_fault(messages: Sequence[Message]) -> str | None:
    return next(_iter_gemini_faults(messages), None)


def _iter_gemini_faults(messages: Sequence[Message]) -> Iterator[str]:
    """Look at the turns: those of the model are single messages, function responses in a row are one turn."""
    turns = [(kind, [*group]) for kind, group in groupby(messages[1:], _get_gemini_kind)]
    if not turns or turns[-1][0] not in ("user", "responses"):
        yield "the request does not end with a user turn or function responses"
    start: tuple[str, list[Message]] = ("", [])
    for (before, earlier), (kind, turn) in pairwise([start, *turns]):
        if kind == "calls" and (before not in ("user", "responses") or len(turn) > 1):
            yield "a function call turn comes immediately after a user turn or after a function response turn"
        if kind == "responses" and (before != "calls" or len(turn) != len(_get_calls(earlier[-1]))):
            yield "the number of function response parts equals the function call parts of the function call turn"
        if kind in ("user", "model") and not all(message["content"].strip() for message in turn):
            yield "a content without a part"


def _get_gemini_kind(message: Message) -> str:
    return "calls" if _get_calls(message) else {"tool": "responses", "assistant": "model"}.get(message["role"], "user")


def find_gemma_fault(messages: Sequence[Message]) -> str | None:
    roles = [_get_side(m) for before, m in pairwise(messages) if {before["role"], m["role"]} != {"tool"}]
    alternating = [("user", "assistant")[place % 2] for place in range(len(roles))]
    return None if roles == alternating else f"conversation roles must alternate user and assistant: {roles}"


def _get_side(message: Message) -> str:
    return "assistant" if message["role"] == "assistant" else "user"


def _get_calls(message: Message) -> list[dict[str, Any]]:
    return message.get("tool_calls") or []


RULES: dict[str, Callable[[Sequence[Message]], str | None]] = {
    "openai": find_openai_fault,
    "anthropic": find_anthropic_fault,
    "mistral": find_mistral_fault,
    "gemini": find_gemini_fault,
    "gemma": find_gemma_fault,
}


def find_faults(messages: Sequence[Message]) -> dict[str, str]:
    """Return the fault that each service finds, by its name; empty: all of them accept the messages."""
    return {name: fault for name, rule in RULES.items() if (fault := rule(messages))}
