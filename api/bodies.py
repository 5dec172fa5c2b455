"""JSON in and out, strict on the way in, ASCII on the way out."""

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
Model = TypeVar("Model", bound=BaseModel)


class ASCIIResponse(JSONResponse):
    def render(self, content: Any) -> bytes:
        return json.dumps(content, separators=(",", ":")).encode()


async def read_object(request: Request) -> dict[str, Any]:
    """Raises HTTPException 400 for what is no JSON, or is ambiguous, 422 for what is no object."""
    try:
        value = _parse_json((await request.body()).decode())
    except _DuplicateKeyError:
        raise HTTPException(400, "an object in the body has a key twice") from None
    except (ValueError, RecursionError):
        raise HTTPException(400, "the body is not JSON in UTF-8") from None
    if not isinstance(value, dict):
        raise HTTPException(422, "the body is not a JSON object")
    if is_deeper_than(MAX_DEPTH, value):
        raise HTTPException(400, f"the body is nested deeper than {MAX_DEPTH}")
    cleaned: dict[str, Any] = sanitize_value(value)
    return cleaned


class _DuplicateKeyError(Exception):
    pass


def _parse_json(text: str) -> Any:
    return json.loads(
        text,
        parse_constant=_reject_number,
        parse_float=_parse_finite_float,
        parse_int=parse_integer,
        object_pairs_hook=_reject_duplicate_keys,
    )


def _reject_duplicate_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Of two values a client could mean one and a check before us another."""
    if len(read := dict(pairs)) < len(pairs):
        raise _DuplicateKeyError
    return read


def _reject_number(name: str) -> NoReturn:
    raise ValueError(name)


def _parse_finite_float(digits: str) -> float:
    number = float(digits)
    return number if isfinite(number) else _reject_number(digits)


async def read_body(request: Request, model: type[Model]) -> Model:
    """Raises HTTPException 400 or 422, which says what is wrong and repeats nothing of the input."""
    try:
        return model.model_validate(await read_object(request))
    except ValidationError as error:
        faults = error.errors(include_url=False, include_input=False, include_context=False)
        raise HTTPException(422, describe_faults(faults)) from None


def describe_faults(faults: Sequence[Any]) -> str:
    """pydantic's faults as a sentence, without the input: where they are is named by our own models."""
    return "; ".join(f"{'.'.join(map(str, fault['loc']))}: {fault['msg']}" for fault in faults[:5])
