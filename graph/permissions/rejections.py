"""Recognize a call that the user rejected before, in whatever form it is proposed again."""

from collections.abc import Callable, Sequence
from posixpath import normpath
from typing import Any

from langchain_core.messages import AIMessage, AnyMessage, ToolMessage
from langchain_core.messages import ToolCall as RequestedCall
from pydantic import ValidationError

from graph.conversation import current_turn
from graph.marks import is_refused, is_rejected
from graph.permissions.command_forms import normalize_command
from graph.tools.catalog import TOOLS

REJECTION_LIMIT = 3
"""Rejections in a row that end the turn: the agent does not understand what the user wants, and should ask."""
REJECTION_QUESTION = "You rejected three proposals in a row. What should I do instead?"
SUGGESTIONS = ["Explain what you want to do.", "Try another way.", "Stop here."]
IRRELEVANT_ARGUMENTS = {"timeout", "shell", "backup", "create_dirs", "encoding", "recursive"}
"""Arguments whose change makes no other call of it."""


def find_rejection(messages: Sequence[AnyMessage], call: RequestedCall) -> str | None:
    """Return the answer that the model got when the user rejected the same call in this turn; None if there is none."""
    same = normalize_call(call)
    rejections: dict[str, str] = {}
    for message in reversed(current_turn(messages)):
        match message:
            case ToolMessage() if is_rejected(message):
                rejections[message.tool_call_id] = str(message.content)
            case AIMessage():
                for earlier in message.tool_calls:
                    if earlier["id"] in rejections and normalize_call(earlier) == same:
                        return rejections[earlier["id"]]
    return None


def has_rejections_in_a_row(
    messages: Sequence[AnyMessage], needs_approval: Callable[[str, RequestedCall], bool]
) -> bool:
    """Return whether the last decisions of this turn were all rejections, or refusals for an earlier one.

    `needs_approval` takes an agent and its call. Calls that need none, such as reads in between, do not count.
    """
    turn = current_turn(messages)[::-1]
    answers = [message for message in turn if isinstance(message, ToolMessage)]
    reasons = {message.content for message in answers if is_rejected(message)}
    row = [is_rejected(each) or (is_refused(each) and each.content in reasons) for each in answers]
    if sum(row) < REJECTION_LIMIT:
        return False
    calls = {call["id"]: (m.name or "", call) for m in turn if isinstance(m, AIMessage) for call in m.tool_calls}
    length = 0
    for answer, counts in zip(answers, row, strict=True):
        length += counts
        if length == REJECTION_LIMIT:
            return True
        if not counts and not is_refused(answer) and (of := calls.get(answer.tool_call_id)) and needs_approval(*of):
            return False
    return False


def normalize_call(call: RequestedCall) -> tuple[str, dict[str, Any]]:
    """Return the call in a form that equivalent calls share: defaults written out, paths and words without variants."""
    name, arguments = call["name"], {key: value for key, value in call["args"].items() if value is not None}
    try:
        arguments = TOOLS[name].model_validate(arguments).model_dump() if name in TOOLS else arguments
    except ValidationError:
        return name, arguments
    relevant = {key: value for key, value in arguments.items() if key not in IRRELEVANT_ARGUMENTS}
    if name == "execute_command":
        folder = normpath(str(relevant.pop("cwd", None) or "."))
        relevant["cwd"], relevant["command"] = normalize_command(str(relevant["command"]), folder)
    return name, {key: _normalize_value(key, value) for key, value in relevant.items()}


def _normalize_value(name: str, value: Any) -> Any:
    if name == "path":  # some file systems have no case
        return normpath(str(value or ".")).casefold()
    return str(value).rstrip() if name == "content" else value
