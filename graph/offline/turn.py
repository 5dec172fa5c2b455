"""How the offline model gets through a turn: it tells a story anew up to the first call that has no result yet.

A story is a generator: it yields the calls it wants made, is sent what came of each, and returns its last words. A call
that failed is raised inside it, so that a story tells the good course only.
"""

import json
import re
from collections.abc import Generator
from typing import Any, NamedTuple

from prompts import AGENTS


class Call(NamedTuple):
    name: str
    args: dict[str, Any]
    saying: str = ""
    """What stands beside the call."""

    @property
    def hands_over(self) -> bool:
        return self.name == "switch_mode"


class Done(NamedTuple):
    call: Call
    said: str
    failed: bool = False

    @property
    def by_rule(self) -> bool:
        """Whether the gate refused it, and not the user or the world."""
        return self.failed and not re.search(r"^Error: |reject|отклонен", self.said)

    @property
    def text(self) -> str:
        """The result as text, out of the JSON that an IDE may wrap it in."""
        said = re.sub(r"^The user edited the arguments[^\n]*\n", "", self.said)
        try:
            return _plain(json.loads(said))
        except ValueError:
            return said


def _plain(found: Any) -> str:
    match found:
        case str():
            return found
        case list():
            return "\n".join(map(_plain, found))
        case {"path": str(path), "line": int(line)}:
            return f"{path}:{line}: {found.get('content') or found.get('text') or ''}".rstrip()
        case {"path": str(name)} | {"name": str(name)} if "content" not in found:
            return name
        case {"matches": list(items)} | {"files": list(items)} | {"entries": list(items)}:
            return _plain(items)
        case {"content": str(text)} | {"output": str(text)}:
            return text
        case {"stdout": str(out), **rest}:
            return f"{out}\n{rest.get('stderr') or ''}".rstrip("\n")
        case _:
            return json.dumps(found, ensure_ascii=False)


class Failed(Exception):
    def __init__(self, done: Done) -> None:
        super().__init__(done.said)
        self.done = done


Story = Generator[Call, Done, str]


class Turn(NamedTuple):
    request: str
    tools: frozenset[str]
    done: list[Done]

    def say(self, english: str, russian: str) -> str:
        return russian if re.search("[а-яё]", self.request, re.IGNORECASE) else english

    def can_switch(self, to: str) -> bool:
        return "switch_mode" in self.tools and set(AGENTS[to].tools) != self.tools


def next_step(turn: Turn, agent: str, story: Story) -> Call | str:
    """The turn's next call, or its last words. `agent` is the one who can do all of the story."""
    past = _still_true(turn.done)
    try:
        call = next(story)
        while done := _outcome(turn, call, past):
            call = story.throw(Failed(done)) if done.failed else story.send(done)
    except StopIteration as end:
        return str(end.value)
    except Failed as failure:
        return _given_up(turn, failure.done)
    return call if call.name in turn.tools else _passed_on(turn, agent, call.name)


def _still_true(done: list[Done]) -> list[Done]:
    """Whoever takes over tries again what the one before was not let do."""
    switched = max((i for i, each in enumerate(done) if each.call.hands_over and not each.failed), default=0)
    return [each for i, each in enumerate(done) if i >= switched or not each.failed]


def _outcome(turn: Turn, call: Call, past: list[Done]) -> Done | None:
    """What came of a call, taken out of the past. A hand-over to where the conversation is needs no call."""
    for i, done in enumerate(past):
        if done.call.name == call.name and (not call.hands_over or done.call.args.get("mode") == call.args["mode"]):
            del past[: i + 1]
            return done
    return Done(call, "") if call.hands_over and not turn.can_switch(call.args["mode"]) else None


def _passed_on(turn: Turn, agent: str, tool: str) -> Call | str:
    tried = any(each.call.hands_over for each in turn.done)
    if tried or not turn.can_switch(agent):
        return turn.say(f"I cannot do that here: I have no {tool}.", f"Здесь я этого не могу: у меня нет {tool}.")
    request = turn.request[:200]
    reason = turn.say(f"This needs {tool}: {request}", f"Для этого нужен {tool}: {request}")
    return Call("switch_mode", {"mode": agent, "reason": reason})


def _given_up(turn: Turn, failed: Done) -> Call | str:
    if failed.by_rule and not failed.call.hands_over and turn.can_switch("coder"):
        told = turn.say(f"I was refused: {failed.said}", f"Мне отказано: {failed.said}")
        return Call("switch_mode", {"mode": "coder", "reason": failed.said}, told)
    return turn.say(f"I leave it at that. {failed.said}", f"На этом останавливаюсь. {failed.said}")
