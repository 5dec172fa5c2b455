"""Read a call as its model meant it, before the policy judges it: one reading, or none.

Models write a number as a text, a list as JSON in a text, or decorate a tool's name. What has one reading is taken, and
from then on shown, stored and executed in that form. What has two readings stays as it is, and is refused.
"""

import json
import re
from collections.abc import Callable
from typing import Any

from graph.sanitize import is_deeper_than
from graph.tools.catalog import TOOLS, specification

MAX_DEPTH = 64
"""Levels of objects and lists in arguments: recursive code has stack enough for them. Chosen, not measured."""
MAX_DECORATED_CHARS = 200
"""Characters of a name whose decoration is looked at. Chosen, not measured: several times the longest name."""

_DECORATED_NAME = re.compile(r"(?:(?:functions|tools|default_api)[.:])?(\w+)(?::[0-9]+)?(?:<\|.*)?", re.DOTALL)
"""A namespace of GPT or Gemini before the name; a number of Kimi, or a template's token with its rest, behind it."""
_WHOLE_NUMBER = re.compile(r"-?(?:0|[1-9][0-9]{0,17})(?:\.0+)?")
"""A number without leading zeros, which some read as octal. 18 digits fit into 64 bits."""
_MAX_WHOLE_FLOAT = 2.0**53
"""From here on a float stands for several integers."""
_TRUTH_VALUES = {"true": True, "false": False}
_TOOLS_BY_FOLDED_NAME = {name.casefold(): name for name in TOOLS}


def resolve_tool_name(name: str) -> str:
    """Return the tool that a name means if it is one tool's name but for case, blanks and decoration; else the name."""
    if name in TOOLS or len(name) > MAX_DECORATED_CHARS:
        return name
    match = _DECORATED_NAME.fullmatch(name.strip())
    return _TOOLS_BY_FOLDED_NAME.get(match[1].casefold(), name) if match else name


def parse_arguments(raw: Any) -> dict[str, Any] | None:
    """Return the arguments, or None if the text is not a JSON object or nested too deeply.

    An empty text and `null` are an empty object. Bare newlines in strings are accepted. An object that is wrapped in a
    JSON string is unwrapped, once.
    """
    try:
        value = raw if not isinstance(raw, str) else _load_json(raw) if raw.strip() else {}
        if isinstance(value, str):
            value = _load_json(value)
    except ValueError:
        return None
    if value is None:
        return {}
    return value if isinstance(value, dict) and not is_deeper_than(MAX_DEPTH, value) else None


def coerce_arguments(tool: str, arguments: dict[str, Any]) -> dict[str, Any]:
    """Return the arguments with each value in the type that the tool wants, where the value has one reading in it."""
    if tool not in TOOLS:
        return arguments
    fields = specification(tool)["function"]["parameters"]["properties"]
    return {name: _coerce_value(value, fields.get(name, {})) for name, value in arguments.items()}


def _coerce_value(value: Any, schema: dict[str, Any]) -> Any:
    coerce = _COERCIONS.get(schema.get("type", ""))
    return coerce(value) if coerce else value


def _coerce_integer(value: Any) -> Any:
    """Return the integer that a float or a text is. JSON Schema counts 1.0 as an integer."""
    if isinstance(value, str) and _WHOLE_NUMBER.fullmatch(value.strip()):
        return int(value.partition(".")[0])
    if isinstance(value, float) and value.is_integer() and abs(value) < _MAX_WHOLE_FLOAT:
        return int(value)
    return value


def _coerce_boolean(value: Any) -> Any:
    return _TRUTH_VALUES.get(value.strip().casefold(), value) if isinstance(value, str) else value


def _coerce_list(value: Any) -> Any:
    """Return the list that a JSON text holds."""
    try:
        loaded = _load_json(value) if isinstance(value, str) else None
    except ValueError:
        return value
    return loaded if isinstance(loaded, list) and not is_deeper_than(MAX_DEPTH, loaded) else value


_COERCIONS: dict[str, Callable[[Any], Any]] = {
    "integer": _coerce_integer,
    "boolean": _coerce_boolean,
    "array": _coerce_list,
}
"""By the type that is wanted. A text stays a text, whatever it looks like."""


def _load_json(text: str) -> Any:
    """Return the value of a JSON text; NaN and the infinities become texts. Raises ValueError."""
    try:
        return json.loads(text, strict=False, parse_constant=str)
    except RecursionError:
        raise ValueError("nested too deeply") from None
