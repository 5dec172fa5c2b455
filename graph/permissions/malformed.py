"""Detect a model that makes one malformed call after another: each of them would cost a model call. Pure."""

from collections.abc import Iterable, Iterator

from langchain_core.messages import AIMessage, AnyMessage, HumanMessage, ToolMessage

from graph.marks import MalformedReason, is_aside, is_refused, malformed_reason_of

MALFORMED_LIMIT = 3
"""Answers in a row with malformed calls only that end the turn. The second may mend the first; a third one mends
nothing. Chosen, not measured."""
MALFORMED_QUESTIONS: dict[MalformedReason, str] = {
    "unreadable": "I made three calls in a row that could not be read. How should I go on?",
    "invalid": "I made three calls in a row that were not valid. How should I go on?",
    "length": "Three of my answers in a row were cut off at the output limit of the model, so nothing was done. "
    "How should I go on?",
    "content_filter": "Three of my answers in a row were stopped by the content filter of the model's service, so "
    "nothing was done. How should I go on?",
}
"""The question to the user, by the reason of the last call."""
MALFORMED_SUGGESTIONS = ["Go on in smaller steps.", "Try another way.", "Stop here."]


def find_malformed_row(newest_first: Iterable[AnyMessage]) -> MalformedReason | None:
    """Return the reason of the last call if the last answers of this turn had malformed calls only; None otherwise.

    Calls that the policy refused do not count, for or against. The messages are those of the conversation, backwards.
    """
    row: list[MalformedReason] = []
    for answers in _iterate_answers(newest_first):
        reasons = [malformed_reason_of(each) for each in answers if malformed_reason_of(each) or not is_refused(each)]
        if None in reasons:
            return None
        row += [reason for reason in reasons[-1:] if reason]
        if len(row) == MALFORMED_LIMIT:
            return row[0]
    return None


def _iterate_answers(newest_first: Iterable[AnyMessage]) -> Iterator[list[ToolMessage]]:
    """Yield the answers to the calls of each message of the model, the newest message first, within this turn."""
    answers: list[ToolMessage] = []
    for message in newest_first:
        match message:
            case HumanMessage():
                return
            case ToolMessage():
                answers.insert(0, message)
            case AIMessage() if is_aside(message):
                answers = []
            case AIMessage():
                yield answers
                answers = []
