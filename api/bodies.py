"""Read JSON bodies strictly, and answer in ASCII JSON."""

import asyncio
import json
from collections.abc import Sequence
from math import isfinite
from typing import Any, NoReturn, TypeVar

from pydantic import BaseModel, ValidationError
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse

from graph.sanitize import is_deeper_than, parse_integer, sanitize_value

MAX_DEPTH = 100
"""Objects and lists in each other: far above any message, and far below the recursion limit of Python, 1,000."""
MAX_VALUES = 50_000
"""Members and items of a body. A message has dozens; validating more would hold up other requests."""
LOOP_BYTES = 32_000
"""Bytes of a body that are parsed in the event loop, in about a millisecond; larger ones are parsed in a thread."""
MAX_FAULTS = 5
"""Faults of a body that an answer names: enough to correct it, and short however many there are."""
Model = TypeVar("Model", bound=BaseModel)


class ASCIIResponse(JSONResponse):
    """JSON on one line of ASCII: some clients break lines at U+2028 and the like."""

    def render(self, content: Any) -> bytes:
        return json.dumps(content, separators=(",", ":")).encode()


async def read_object(request: Request) -> dict[str, Any]:
    """Return the object in the body, sanitized.

    Raises HTTPException 400 for a body that is no JSON, is ambiguous or too deep; 422 for one that is no object.
    """
    body = await request.body()
    try:
        value = await asyncio.to_thread(_parse_body, body) if len(body) > LOOP_BYTES else _parse_body(body)
    except _TooManyValuesError:
        raise HTTPException(400, f"the body has more than {MAX_VALUES} values") from None
    except _DuplicateKeyError:
        raise HTTPException(400, "an object in the body has a key twice") from None
    except (ValueError, RecursionError):
        raise HTTPException(400, "the body is not JSON in UTF-8") from None
    if not isinstance(value, dict):
        raise HTTPException(422, "the body is not a JSON object")
    if value is _TOO_DEEP:
        raise HTTPException(400, f"the body is nested deeper than {MAX_DEPTH}")
    return value


class _DuplicateKeyError(Exception):
    pass


class _TooManyValuesError(Exception):
    pass


_TOO_DEEP: dict[str, Any] = {}


def _parse_body(body: bytes) -> Any:
    """Return the value in the body, sanitized, or `_TOO_DEEP`. Raises ValueError, RecursionError or an error above."""
    value = _parse_json(body.decode())
    if _has_more_values(value, MAX_VALUES):
        raise _TooManyValuesError
    return _TOO_DEEP if is_deeper_than(MAX_DEPTH, value) else sanitize_value(value)


def _has_more_values(value: Any, most: int) -> bool:
    """Return whether the value has more than `most` members and items in all."""
    pending, count = [value], 0
    while pending and count <= most:
        inner = pending.pop()
        if isinstance(inner, dict | list):
            count += len(inner)
            pending += inner.values() if isinstance(inner, dict) else inner
    return count > most


def _parse_json(text: str) -> Any:
    return json.loads(
        text,
        parse_constant=_reject_number,
        parse_float=_parse_finite_float,
        parse_int=parse_integer,
        object_pairs_hook=_reject_duplicate_keys,
    )


def _reject_duplicate_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Return the pairs as an object. Raises _DuplicateKeyError.

    Of two values under one key a client could mean one, and a check in front of this service another.
    """
    if len(parsed := dict(pairs)) < len(pairs):
        raise _DuplicateKeyError
    return parsed


def _reject_number(name: str) -> NoReturn:
    raise ValueError(name)


def _parse_finite_float(digits: str) -> float:
    number = float(digits)
    return number if isfinite(number) else _reject_number(digits)


async def read_body(request: Request, model: type[Model]) -> Model:
    """Parse the body of a request. Raises HTTPException 400 or 422, whose text repeats nothing of the input."""
    try:
        return model.model_validate(await read_object(request))
    except ValidationError as error:
        faults = error.errors(include_url=False, include_input=False, include_context=False)
        raise HTTPException(422, describe_faults(faults)) from None


def describe_faults(faults: Sequence[Any]) -> str:
    """Return pydantic's faults as one text without the input; the names of places are those of our models."""
    return "; ".join(f"{'.'.join(map(str, fault['loc']))}: {fault['msg']}" for fault in faults[:MAX_FAULTS])
