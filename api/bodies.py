"""JSON in and out, strict on the way in, ASCII on the way out."""

import json
from collections.abc import Sequence
from math import isfinite
from typing import Any, NoReturn, TypeVar

from pydantic import BaseModel, ValidationError
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse

from graph.sanitize import clean, deeper_than, integer

DEPTH = 100
Model = TypeVar("Model", bound=BaseModel)


class ASCIIResponse(JSONResponse):
    def render(self, content: Any) -> bytes:
        return json.dumps(content, separators=(",", ":")).encode()


async def read_object(request: Request) -> dict[str, Any]:
    """Raises HTTPException 400 for what is no JSON, or is ambiguous, 422 for what is no object."""
    try:
        value = _json((await request.body()).decode())
    except _TwiceError:
        raise HTTPException(400, "an object in the body has a key twice") from None
    except (ValueError, RecursionError):
        raise HTTPException(400, "the body is not JSON in UTF-8") from None
    if not isinstance(value, dict):
        raise HTTPException(422, "the body is not a JSON object")
    if deeper_than(DEPTH, value):
        raise HTTPException(400, f"the body is nested deeper than {DEPTH}")
    cleaned: dict[str, Any] = clean(value)
    return cleaned


class _TwiceError(Exception):
    pass


def _json(text: str) -> Any:
    return json.loads(
        text, parse_constant=_not_json, parse_float=_finite, parse_int=integer, object_pairs_hook=_unambiguous
    )


def _unambiguous(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Of two values a client could mean one and a check before us another."""
    if len(read := dict(pairs)) < len(pairs):
        raise _TwiceError
    return read


def _not_json(name: str) -> NoReturn:
    raise ValueError(name)


def _finite(digits: str) -> float:
    number = float(digits)
    return number if isfinite(number) else _not_json(digits)


async def read(request: Request, model: type[Model]) -> Model:
    """Raises HTTPException 400 or 422, which says what is wrong and repeats nothing of the input."""
    try:
        return model.model_validate(await read_object(request))
    except ValidationError as error:
        faults = error.errors(include_url=False, include_input=False, include_context=False)
        raise HTTPException(422, told(faults)) from None


def told(faults: Sequence[Any]) -> str:
    """pydantic's faults as a sentence, without the input: where they are is named by our own models."""
    return "; ".join(f"{'.'.join(map(str, fault['loc']))}: {fault['msg']}" for fault in faults[:5])
