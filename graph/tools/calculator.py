"""Evaluate arithmetic within bounds: no names, no calls, no number that takes long to compute or to read."""

import ast
import operator
from collections.abc import Callable
from math import isfinite
from typing import Any

MAX_BITS = 4096
"""The largest integer: some 1,230 digits. Chosen, not measured: such a number is computed and read in no time."""
MAX_QUOTED_CHARS = 80
"""Characters of a wrong expression that the model reads again. Chosen, not measured."""

BINARY_OPERATORS: dict[type[ast.operator], Callable[[Any, Any], Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv,
    ast.Mod: operator.mod,
}
UNARY_OPERATORS: dict[type[ast.unaryop], Callable[[Any], Any]] = {ast.UAdd: operator.pos, ast.USub: operator.neg}


def calculate(expression: str) -> str:
    """Return the result as text. Raises ValueError with a sentence about the fault."""
    try:
        return str(_evaluate_node(ast.parse(expression.strip(), mode="eval").body))
    except (SyntaxError, RecursionError, MemoryError):
        raise ValueError(
            f"{expression[:MAX_QUOTED_CHARS]!r} is not arithmetic: use numbers, + - * / // % ** and parentheses"
        ) from None
    except ZeroDivisionError:
        raise ValueError("division by zero") from None
    except OverflowError:
        raise ValueError("the result is too large") from None


def _evaluate_node(node: ast.expr) -> Any:
    match node:
        case ast.Constant(value=int() | float() as number) if not isinstance(number, bool):
            return _check_bounds(number)
        case ast.UnaryOp(op=sign, operand=operand) if type(sign) in UNARY_OPERATORS:
            return UNARY_OPERATORS[type(sign)](_evaluate_node(operand))
        case ast.BinOp(left=left, op=ast.Pow(), right=right):
            return _calculate_power(_evaluate_node(left), _evaluate_node(right))
        case ast.BinOp(left=left, op=op, right=right) if type(op) in BINARY_OPERATORS:
            return _check_bounds(BINARY_OPERATORS[type(op)](_evaluate_node(left), _evaluate_node(right)))
    raise SyntaxError


def _calculate_power(base: Any, exponent: Any) -> Any:
    if isinstance(base, int) and isinstance(exponent, int) and base.bit_length() * abs(exponent) > MAX_BITS:
        raise OverflowError
    return _check_bounds(base**exponent)


def _check_bounds(number: Any) -> Any:
    if isinstance(number, complex):
        raise ValueError("the result is not a real number")
    if isinstance(number, int) and number.bit_length() > MAX_BITS:
        raise OverflowError
    if isinstance(number, float) and not isfinite(number):
        raise OverflowError
    return number
