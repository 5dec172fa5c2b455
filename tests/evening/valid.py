"""The rules of a model service, applied to a request without any code of the product."""

import json
import re
from collections.abc import Iterator, Sequence
from typing import Any

BYTES_PER_TOKEN, MESSAGE_OVERHEAD, CALL_OVERHEAD = 3, 8, 16
TOOL_NAME = re.compile(r"[A-Za-z0-9_-]{1,64}")

Message = dict[str, Any]


def find_faults(body: dict[str, Any], budget: int) -> Iterator[str]:
    messages: list[Message] = body["messages"]
    yield from _check_roles([message["role"] for message in messages])
    yield from _check_answers(messages)
    for message in messages:
        yield from _check_content(message)
        yield from (fault for call in _get_tool_calls(message) for fault in _check_call(call))
    if (size := estimate_tokens(body)) > budget:
        yield f"about {size} tokens, with {budget} allowed"


def _check_roles(roles: Sequence[str]) -> Iterator[str]:
    if [*roles[:2]] != ["system", "user"] or roles.count("system") != 1:
        yield f"it begins with {', '.join(roles[:3])}, and has {roles.count('system')} system messages"
    if unknown := {*roles} - {"system", "user", "assistant", "tool"}:
        yield f"roles {unknown}"
    if roles[-1] not in ("user", "tool"):
        yield f"it ends with {roles[-1]}"


def _check_answers(messages: Sequence[Message]) -> Iterator[str]:
    waiting: list[str] = []
    known: set[str] = set()
    for message in messages:
        if message["role"] == "tool":
            if message["tool_call_id"] not in waiting:
                yield f"an answer without its call: {message['tool_call_id']}"
            waiting = [call for call in waiting if call != message["tool_call_id"]]
            continue
        if waiting:
            yield f"no answer to {waiting}"
        waiting = [call["id"] for call in _get_tool_calls(message)]
        if len({*waiting} - known) < len(waiting):
            yield f"an id twice: {waiting}"
        known |= {*waiting}
    if waiting:
        yield f"no answer to {waiting} at the end"


def _check_content(message: Message) -> Iterator[str]:
    content = message["content"]
    if not content and (message["role"] == "tool" or _get_tool_calls(message)):
        return
    if not content or not isinstance(content, str):
        yield f"a {message['role']} message that says {content!r}"


def _check_call(call: dict[str, Any]) -> Iterator[str]:
    function = call["function"]
    if call["type"] != "function" or not call["id"] or not TOOL_NAME.fullmatch(function["name"]):
        yield f"a call that is none: {call}"
    if not isinstance(json.loads(function["arguments"]), dict):
        yield f"arguments that are no object: {function['arguments'][:99]}"


def _get_tool_calls(message: Message) -> list[dict[str, Any]]:
    return message.get("tool_calls") or []


def estimate_tokens(body: dict[str, Any]) -> int:
    """Estimate the tokens of a request, rather too low than too high: the bytes are added up, then divided."""
    texts = [json.dumps(body.get("tools") or [], ensure_ascii=False)]
    around = 0
    for message in body["messages"]:
        texts += [message["content"] or "", message.get("name", ""), message.get("tool_call_id", "")]
        around += MESSAGE_OVERHEAD
        for call in _get_tool_calls(message):
            texts += [call["id"], call["function"]["name"], call["function"]["arguments"]]
            around += CALL_OVERHEAD
    return around + sum(len(text.encode()) for text in texts) // BYTES_PER_TOKEN
