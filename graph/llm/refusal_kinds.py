"""Judge a refusal of a model service: what is wrong, and so who can mend it."""

import re
from collections.abc import Sequence
from enum import Enum, auto

from graph.llm.overflow import find_overflow
from graph.llm.refusals import Refusal


class RefusalKind(Enum):
    TOO_LARGE = auto()
    ACCOUNT = auto()
    """The account has no credit, or has used up its quota."""
    RATE_LIMIT = auto()
    KEY = auto()
    MODEL = auto()
    """There is no such model, or no such address."""
    TOOLS = auto()
    """The model cannot call tools."""
    STREAMING = auto()
    """The model does not stream, or not for this account."""
    CONTENT = auto()
    """The provider's content filter does not take the request."""
    REQUEST = auto()
    """The request has something that the service does not accept."""
    DOWN = auto()
    """The service is overloaded or has a fault of its own."""
    OTHER = auto()
    """Some other status, such as a redirect."""
    UNKNOWN = auto()
    """An error object without a status and without a known name."""


_STATUS_KINDS = {
    400: RefusalKind.REQUEST,
    401: RefusalKind.KEY,
    402: RefusalKind.ACCOUNT,
    403: RefusalKind.KEY,
    404: RefusalKind.MODEL,
    408: RefusalKind.DOWN,
    422: RefusalKind.REQUEST,
    429: RefusalKind.RATE_LIMIT,
}

_NAME_KINDS = (
    ("insufficientquota", RefusalKind.ACCOUNT),
    ("exceededcurrentquota", RefusalKind.ACCOUNT),
    ("billing", RefusalKind.ACCOUNT),
    ("insufficientbalance", RefusalKind.ACCOUNT),
    ("budgetexceeded", RefusalKind.ACCOUNT),
    ("resourceexhausted", RefusalKind.RATE_LIMIT),
    ("invalidapikey", RefusalKind.KEY),
    ("nodbconnection", RefusalKind.KEY),  # LiteLLM for a wrong key, if it has no database of keys
    ("modelnotfound", RefusalKind.MODEL),
    ("modelnotsupported", RefusalKind.MODEL),
    ("deploymentnotfound", RefusalKind.MODEL),
    ("invalidmodel", RefusalKind.MODEL),
    ("contentfilter", RefusalKind.CONTENT),
    ("contentpolicy", RefusalKind.CONTENT),
)
"""Parts of a code or a type that say more than the words and the status."""

_WEAK_NAME_KINDS = (
    ("ratelimit", RefusalKind.RATE_LIMIT),
    ("throttl", RefusalKind.RATE_LIMIT),
    ("toomanyrequests", RefusalKind.RATE_LIMIT),
    ("overloaded", RefusalKind.DOWN),
)
"""Parts of a code or a type that say more than the status. LiteLLM has such a type for an empty account as well."""

_MESSAGE_KINDS = (
    (
        r"insufficient (?:quota|balance|credits?|funds)|credit balance|out of credits?|requires more credits|"
        r"payment required|budget has been exceeded|billing (?:hard )?limit|account .{0,40}(?:deactivated|suspended)|"
        r"exceeded your current quota(?!.{0,2000}(?:retry in|resource_exhausted))",
        RefusalKind.ACCOUNT,
    ),
    (r"no deployments available|rate limit (?:reached|exceeded)", RefusalKind.RATE_LIMIT),
    (
        r"(?:invalid|incorrect|malformed|wrong) api[ _-]?key|api[ _-]?key not valid|no api key|"
        r"authentication (?:error|failed)",
        RefusalKind.KEY,
    ),
    (r"(?:does not|n't|that) support (?:tools?\b|tool use|tool calling|function calling)", RefusalKind.TOOLS),
    (r"verified to stream|'stream' does not support|does not support streaming", RefusalKind.STREAMING),
    (
        r"\bmodel:?\s+(?:\S+\s+)?(?:does not exist|not exist|(?:was |is )?not found)|invalid model(?: name)?\b|"
        r"not a valid model|unknown model|no such model",
        RefusalKind.MODEL,
    ),
    (r"content (?:management|filter|policy)", RefusalKind.CONTENT),
)
"""Words of a message that say more than a status below 500. They are searched in this order."""

_PLAIN_NAMES = (
    ("authentication", RefusalKind.KEY),
    ("unauthenticated", RefusalKind.KEY),
    ("unauthorized", RefusalKind.KEY),
    ("permission", RefusalKind.KEY),
    ("notfound", RefusalKind.MODEL),
    ("invalidrequest", RefusalKind.REQUEST),
    ("badrequest", RefusalKind.REQUEST),
    ("invalidargument", RefusalKind.REQUEST),
    ("unsupported", RefusalKind.REQUEST),
    ("unavailable", RefusalKind.DOWN),
    ("servererror", RefusalKind.DOWN),
    ("internal", RefusalKind.DOWN),
    ("apiconnection", RefusalKind.DOWN),
    ("timeout", RefusalKind.DOWN),
    ("badgateway", RefusalKind.DOWN),
)
"""Parts of a code or a type that stand for a status, in a stream that has none. LiteLLM names its classes so too."""


_CLASS = re.compile(r"\blitellm\.(\w+)")
"""LiteLLM writes the class of its error before the message. Its status may be that of another fault."""


def judge_refusal(refusal: Refusal) -> RefusalKind:
    """Return what is wrong. Sizes come first, then names, words and LiteLLM's class, then the status."""
    if find_overflow(refusal):
        return RefusalKind.TOO_LARGE
    if by_name := _judge_names(refusal.names, _NAME_KINDS):
        return by_name
    if refusal.status < 500 and (by_words := _judge_words(refusal.message)):
        return by_words
    for name in _CLASS.findall(refusal.message):
        if by_class := _judge_names(name.casefold(), (*_NAME_KINDS, *_WEAK_NAME_KINDS, *_PLAIN_NAMES)):
            return by_class
    if by_name := _judge_names(refusal.names, _WEAK_NAME_KINDS):
        return by_name
    if not refusal.status and (by_name := _judge_names(refusal.names, _PLAIN_NAMES)):
        return by_name
    return _judge_status(refusal.status)


def _judge_names(names: str, kinds: Sequence[tuple[str, RefusalKind]]) -> RefusalKind | None:
    return next((kind for name, kind in kinds if name in names), None)


def _judge_words(message: str) -> RefusalKind | None:
    return next((kind for words, kind in _MESSAGE_KINDS if re.search(words, message, re.IGNORECASE | re.DOTALL)), None)


def _judge_status(status: int) -> RefusalKind:
    if status in _STATUS_KINDS:
        return _STATUS_KINDS[status]
    return RefusalKind.DOWN if status >= 500 else RefusalKind.OTHER if status else RefusalKind.UNKNOWN
