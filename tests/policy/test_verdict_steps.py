"""A verdict takes time in proportion to the length of the text, whatever the text is."""

import ast
import re
import sys
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

import policy
from policy.commands import classify_command

sre, sre_parser = import_module("re._constants"), import_module("re._parser")
"""The parser of the module `re`, which has no types."""
LENGTHS = (180, 360)
"""Characters of the repeated part: one is twice the other, and both are below each limit of a length."""
MAX_STEP_RATIO = 2.6
"""Twice the length may take 2.6 times the steps: an algorithm of squared time takes four times as many."""
FREE_STEPS = 4000
"""Steps of a text that is refused early, and of tables that are filled once. Chosen, not measured."""
REPEATED = {
    "awk '{}' f": (
        *("x=", "$1=", "x=(", "$1=a;", "a[", "a[1]=", "$(", "$(1)", "split(", "gsub(", "sub(1,", "/a/,", "!/a b", "x "),
        *("x++ ", "print x;", "{", "}", ",", "for(a in b)", "if(a)", "else ", '"a"', "a/", "x=x;", "(", ")", "END{"),
        *("printf ", "a,", "split(a,b,", "~/a/", "<", "[", "]", "x[1]", "(a)", "\\"),
    ),
    "sed '{}' f": ("p;", "s/a/b/;", "s/./&&/g;", "1,", "/a/", "!", "[a]", "[", "\\", "s", "$", "1~2p;", "[[:alpha:]]"),
    "jq '{}' f": ('"a"', '"\\(', "[", "{", "(", ".[]", "..|", ".a", "|", ",", "test(", "@json|", "a", "1", "\\", "if "),
    "grep -P '{}' f": ("(", ")", "a*", "a{1,2}", "{", "\\d", "\\", "?", "|", "[", "(?:", "(?", "{1,"),
    "grep -E '{}' f": ("(a){2}", "{", "{ 1", "a{1}", "\\{", "[a]", "{0000"),
    "cut -f {} f": ("1,", "1-", "-", ",", "111111,"),
    "ls ./{}": ("?/", "[a]", "[", "*", "a/", "a*/", ".", "../", "[!", "]", "?", ".g*/"),
    "find . -name '{}'": ("*", "[", "{", "a", "?("),
    "printf '{}' 1": ("%d", "%", "%5.3", "\\", "%-", "%s"),
    "cat f | tr x '{}'": ("[", "*", "\\", "[:", "\\n-", "-"),
    "echo '{}'": ("%a", "%", "\\", "a%", "\\\\"),
    "ps -o {}": ("comm", "pid,", "=", "etimes", ","),
    "expand -t {} f": ("1,", "1", ","),
    "date '+{}'": ("%", "%Y", "%:", "%-", "\\"),
    "date --date='{}'": ("1-", "1", "TZ", "a"),
    "seq -f '{}' 9": ("%", "%g", "1", "%0"),
    "find . -printf '{}'": ("%p", "%", "%T", "%-1", "\\"),
    "cat {}": ("a", "'a'", '"', "..", ".git/", "%a", "\\a"),
    "grep -{} x f": ("P", "n", "e", "P1"),
    "tree -{} .": ("I", "a", "-"),
}
"""Lines with a place for a text, and the texts that are repeated there: the parts of each reader's patterns."""


def count_steps(line: str) -> int:
    """Return how many lines of Python a verdict runs."""
    steps = 0

    def count(frame: FrameType, event: str, argument: Any) -> Any:
        nonlocal steps
        steps += event == "line"
        return count

    before = sys.gettrace()
    sys.settrace(count)
    try:
        classify_command({"command": line})
    finally:
        sys.settrace(before)
    return steps


@pytest.mark.parametrize("line", REPEATED)
def test_twice_the_text_takes_twice_the_steps(line: str) -> None:
    for part in REPEATED[line]:
        short, long = (count_steps(line.replace("{}", part * (length // len(part)))) for length in LENGTHS)
        assert long <= MAX_STEP_RATIO * short + FREE_STEPS, (part, short, long)


def find_patterns() -> Iterator[tuple[str, str]]:
    """Yield each text of the package that is given to the module `re`, with its file."""
    for file in sorted(Path(policy.__path__[0]).rglob("*.py")):
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Constant) and isinstance(node.value, str) and re.search(r"[*+}]", node.value):
                yield file.name, node.value


def has_nested_repetition(parsed: Any, *, inside: bool = False) -> bool:
    """Return whether a repetition that can give back characters has a part that can be matched in several lengths."""
    for operator, value in parsed:
        bodies, is_repeated = [], inside
        if operator in (sre.MAX_REPEAT, sre.MIN_REPEAT):
            if inside and value[0] != value[1]:
                return True
            bodies, is_repeated = [value[2]], inside or value[1] > 1
        elif operator is sre.SUBPATTERN:
            bodies = [value[-1]]
        elif operator is sre.BRANCH:
            bodies = value[1]
        if any(has_nested_repetition(body, inside=is_repeated) for body in bodies):
            return True
    return False


@pytest.mark.parametrize(("file", "pattern"), [*find_patterns()], ids=lambda text: ascii(text[:30]))
def test_no_pattern_repeats_what_is_repeated(file: str, pattern: str) -> None:
    """A text that is no pattern is parsed as one too, or is none."""
    try:
        parsed = sre_parser.parse(pattern, re.VERBOSE if "\n" in pattern else 0)
    except re.error:
        return
    assert not has_nested_repetition(parsed), file


def test_nested_repetition_is_found() -> None:
    for pattern in (r"(a+)+", r"(?:,\d{0,6}-?\d{0,6}){0,99}", r"(a|b*)*x", r"(?:ab?)+"):
        assert has_nested_repetition(sre_parser.parse(pattern)), pattern
    for pattern in (r"(?:[^\"\\]|\\.)*", r"(?:a++)+", r"\d{1,6}(?:-\d{0,6})?"):
        assert not has_nested_repetition(sre_parser.parse(pattern)), pattern
