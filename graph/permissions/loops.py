"""Whether an agent goes round in circles: the same call, or the same two agents handing on, a third time in a turn.

A call that may change something and was not made before in the turn is progress, and counting starts anew: whoever
edits, runs the tests and edits again is at work. Pure.
"""

import json
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

from langchain_core.messages import AIMessage, AnyMessage, ToolMessage
from langchain_core.messages import ToolCall as RequestedCall

from graph.marks import is_aside, is_refused, is_rejected

REPEAT_LIMIT = 3


class DetectedLoop(NamedTuple):
    call: RequestedCall
    agents: tuple[str, str] | None = None
    """Who hand the work back and forth, if that is what is repeated."""

    @property
    def question(self) -> str:
        if self.agents:
            one, other = self.agents
            return f"{one} and {other} hand this back and forth without getting on. How should it go on?"
        arguments = json.dumps(self.call["args"], ensure_ascii=False)
        shown = arguments if len(arguments) <= 200 else f"{arguments[:200]}..."
        return (
            f"I was about to call {self.call['name']} a third time with {shown}, and nothing new was done in between. "
            "How should I go on?"
        )

    @property
    def metadata(self) -> dict[str, Any]:
        """The metadata of the question."""
        what = {"agents": [*self.agents]} if self.agents else {"tool_name": self.call["name"]}
        return {"question": True, "suggestions": SUGGESTIONS, "repeated": {**what, "times": REPEAT_LIMIT}}


SUGGESTIONS = ["Go on.", "Try another way.", "Stop here, and say what you found."]

IsMutating = Callable[[str, RequestedCall], bool]
"""Whether a call of an agent may change something."""


def detect_loop(
    messages: Sequence[AnyMessage], new_calls: Sequence[RequestedCall], is_mutating: IsMutating
) -> DetectedLoop | None:
    """The first of the calls `asked` last that comes a third time since anything new was done."""
    turn = _current_turn(messages)
    made = [*_iterate_calls(turn)]
    if max(Counter(sign for each in made for sign in _call_signatures(*each)).values(), default=0) < REPEAT_LIMIT:
        return None
    idle = {message.tool_call_id for message in turn if isinstance(message, ToolMessage) and _was_skipped(message)}
    mine = {call["id"] for call in new_calls}
    counted: Counter[str] = Counter()
    known: set[str] = set()
    for agent, call in made:
        signs = _call_signatures(agent, call)
        if signs[0] not in known and call["id"] not in idle and is_mutating(agent, call):
            counted.clear()
        known.add(signs[0])
        counted.update(signs)
        if call["id"] in mine and (found := next((sign for sign in signs if counted[sign] >= REPEAT_LIMIT), None)):
            return DetectedLoop(call, None if found == signs[0] else _agent_pair(agent, call))
    return None


def _current_turn(messages: Sequence[AnyMessage]) -> Sequence[AnyMessage]:
    """What was said since the user's last message."""
    return messages[next((n for n in range(len(messages), 0, -1) if messages[n - 1].type == "human"), 0) :]


def _iterate_calls(turn: Sequence[AnyMessage]) -> Iterator[tuple[str, RequestedCall]]:
    """Its calls, and who made them."""
    for message in turn:
        if isinstance(message, AIMessage) and not is_aside(message):
            for call in message.tool_calls:
                yield message.name or "", call


def _call_signatures(agent: str, call: RequestedCall) -> list[str]:
    """What it is recognised by: itself, and for a hand-off the two whom it is between."""
    given = {name: value for name, value in call["args"].items() if value is not None}
    itself = json.dumps([call["name"], given], sort_keys=True)
    return [itself, json.dumps(_agent_pair(agent, call))] if call["name"] == "switch_mode" else [itself]


def _agent_pair(agent: str, call: RequestedCall) -> tuple[str, str]:
    one, other = sorted((agent, str(call["args"].get("mode"))))
    return one, other


def _was_skipped(answer: ToolMessage) -> bool:
    return is_refused(answer) or is_rejected(answer)
