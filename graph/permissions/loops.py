"""Detect an agent that repeats itself: the same call, or the same hand-off between two agents, three times in a turn.

A call that may change something, and that is new in the turn, is progress: counting starts again. So an agent that
edits, runs the tests and edits again is no loop. Pure.
"""

import json
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

from langchain_core.messages import AIMessage, AnyMessage, ToolMessage
from langchain_core.messages import ToolCall as RequestedCall

from graph.marks import is_aside, is_refused, is_rejected

REPEAT_LIMIT = 3
"""The repetition that is refused. A second one may be a mere check; the third without progress is a loop."""
MAX_QUOTED_ARGUMENTS = 200
"""Characters of a call's arguments in the question. Chosen, not measured: enough to recognise the call."""


class DetectedLoop(NamedTuple):
    call: RequestedCall
    agents: tuple[str, str] | None = None
    """The two agents, if hand-offs between them are repeated."""

    @property
    def question(self) -> str:
        """The question to the user."""
        if self.agents:
            one, other = self.agents
            return f"{one} and {other} hand this back and forth without progress. How should the work go on?"
        text = json.dumps(self.call["args"], ensure_ascii=False)
        arguments = text if len(text) <= MAX_QUOTED_ARGUMENTS else f"{text[:MAX_QUOTED_ARGUMENTS]}..."
        return (
            f"I was about to call {self.call['name']} a third time with {arguments}, and nothing new was done in "
            "between. How should I go on?"
        )

    @property
    def metadata(self) -> dict[str, Any]:
        """The metadata of the question's chunk."""
        subject = {"agents": [*self.agents]} if self.agents else {"tool_name": self.call["name"]}
        return {"question": True, "suggestions": SUGGESTIONS, "repeated": {**subject, "times": REPEAT_LIMIT}}


SUGGESTIONS = ["Go on.", "Try another way.", "Stop here, and say what you found."]

IsMutating = Callable[[str, RequestedCall], bool]
"""Return whether a call of an agent may change something."""


def detect_loop(
    messages: Sequence[AnyMessage], new_calls: Sequence[RequestedCall], is_mutating: IsMutating
) -> DetectedLoop | None:
    """Return the first of the new calls that is the third of its kind since the last progress, or None."""
    turn = _current_turn(messages)
    calls = [*_iterate_calls(turn)]
    if max(Counter(sign for each in calls for sign in _call_signatures(*each)).values(), default=0) < REPEAT_LIMIT:
        return None
    skipped = {message.tool_call_id for message in turn if isinstance(message, ToolMessage) and _was_skipped(message)}
    new_ids = {call["id"] for call in new_calls}
    counts: Counter[str] = Counter()
    seen: set[str] = set()
    for agent, call in calls:
        signatures = _call_signatures(agent, call)
        if signatures[0] not in seen and call["id"] not in skipped and is_mutating(agent, call):
            counts.clear()
        seen.add(signatures[0])
        counts.update(signatures)
        if call["id"] not in new_ids:
            continue
        if repeated := next((each for each in signatures if counts[each] >= REPEAT_LIMIT), None):
            return DetectedLoop(call, None if repeated == signatures[0] else _agent_pair(agent, call))
    return None


def _current_turn(messages: Sequence[AnyMessage]) -> Sequence[AnyMessage]:
    """Return the messages after the user's last one."""
    return messages[next((n for n in range(len(messages), 0, -1) if messages[n - 1].type == "human"), 0) :]


def _iterate_calls(turn: Sequence[AnyMessage]) -> Iterator[tuple[str, RequestedCall]]:
    """Yield each call with the agent that made it, oldest first."""
    for message in turn:
        if isinstance(message, AIMessage) and not is_aside(message):
            for call in message.tool_calls:
                yield message.name or "", call


def _call_signatures(agent: str, call: RequestedCall) -> list[str]:
    """Return the keys by which a repetition is known: the call itself, and for a hand-off its two agents as well."""
    arguments = {name: value for name, value in call["args"].items() if value is not None}
    itself = json.dumps([call["name"], arguments], sort_keys=True)
    return [itself, json.dumps(_agent_pair(agent, call))] if call["name"] == "switch_mode" else [itself]


def _agent_pair(agent: str, call: RequestedCall) -> tuple[str, str]:
    one, other = sorted((agent, str(call["args"].get("mode"))))
    return one, other


def _was_skipped(answer: ToolMessage) -> bool:
    return is_refused(answer) or is_rejected(answer)
