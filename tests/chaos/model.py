"""A model whose answer depends on the conversation alone. Its process outlives those of the service.

A turn begins `[session#turn] step step ...`. The model takes one step for each request, then says that it is done.
The steps are `read`, `write`, `calc` (the service runs it itself), `say` (text beside a read) and `pair` (two reads at
once, if the client allows it). `words:N` makes the end N words long; `slow:N` delays each answer of the turn by N ms.
The model prints its address, and records its requests in the ledger.
"""

import asyncio
import sys
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tests.chaos.ledger import Ledger, open_ledger
from tests.chaos.protocol import Marker, Message, find_faults, find_unanswered, parse_marker
from tests.support.llm_server import (
    Exchange,
    LLMRequest,
    Responder,
    ScriptedLLM,
    ScriptedReply,
    respond_choice,
    respond_text,
    respond_tool_call,
)


class ChaosModel:
    def __init__(self, ledger: Ledger, delay: float) -> None:
        """Delay each answer by up to `delay` seconds."""
        self._ledger = ledger
        self._delay = delay
        self.server = ScriptedLLM(otherwise=self._answer_request)

    def _answer_request(self, request: LLMRequest) -> Responder:
        self.server.requests.clear()
        messages = [each for each in request.body["messages"] if each["role"] != "system"]
        is_choice = not request.body.get("tools")
        asked = _find_turn_start(messages)
        if asked is None:
            self._ledger.write("fault", sentence="a request without a turn's marker")
            return respond_text("Which turn is this?")
        start, said, options = asked
        step = sum(bool(each.get("tool_calls")) for each in messages[start:])
        self._ledger.write("asked", session=said.session, turn=said.turn, step="choice" if is_choice else step)
        if not is_choice:
            self._check_request(said, messages)
        reply = respond_choice("coder") if is_choice else choose_reply(said, options, step, request.body)
        return _delay_reply(self._choose_delay(said, step, options), reply)

    def _check_request(self, said: Marker, messages: Sequence[Message]) -> None:
        found = [*find_faults(messages)]
        if left := find_unanswered(messages):
            found.append(f"{', '.join(sorted(left))} is not answered")
        if messages[-1]["role"] not in ("user", "tool"):
            found.append("the last message is the model's own")
        for sentence in found:
            self._ledger.write("fault", sentence=f"{said}: {sentence}")

    def _choose_delay(self, said: Marker, step: int, options: Sequence[str]) -> float:
        slow = sum(int(option[5:]) for option in options if option.startswith("slow:")) / 1000
        return slow + self._delay * (zlib.crc32(f"{said}{step}".encode()) % 100) / 100


def _find_turn_start(messages: Sequence[Message]) -> tuple[int, Marker, list[str]] | None:
    """Return the index of the turn's first message, its marker and its words; None if there is no turn."""
    for place in range(len(messages) - 1, -1, -1):
        content = messages[place]["content"] or ""
        if messages[place]["role"] == "user" and (said := parse_marker(content)):
            return place, said, content.split()[1:]
    return None


def choose_reply(said: Marker, words: Sequence[str], step: int, body: dict[str, Any]) -> ScriptedReply:
    steps = [word for word in words if ":" not in word]
    if step >= len(steps):
        extra = sum(int(word[6:]) for word in words if word.startswith("words:"))
        return respond_text(f"{said} done." + " word" * extra)
    path = f"{said.session}/{said.turn}/{step}"
    match steps[step]:
        case "write":
            return respond_tool_call("write_file", id=None, path=f"{path}.py", content=f"of {said}")
        case "calc":
            return respond_tool_call("calculator", id=None, expr=f"{said.turn} + {step}")
        case "say":
            return respond_text(f"{said} I look.") & respond_tool_call("read_file", id=None, path=f"{path}.py")
        case "pair" if body.get("parallel_tool_calls"):
            both = (respond_tool_call("read_file", id=None, path=f"{path}-{letter}.py") for letter in "ab")
            return next(both) & next(both)
    return respond_tool_call("read_file", id=None, path=f"{path}.py")


def _delay_reply(seconds: float, reply: ScriptedReply) -> Responder:
    async def respond(exchange: Exchange) -> None:
        await asyncio.sleep(seconds)
        await reply(exchange)

    return respond


async def main(path: str, delay: str) -> None:
    with open_ledger(Path(path)) as seen:
        async with ChaosModel(seen, float(delay)).server as server:
            sys.stdout.write(f"{server.url}\n")
            sys.stdout.flush()
            await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
