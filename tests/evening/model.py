"""The model of the evening: it says what is recorded, and looks at every request that it gets."""

import json
from collections.abc import Iterator
from typing import Any

from prompts import CLASSIFIER, SUMMARY
from tests.llm_server import (
    EVENTS,
    HTML,
    Reply,
    Request,
    ScriptedLLM,
    Step,
    calls_raw,
    chooses,
    delta,
    raw,
    resets,
    says,
    sse,
    status,
)

A_MESSAGE, A_CALL = 8, 16
"""Tokens that are allowed for what stands around a text and a call."""
FAULTS: dict[str, Step] = {
    "500": status(500),
    "reset": resets(),
    "garbage": raw(b"\x00\xff\x13 garbage", content_type=EVENTS),
    "html": raw(b"<html>Bad gateway</html>", content_type=HTML),
}


class Model:
    """`faults`: what was wrong with a request, by the number of the turn."""

    def __init__(self, budget: int) -> None:
        self.server = ScriptedLLM(otherwise=self._answer)
        self._budget = budget
        self._turn: dict[str, Any] = {}
        self._steps: list[dict[str, Any]] = []
        self.asked = self.summaries = self.largest = 0
        self.faults: list[str] = []

    def begins(self, turn: dict[str, Any]) -> None:
        self._turn, self._steps = turn, list(turn["steps"])

    @property
    def left(self) -> int:
        """Steps of the turn that nobody has asked for."""
        return len(self._steps)

    def _answer(self, request: Request) -> Step:
        messages = request.body["messages"]
        asked_for = str(messages[0]["content"])
        if "tools" not in request.body and asked_for.startswith(SUMMARY.partition("\n")[0]):
            self.summaries += 1
            self._judge(request, [])
            return says(f"Summary {self.summaries}: the user works on the helpers, and wants them short.")
        if "tools" not in request.body and asked_for.startswith(CLASSIFIER.prompt.partition("\n")[0]):
            return chooses(self._turn["choose"])
        self.asked += 1
        self._judge(request, [*unsound(messages)])
        if not self._steps:
            self.faults.append(f"turn {self._turn['turn']}: asked once more than recorded")
            return says("I have nothing more to say.")
        return _played(self._steps.pop(0), self.asked)

    def _judge(self, request: Request, faults: list[str]) -> None:
        size = estimated(request.body)
        self.largest = max(self.largest, size)
        if size > self._budget:
            faults.append(f"{size} tokens of {self._budget}")
        self.faults += [f"turn {self._turn['turn']}: {fault}" for fault in faults]


def _played(step: dict[str, Any], number: int) -> Step:
    if "fault" in step:
        return FAULTS[step["fault"]]
    if "broken" in step:
        return resets(sse(delta(content=step["broken"])))
    if "raw" in step:
        name, arguments = step["raw"]
        return calls_raw(name, arguments, id=f"call_{number}")
    made = [
        {
            "id": f"call_{number}_{place}",
            "type": "function",
            "function": {"name": name, "arguments": json.dumps(arguments, ensure_ascii=False)},
        }
        for place, (name, arguments) in enumerate(step.get("calls", ()))
    ]
    return Reply(step.get("say", ""), tuple(made))


def estimated(body: dict[str, Any]) -> int:
    """Tokens: a third of the bytes that mean something, and what stands around them."""
    tools = json.dumps(body.get("tools", []), ensure_ascii=False)
    return _tokens(tools) + sum(map(_of_message, body["messages"]))


def _of_message(message: dict[str, Any]) -> int:
    texts = [message.get("content") or "", message.get("name") or "", message.get("tool_call_id") or ""]
    made = message.get("tool_calls") or []
    of_calls = (f"{each['id']}{each['function']['name']}{each['function']['arguments']}" for each in made)
    return A_MESSAGE + _tokens("".join(texts)) + sum(A_CALL + _tokens(each) for each in of_calls)


def _tokens(text: str) -> int:
    return -(-len(text.encode()) // 3)


def unsound(messages: list[dict[str, Any]]) -> Iterator[str]:
    """What a strict service would refuse."""
    if [message["role"] for message in messages[:2]] != ["system", "user"]:
        yield "it does not begin with the system's and a user's message"
    waiting: list[str] = []
    known: set[str] = set()
    for message in messages[1:]:
        role = message["role"]
        if role == "tool":
            if message["tool_call_id"] not in waiting:
                yield f"an answer to no call, {message['tool_call_id']}"
            else:
                waiting.remove(message["tool_call_id"])
            continue
        if waiting:
            yield f"calls without an answer: {', '.join(waiting)}"
        if role not in ("user", "assistant"):
            yield f"a message of {role}"
        made = message.get("tool_calls") or []
        if not made and not (message.get("content") or "").strip():
            yield f"an empty message of {role}"
        waiting = [each["id"] for each in made]
        yield from _of_calls(made, known)
        known.update(waiting)
    if waiting:
        yield f"calls without an answer at the end: {', '.join(waiting)}"


def _of_calls(made: list[dict[str, Any]], known: set[str]) -> Iterator[str]:
    for each in made:
        if each["id"] in known:
            yield f"the id {each['id']} twice"
        if not isinstance(json.loads(each["function"]["arguments"]), dict):
            yield f"arguments of {each['id']} that are no object"
