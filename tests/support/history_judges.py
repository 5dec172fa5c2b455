"""Judge histories with the code of model services. It runs in a python that has that code, and knows no other module.

    python history_judges.py < histories

Each line is the JSON list of the messages of a request. For each line it prints a JSON object: a judge's name, and the
reason why it refuses the messages. Judges: the request validators of mistral-common; chat templates of Mistral and
Gemma models, which axolotl ships; and the messages that LiteLLM makes for Anthropic and for Gemini.
"""

import json
import sys
from collections.abc import Callable, Iterator
from functools import partial
from importlib import import_module
from importlib.util import find_spec
from itertools import pairwise
from pathlib import Path
from typing import Any

Message = dict[str, Any]
Judge = Callable[[list[Message]], object]
"""Raises an exception for messages that it refuses."""

TOOL_TEMPLATES = ["mistral_v2v3", "mistral_v3_tekken"]
PLAIN_TEMPLATES = ["mistral_v1", "gemma3", "gemma3n"]
"""Templates without tools."""


def build_judges() -> dict[str, Judge]:
    plain = {name: load_template(name) for name in PLAIN_TEMPLATES}
    return {
        **{f"mistral-common {version}": load_validator(version) for version in ("v7", "v11", "v13", "v15")},
        **{name: load_template(name) for name in TOOL_TEMPLATES},
        **{name: partial(render_without_tools, render) for name, render in plain.items()},
        "anthropic": check_anthropic,
        "gemini": check_gemini,
    }


def load_validator(version: str) -> Judge:
    validators = import_module("mistral_common.protocol.instruct.validator")
    versions = import_module("mistral_common.tokens.tokenizers.base").TokenizerVersion
    requests = import_module("mistral_common.protocol.instruct.request").ChatCompletionRequest
    validator = validators.get_validator(versions(version), validators.ValidationMode.serving)
    return lambda messages: validator.validate_messages(requests.from_openai(messages=messages, model="m").messages)


def load_template(name: str) -> Judge:
    spec = find_spec("axolotl")
    folder = Path(next(iter(spec.submodule_search_locations or ()))) if spec else Path()
    text = (folder / "utils/chat_templates/templates" / f"{name}.jinja").read_text()
    environment = import_module("jinja2.sandbox").ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True)
    environment.globals.update(raise_exception=raise_exception, bos_token="<s>", eos_token="</s>")
    template = environment.from_string(text)
    return lambda messages: template.render(messages=messages, tools=None, add_generation_prompt=True)


def render_without_tools(render: Judge, messages: list[Message]) -> None:
    render([*without_tools(messages)])


def raise_exception(message: str) -> None:
    raise ValueError(message)


def without_tools(messages: list[Message]) -> Iterator[Message]:
    """Yield the messages as servers write them for a template without tools: results come from the user."""
    for before, message in pairwise([{"role": ""}, *messages]):
        if message["role"] != "tool":
            yield {"role": message["role"], "content": message["content"] or json.dumps(message.get("tool_calls"))}
        elif before["role"] != "tool":
            yield {"role": "user", "content": message["content"]}


def check_anthropic(messages: list[Message]) -> None:
    factory = import_module("litellm.litellm_core_utils.prompt_templates.factory")
    turns = factory.anthropic_messages_pt(messages[1:], "claude-sonnet-4-5", "anthropic")
    roles = [turn["role"] for turn in turns]
    refuse_unless(roles == [("user", "assistant")[place % 2] for place in range(len(turns))], "roles alternate")
    refuse_unless(roles[-1] == "user", "the last message is the user's")
    expected: list[str] = []
    for turn in turns:
        blocks = turn["content"] if isinstance(turn["content"], list) else [{"type": "text", "text": turn["content"]}]
        results = [block["tool_use_id"] for block in blocks if block["type"] == "tool_result"]
        refuse_unless(sorted(results) == sorted(expected), "tool_result blocks immediately after tool_use")
        kinds = [block["type"] for block in blocks]
        refuse_unless("tool_result" not in kinds[len(results) :], "tool_result blocks come first")
        texts = [block["text"] for block in blocks if block["type"] == "text"]
        refuse_unless(all(text.strip() for text in texts), "text content blocks must contain non-whitespace text")
        expected = [block["id"] for block in blocks if block["type"] == "tool_use"]


def check_gemini(messages: list[Message]) -> None:
    transformation = import_module("litellm.llms.vertex_ai.gemini.transformation")
    turns = transformation.gemini_convert_messages_with_history(messages[1:], "gemini-2.5-pro")
    before: tuple[str, int] = ("", 0)
    for turn in turns:
        parts = turn["parts"]
        calls, responses = (sum(kind in part for part in parts) for kind in ("function_call", "function_response"))
        refuse_unless(bool(parts), "a content has a part")
        refuse_unless(not calls or before[0] == "user", "a call turn comes after a user or a response turn")
        refuse_unless(responses == before[1], "as many responses as calls")
        before = (turn["role"], calls)
    refuse_unless(before[0] == "user" and turns[0]["role"] == "user", "the user has the first and the last turn")


def refuse_unless(condition: bool, rule: str) -> None:
    if not condition:
        raise ValueError(rule)


def judge_messages(encoded: str, judges: dict[str, Judge]) -> dict[str, str]:
    refusals = {}
    for name, judge in judges.items():
        try:
            judge(json.loads(encoded))
        except Exception as error:
            refusals[name] = f"{type(error).__name__}: {error}"[:300]
    return refusals


if __name__ == "__main__":
    known = build_judges()
    for line in sys.stdin:
        sys.stdout.write(f"{json.dumps(judge_messages(line, known))}\n")
