"""Is this command proven read-only? An exact table; whatever is not in it is not proven.

Only plain words count: no quote, variable, wildcard, redirection or chain gets as far as the table, so that a shell and
a splitter of words read the command the same way.
"""

import re
from collections.abc import Mapping
from typing import Any, NamedTuple

from policy.paths import fault

PLAIN = re.compile(r"[A-Za-z0-9_./,=@+-]+(?: +[A-Za-z0-9_./,=@+-]+)*")


class Form(NamedTuple):
    """How a program may be called for it to change nothing."""

    flags: str = ""
    """Letters that may follow one dash, alone or joined."""
    options: frozenset[str] = frozenset()
    """Whole words that may stand before the operands."""
    numbered: frozenset[str] = frozenset()
    """Options whose next word is a number."""
    text: int = 0
    """How many leading operands are text, not paths."""
    least: int = 0
    """How many operands there must be, for it not to wait for its input."""
    operands: int = 1000
    """How many there may be."""


COUNTED = frozenset({"-n", "-c"})
PROGRAMS: dict[str, Form] = {
    "basename": Form(least=1, operands=1),
    "cat": Form("bensvAET", least=1),
    "cksum": Form(least=1),
    "cmp": Form("bls", least=2, operands=2),
    "date": Form("uR", operands=0),
    "df": Form("hkT"),
    "diff": Form("bBiNqruwy", least=2, operands=2),
    "dirname": Form(least=1, operands=1),
    "du": Form("abchks"),
    "false": Form(operands=0),
    "grep": Form("cEFHhiLlnoqrsvwx", text=1, least=2),
    "head": Form("qv", least=1, numbered=COUNTED),
    "id": Form("gGnu", operands=0),
    "ls": Form("1aACdFghiklnoprRsStTuUX"),
    "md5sum": Form("b", least=1),
    "nl": Form(least=1),
    "pwd": Form("LP", operands=0),
    "sha1sum": Form("b", least=1),
    "sha256sum": Form("b", least=1),
    "stat": Form("Lt", least=1),
    "tac": Form(least=1),
    "tail": Form("qv", least=1, numbered=COUNTED),
    "true": Form(operands=0),
    "uname": Form("amnoprsv", operands=0),
    "wc": Form("clLmw", least=1),
    "whoami": Form(operands=0),
}


def is_read_only(arguments: Mapping[str, Any]) -> bool:
    """Of the arguments of execute_command."""
    command, cwd = arguments.get("command"), arguments.get("cwd")
    if not isinstance(command, str) or len(command) > 4000 or arguments.get("shell"):
        return False
    if cwd is not None and fault(cwd):
        return False
    return bool(PLAIN.fullmatch(command)) and _fits(command.split())


def _fits(words: list[str]) -> bool:
    form = PROGRAMS.get(words[0])
    if form is None:
        return False
    operands = _operands(words[1:], form)
    if operands is None or not form.least <= len(operands) <= form.operands:
        return False
    return not any(map(fault, operands[form.text :]))


def _operands(words: list[str], form: Form) -> list[str] | None:
    """What is left when the options are taken away; None if one of them is not in the table."""
    operands: list[str] = []
    rest = iter(words)
    for word in rest:
        if word in form.numbered:
            if not next(rest, "").isdigit():
                return None
        elif word.startswith("-"):
            if not (word in form.options or (len(word) > 1 and set(word[1:]) <= set(form.flags))):
                return None
        else:
            operands.append(word)
    return operands
