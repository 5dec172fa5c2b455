"""Recognize a call that the user rejected before, in whatever form it is proposed again."""

import shlex
from collections.abc import Sequence
from posixpath import normpath
from typing import Any

from langchain_core.messages import AIMessage, AnyMessage, HumanMessage, ToolMessage
from langchain_core.messages import ToolCall as RequestedCall
from pydantic import ValidationError

from graph.marks import is_refused, is_rejected
from graph.tools.catalog import TOOLS

REJECTION_LIMIT = 3
"""Rejections in a row that end the turn: the agent does not understand what the user wants, and should ask."""
REJECTION_QUESTION = "You rejected three proposals in a row. What should I do instead?"
SUGGESTIONS = ["Explain what you want to do.", "Try another way.", "Stop here."]
IRRELEVANT_ARGUMENTS = {"timeout", "backup", "create_dirs"}
"""Arguments whose change makes no other call of it."""
PATH_ARGUMENTS = {"path", "cwd"}


def find_rejection(messages: Sequence[AnyMessage], call: RequestedCall) -> str | None:
    """Return the answer that the model got when the user rejected the same call in this turn; None if there is none."""
    same = normalize_call(call)
    rejections: dict[str, str] = {}
    for message in reversed(messages):
        match message:
            case HumanMessage():
                break
            case ToolMessage() if is_rejected(message):
                rejections[message.tool_call_id] = str(message.content)
            case AIMessage():
                for earlier in message.tool_calls:
                    if earlier["id"] in rejections and normalize_call(earlier) == same:
                        return rejections[earlier["id"]]
    return None


def has_rejections_in_a_row(messages: Sequence[AnyMessage]) -> bool:
    """Return whether the last calls of this turn were all rejected, or refused for an earlier rejection."""
    answers: list[ToolMessage] = []
    for message in reversed(messages):
        if isinstance(message, HumanMessage):
            break
        if isinstance(message, ToolMessage):
            answers.append(message)
    reasons = {message.content for message in answers if is_rejected(message)}
    row = [is_rejected(each) or (is_refused(each) and each.content in reasons) for each in answers[:REJECTION_LIMIT]]
    return len(row) == REJECTION_LIMIT and all(row)


def normalize_call(call: RequestedCall) -> tuple[str, dict[str, Any]]:
    """Return the call in a form that equivalent calls share: defaults written out, paths and words without variants."""
    name, arguments = call["name"], {key: value for key, value in call["args"].items() if value is not None}
    try:
        arguments = TOOLS[name].model_validate(arguments).model_dump() if name in TOOLS else arguments
    except ValidationError:
        return name, arguments
    return name, {
        key: _normalize_value(key, value) for key, value in arguments.items() if key not in IRRELEVANT_ARGUMENTS
    }


def _normalize_value(name: str, value: Any) -> Any:
    if name in PATH_ARGUMENTS:
        return normpath(str(value or "."))
    if name == "command":
        return _normalize_command(str(value))
    return value


def _normalize_command(command: str) -> list[str]:
    """Return the words without quotes and blanks, each `./` at a beginning dropped."""
    try:
        words = shlex.split(command)
    except ValueError:
        words = command.split()
    return [word.removeprefix("./") or word for word in words]
