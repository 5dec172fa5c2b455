"""Detect an agent that repeats itself: the same call, or the same hand-off between two agents, three times in a turn.

A call that may change something, and that is new in the turn, is progress: counting starts again. So an agent that
edits, runs the tests and edits again is no loop. A call with another result than before is news: an agent that looks
at a build again and again may do so more often. Pure.
"""

import json
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

from langchain_core.messages import AIMessage, AnyMessage, ToolMessage
from langchain_core.messages import ToolCall as RequestedCall

from graph.conversation import current_turn
from graph.marks import is_aside, is_refused, is_rejected, malformed_reason_of

REPEAT_LIMIT = 3
"""The repetition that is refused. A second one may be a mere check; the third without progress is a loop."""
POLL_LIMIT = 20
"""The repetition that is refused whatever the results are: a command that shows the time has always another one.
Chosen, not measured: far more than a look at a build takes, and a quarter of a turn's model calls."""
MAX_QUOTED_ARGUMENTS = 200
"""Characters of a call's arguments in the question. Chosen, not measured: enough to recognise the call."""


class DetectedLoop(NamedTuple):
    call: RequestedCall
    agents: tuple[str, str] | None = None
    """The two agents, if hand-offs between them are repeated."""
    times: int = REPEAT_LIMIT
    """The number of the refused call among those of its kind."""

    @property
    def question(self) -> str:
        """The question to the user."""
        if self.agents:
            one, other = self.agents
            return f"{one} and {other} hand this back and forth without progress. How should the work go on?"
        text = json.dumps(self.call["args"], ensure_ascii=False)
        arguments = text if len(text) <= MAX_QUOTED_ARGUMENTS else f"{text[:MAX_QUOTED_ARGUMENTS]}..."
        if self.times > REPEAT_LIMIT:
            return f"I was about to call {self.call['name']} for the {self.times}th time with {arguments}. {GO_ON}"
        return (
            f"I was about to call {self.call['name']} a third time with {arguments}, and nothing new was done in "
            f"between. {GO_ON}"
        )

    @property
    def result(self) -> str:
        """The answer to the call that is refused."""
        before = "twice before, and nothing new was done since"
        if self.times > REPEAT_LIMIT:
            before = f"{self.times - 1} times before"
        return f"not run: it was called {before}; the user is asked how to go on"

    @property
    def metadata(self) -> dict[str, Any]:
        """The metadata of the question's chunk."""
        subject = {"agents": [*self.agents]} if self.agents else {"tool_name": self.call["name"]}
        return {"question": True, "suggestions": SUGGESTIONS, "repeated": {**subject, "times": self.times}}


GO_ON = "How should I go on?"
SUGGESTIONS = ["Go on.", "Try another way.", "Stop here, and say what you found."]

IsMutating = Callable[[str, RequestedCall], bool]
"""Return whether a call of an agent may change something."""


def detect_loop(
    messages: Sequence[AnyMessage], new_calls: Sequence[RequestedCall], is_mutating: IsMutating
) -> DetectedLoop | None:
    """Return the first of the new calls that is one too many of its kind since the last progress, or None."""
    turn = current_turn(messages)
    calls = [*_iterate_calls(turn)]
    if max(Counter(sign for each in calls for sign in _call_signatures(*each)).values(), default=0) < REPEAT_LIMIT:
        return None
    answers = {message.tool_call_id: message for message in turn if isinstance(message, ToolMessage)}
    new_ids = {call["id"] for call in new_calls}
    results: defaultdict[str, Counter[str | None]] = defaultdict(Counter)
    seen: set[str] = set()
    for agent, call in calls:
        answer = answers.get(call["id"] or "")
        if answer and _was_unreadable(answer):
            continue
        signatures = _call_signatures(agent, call)
        was_skipped = answer is not None and _was_skipped(answer)
        if signatures[0] not in seen and not was_skipped and is_mutating(agent, call):
            results.clear()
        seen.add(signatures[0])
        result = str(answer.content) if answer else None
        for signature in signatures:
            is_pair = signature != signatures[0]
            results[signature]["" if is_pair else result] += 1  # two hand-offs differ in the agent that they name
            if call["id"] in new_ids and _is_loop(results[signature]):
                return DetectedLoop(call, _agent_pair(agent, call) if is_pair else None, results[signature].total())
    return None


def _is_loop(results: Counter[str | None]) -> bool:
    """Return whether calls of one kind have reached a limit. `results` counts their results; None: no result yet.

    A call without a result may bring any of those that came.
    """
    same = results[None] + max((count for result, count in results.items() if result is not None), default=0)
    return same >= REPEAT_LIMIT or results.total() >= POLL_LIMIT


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


def _was_unreadable(answer: ToolMessage) -> bool:
    """Return whether the call of an answer was cut off or no JSON: its arguments are not known."""
    return malformed_reason_of(answer) not in (None, "invalid")
