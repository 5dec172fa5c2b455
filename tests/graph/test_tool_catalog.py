"""The calculator evaluates arithmetic only, and the specification of a tool has no internal text."""

import pytest

from graph.tools.calculator import calculate
from graph.tools.catalog import specification


@pytest.mark.parametrize(
    ("expression", "value"),
    [("2*(3+4)", "14"), ("7 // 2 - -1", "4"), ("1/4", "0.25"), ("2**64", "18446744073709551616"), (" 5 % 3 ", "2")],
)
def test_calculator_evaluates_arithmetic(expression: str, value: str) -> None:
    assert calculate(expression) == value


@pytest.mark.parametrize(
    "expression",
    [
        "",
        "x",
        "1+",
        "abs(1)",
        "'a'*9",
        "1/0",
        "9**9**9",
        "10**5000",
        "1e308*1e308**9",
        "1e308*10",
        "1e308*10-1e308*10",
        "(-1)**0.5",
        "((-1)**0.5) % 2",
        "((-1)**0.5) // 1 * 0",
        "(" * 200,
        "True",
    ],
)
def test_invalid_expression_is_refused_with_a_sentence(expression: str) -> None:
    with pytest.raises(ValueError, match=r"is not arithmetic|too large|by zero|not a real number"):
        calculate(expression)


def test_tool_specification_contains_no_internal_docs() -> None:
    assert specification("list_files") == {
        "type": "function",
        "function": {
            "name": "list_files",
            "description": "List the files and folders of a folder.",
            "parameters": {
                "type": "object",
                "additionalProperties": False,
                "properties": {
                    "path": {"type": "string", "default": ".", "description": "Relative to the workspace."},
                    "recursive": {"type": "boolean", "default": False},
                    "include_hidden": {"type": "boolean", "default": False},
                    "pattern": {"type": "string", "description": "A glob the names must match, such as *.py."},
                },
            },
        },
    }
