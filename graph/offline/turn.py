"""Advance the story of the offline model's turn: run it again, up to the first call that has no result yet.

A story is a generator. It yields the calls to make, receives the result of each, and returns the answer. A failed call
is raised inside it, so that a story has to describe success only.
"""

import json
import re
from collections.abc import Generator
from typing import Any, NamedTuple

from prompts import AGENTS

MAX_REASON_CHARS = 200
"""Characters of the request that the reason of a hand-off quotes. Chosen, not measured: one line for the reader."""


class StoryCall(NamedTuple):
    """A tool call that a story makes."""

    name: str
    args: dict[str, Any]
    comment: str = ""
    """The text beside the call."""

    @property
    def is_handoff(self) -> bool:
        return self.name == "switch_mode"


class CallResult(NamedTuple):
    """The result of a call."""

    call: StoryCall
    content: str
    is_error: bool = False

    @property
    def is_denied(self) -> bool:
        """Return whether the gate refused the call; a rejection or an error of the tool is something else."""
        return self.is_error and not re.search(r"^Error: |reject|отклонен", self.content)

    @property
    def text(self) -> str:
        """The result as text, taken out of the JSON that an IDE may wrap it in."""
        content = re.sub(r"^The user edited the arguments[^\n]*\n", "", self.content)
        try:
            return _flatten_output(json.loads(content))
        except ValueError:
            return content


def _flatten_output(value: Any) -> str:
    match value:
        case str():
            return value
        case list():
            return "\n".join(map(_flatten_output, value))
        case {"path": str(path), "line": int(line)}:
            return f"{path}:{line}: {value.get('content') or value.get('text') or ''}".rstrip()
        case {"path": str(name)} | {"name": str(name)} if "content" not in value:
            return name
        case {"matches": list(items)} | {"files": list(items)} | {"entries": list(items)}:
            return _flatten_output(items)
        case {"content": str(text)} | {"output": str(text)}:
            return text
        case {"stdout": str(out), **rest}:
            return f"{out}\n{rest.get('stderr') or ''}".rstrip("\n")
        case _:
            return json.dumps(value, ensure_ascii=False)


class CallFailed(Exception):
    """A call whose result is an error."""

    def __init__(self, result: CallResult) -> None:
        super().__init__(result.content)
        self.result = result


Story = Generator[StoryCall, CallResult, str]


class Turn(NamedTuple):
    """The user's last request, the agent's tools, and the results so far."""

    request: str
    tools: frozenset[str]
    results: list[CallResult]

    def localize(self, english: str, russian: str) -> str:
        """Return the text in the language of the request."""
        return russian if re.search("[а-яё]", self.request, re.IGNORECASE) else english

    def can_switch(self, to: str) -> bool:
        """Return whether the agent may hand over to another one. An agent is recognised by its tools."""
        return "switch_mode" in self.tools and set(AGENTS[to].tools) != self.tools


def advance_story(turn: Turn, agent: str, story: Story) -> StoryCall | str:
    """Return the turn's next call, or its answer. `agent` has all tools that the story needs."""
    results = _drop_stale_failures(turn.results)
    try:
        call = next(story)
        while result := _pop_result(turn, call, results):
            call = story.throw(CallFailed(result)) if result.is_error else story.send(result)
    except StopIteration as end:
        return str(end.value)
    except CallFailed as failure:
        return _handle_failure(turn, failure.result)
    return call if call.name in turn.tools else _hand_off(turn, agent, call.name)


def _drop_stale_failures(results: list[CallResult]) -> list[CallResult]:
    """Return the results without the errors before the last hand-off: the next agent tries those calls again."""
    switched = max((i for i, each in enumerate(results) if each.call.is_handoff and not each.is_error), default=0)
    return [each for i, each in enumerate(results) if i >= switched or not each.is_error]


def _pop_result(turn: Turn, call: StoryCall, results: list[CallResult]) -> CallResult | None:
    """Remove the result of a call from `results` and return it; None if it has none yet.

    A hand-off to the agent that already holds the conversation needs no call; its result is empty.
    """
    for i, result in enumerate(results):
        if result.call.name == call.name and (not call.is_handoff or result.call.args.get("mode") == call.args["mode"]):
            del results[: i + 1]
            return result
    return CallResult(call, "") if call.is_handoff and not turn.can_switch(call.args["mode"]) else None


def _hand_off(turn: Turn, agent: str, tool: str) -> StoryCall | str:
    """Return a hand-off to the agent that has the tool, or an answer if that is impossible or was tried before."""
    was_tried = any(each.call.is_handoff for each in turn.results)
    if was_tried or not turn.can_switch(agent):
        return turn.localize(f"I cannot do that here: I have no {tool}.", f"Здесь я этого не могу: у меня нет {tool}.")
    request = turn.request[:MAX_REASON_CHARS]
    reason = turn.localize(f"This needs {tool}: {request}", f"Для этого нужен {tool}: {request}")
    return StoryCall("switch_mode", {"mode": agent, "reason": reason})


def _handle_failure(turn: Turn, failed: CallResult) -> StoryCall | str:
    """Return a hand-off to the coder for a call that the gate refused, or an answer."""
    if failed.is_denied and not failed.call.is_handoff and turn.can_switch("coder"):
        comment = turn.localize(f"I was refused: {failed.content}", f"Мне отказано: {failed.content}")
        return StoryCall("switch_mode", {"mode": "coder", "reason": failed.content}, comment)
    return turn.localize(f"I leave it at that. {failed.content}", f"На этом останавливаюсь. {failed.content}")
