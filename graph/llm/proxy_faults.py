"""Recognise a fault that CodeLab's LLM proxy reports as an assistant's text, with HTTP status 200."""

import ast
import re

from graph.llm.faults import Fault, fault_from_refusal, make_unavailable_fault
from graph.llm.refusals import MAX_MESSAGE_CHARS, Refusal, refusal_from_error

PROXY_FAULTS = ("[Error] LiteLLM proxy unavailable", "[Error] LiteLLM proxy stream unavailable")
"""The beginnings of such a text: of a whole answer, and of the last piece of a stream."""
_STATUS = re.compile(r": Error code: ([45]\d\d)(?: - (.*))?", re.DOTALL)
"""The words of the OpenAI client in that proxy: a status, and the body of the refusal as Python prints it."""


def find_proxy_fault(text: str) -> Fault | None:
    """Return the fault that the text reports, as far as it has come; None for any other text."""
    if not text.startswith(PROXY_FAULTS):
        return None
    words = text[:MAX_MESSAGE_CHARS]
    if refused := _STATUS.search(words):
        return fault_from_refusal(_read_refusal(*refused.groups()))
    return make_unavailable_fault("a proxy fault", Refusal(message=words))


def may_become_fault(start: str) -> bool:
    """Return whether a text that begins so may become the report of a fault."""
    return any(fault.startswith(start) for fault in PROXY_FAULTS)


def _read_refusal(status: str, body: str | None) -> Refusal:
    try:
        error = ast.literal_eval(body or "")
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        return Refusal(status=int(status), message=body or "")
    return refusal_from_error(error, int(status))
