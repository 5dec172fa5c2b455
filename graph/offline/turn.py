"""How the offline model gets through a turn: it tells a story anew up to the first call that has no result yet.

A story is a generator: it yields the calls it wants made, is sent what came of each, and returns its last words. A call
that failed is raised inside it, so that a story tells the good course only.
"""

import json
import re
from collections.abc import Generator
from typing import Any, NamedTuple

from prompts import AGENTS


class StoryCall(NamedTuple):
    name: str
    args: dict[str, Any]
    comment: str = ""
    """What stands beside the call."""

    @property
    def is_handoff(self) -> bool:
        return self.name == "switch_mode"


class CallResult(NamedTuple):
    call: StoryCall
    content: str
    is_error: bool = False

    @property
    def is_denied(self) -> bool:
        """Whether the gate refused it, and not the user or the world."""
        return self.is_error and not re.search(r"^Error: |reject|отклонен", self.content)

    @property
    def text(self) -> str:
        """The result as text, out of the JSON that an IDE may wrap it in."""
        said = re.sub(r"^The user edited the arguments[^\n]*\n", "", self.content)
        try:
            return _flatten_output(json.loads(said))
        except ValueError:
            return said


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
    def __init__(self, result: CallResult) -> None:
        super().__init__(result.content)
        self.result = result


Story = Generator[StoryCall, CallResult, str]


class Turn(NamedTuple):
    request: str
    tools: frozenset[str]
    results: list[CallResult]

    def localize(self, english: str, russian: str) -> str:
        return russian if re.search("[а-яё]", self.request, re.IGNORECASE) else english

    def can_switch(self, to: str) -> bool:
        return "switch_mode" in self.tools and set(AGENTS[to].tools) != self.tools


def advance_story(turn: Turn, agent: str, story: Story) -> StoryCall | str:
    """The turn's next call, or its last words. `agent` is the one who can do all of the story."""
    past = _drop_stale_failures(turn.results)
    try:
        call = next(story)
        while done := _pop_result(turn, call, past):
            call = story.throw(CallFailed(done)) if done.is_error else story.send(done)
    except StopIteration as end:
        return str(end.value)
    except CallFailed as failure:
        return _handle_failure(turn, failure.result)
    return call if call.name in turn.tools else _hand_off(turn, agent, call.name)


def _drop_stale_failures(results: list[CallResult]) -> list[CallResult]:
    """Whoever takes over tries again what the one before was not let do."""
    switched = max((i for i, each in enumerate(results) if each.call.is_handoff and not each.is_error), default=0)
    return [each for i, each in enumerate(results) if i >= switched or not each.is_error]


def _pop_result(turn: Turn, call: StoryCall, past: list[CallResult]) -> CallResult | None:
    """What came of a call, taken out of the past. A hand-over to where the conversation is needs no call."""
    for i, done in enumerate(past):
        if done.call.name == call.name and (not call.is_handoff or done.call.args.get("mode") == call.args["mode"]):
            del past[: i + 1]
            return done
    return CallResult(call, "") if call.is_handoff and not turn.can_switch(call.args["mode"]) else None


def _hand_off(turn: Turn, agent: str, tool: str) -> StoryCall | str:
    tried = any(each.call.is_handoff for each in turn.results)
    if tried or not turn.can_switch(agent):
        return turn.localize(f"I cannot do that here: I have no {tool}.", f"Здесь я этого не могу: у меня нет {tool}.")
    request = turn.request[:200]
    reason = turn.localize(f"This needs {tool}: {request}", f"Для этого нужен {tool}: {request}")
    return StoryCall("switch_mode", {"mode": agent, "reason": reason})


def _handle_failure(turn: Turn, failed: CallResult) -> StoryCall | str:
    if failed.is_denied and not failed.call.is_handoff and turn.can_switch("coder"):
        told = turn.localize(f"I was refused: {failed.content}", f"Мне отказано: {failed.content}")
        return StoryCall("switch_mode", {"mode": "coder", "reason": failed.content}, told)
    return turn.localize(f"I leave it at that. {failed.content}", f"На этом останавливаюсь. {failed.content}")
