"""Check how a program is called. A signature is one line that lists the calls with which it only reads.

    -abc         letters that follow one dash, alone or joined
    -A# -e:      a letter with a value, glued to it or as the next word
    -e:SED       a letter with a value of the kind SED
    -#           a dash and a number
    !-vV         letters, one of which must be there
    --long       a long option
    --long=#     a long option with a value, after `=` or as the next word
    --long=?     a long option whose value may be left out, or follows `=`
    <            no option may follow an operand
    PATH NAME    operands, in this order; with ? none or one, with + one or more, with * any number
    FILE         a PATH that may be left out in a pipe only, since the program reads its input then

`#` is a number, `:` any text, `?` any text or none. `-e`, `--regexp`, `--expression` and `--files` replace the first
operand if it is a text or a script.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from typing import NamedTuple

from policy.shell import ShellCommand, ShellWord, Unproven, quote_word
from policy.values import VALUE_CHECKS

FIRST_OPERAND_KINDS = {"TEXT", "RE", "SED"}
"""The kinds of a first operand that an option can stand for."""
FIRST_OPERAND_OPTIONS = {"-e", "--regexp", "--expression", "--files", "--type-list"}
"""With one of these options the first operand is left out."""
MAX_OPERANDS = 999
"""Any number: a line has fewer words (MAX_PIECES of `policy.shell`)."""


class Operand(NamedTuple):
    """A position of a signature: words of one kind, and how many."""

    kind: str
    """A name of VALUE_CHECKS."""
    least: int
    most: int


class Signature(NamedTuple):
    """The permitted calls of a program."""

    options: Mapping[str, str]
    """The kind of each option's value, a name of VALUE_CHECKS. Empty: it has no value."""
    required_options: frozenset[str]
    """At least one of these must be there, if there are any."""
    operands: tuple[Operand, ...]
    options_first: bool = False
    """True if no option may follow an operand. Some systems take it for an operand, to which the program writes."""


@cache
def parse_signature(line: str) -> Signature:
    """Parse a line in the notation of this module."""
    options: dict[str, str] = {}
    required: set[str] = set()
    operands: list[Operand] = []
    for item in line.split():
        if item.startswith("!"):
            required |= {f"-{letter}" for letter in item[2:]}
        item = item.lstrip("!")
        if item == "<":
            continue
        if item == "-#":
            options[item] = ""
        elif item.startswith("-"):
            options |= _parse_options(item)
        else:
            operands.append(_parse_operand(item))
    return Signature(options, frozenset(required), tuple(operands), "<" in line.split())


OPTION_PATTERN = re.compile(r"(--[\w-]+|-\w)(=?)([#:?]|)(.*)")


def _parse_options(item: str) -> dict[str, str]:
    option = OPTION_PATTERN.fullmatch(item)
    if option and (option[3] or option[1].startswith("--")):
        return {option[1]: (option[4] or option[3])}
    return dict.fromkeys((f"-{letter}" for letter in item[1:]), "")


def _parse_operand(item: str) -> Operand:
    kind, repeat = (item[:-1], item[-1]) if item[-1] in "?*+" else (item, "")
    least, most = {"": (1, 1), "?": (0, 1), "*": (0, MAX_OPERANDS), "+": (1, MAX_OPERANDS)}[repeat]
    return Operand(kind, least, most)


def check_signature(signature: Signature, command: ShellCommand) -> None:
    """Check that the signature permits the command. Raises Unproven, with the reason, if it does not."""
    used, operands = parse_words(signature, command.words[1:])
    if signature.required_options and not signature.required_options & used:
        raise Unproven(f"without {' or '.join(sorted(signature.required_options))} it may change something")
    expected = list(signature.operands)
    if expected and expected[0].kind in FIRST_OPERAND_KINDS and replaces_first_operand(signature, used):
        expected.pop(0)
    if command.is_piped:
        expected = [each._replace(least=0) if each.kind == "FILE" else each for each in expected]
    elif any(word.text == "-" for word in operands):
        raise Unproven("it would wait for input")
    _check_operands(expected, operands)


def replaces_first_operand(signature: Signature, used: set[str]) -> bool:
    """Return whether an option in use stands for the first operand. A letter does so only if it has a value."""
    names = FIRST_OPERAND_OPTIONS & used & signature.options.keys()
    return any(signature.options[name] or name.startswith("--") for name in names)


def _check_operands(expected: Sequence[Operand], operands: list[ShellWord]) -> None:
    """Give each position as many of the operands as it may have, and leave enough for the later positions."""
    for number, (kind, least, most) in enumerate(expected):
        count = min(most, max(0, len(operands) - sum(later.least for later in expected[number + 1 :])))
        if count < least:
            raise Unproven("an operand is missing")
        for word in operands[:count]:
            if word.is_glob and most == 1:
                raise Unproven(f"{quote_word(word.text)} could become several words")
            _check_value(kind, word)
        operands = operands[count:]
    if operands:
        raise Unproven(f"the operand {quote_word(operands[0].text)} is one too many")


def parse_words(signature: Signature, words: Sequence[ShellWord]) -> tuple[set[str], list[ShellWord]]:
    """Return the options in use, whose values are checked here, and the operands."""
    used: set[str] = set()
    operands: list[ShellWord] = []
    rest = iter(words)
    for word in rest:
        if word.text == "--":
            operands += [_protect_operand(each) for each in rest]
        elif word.text.startswith("-") and word.text != "-" and operands and signature.options_first:
            raise Unproven(f"the option {quote_word(word.text)} stands after an operand")
        elif word.text.startswith("--"):
            name, glued, value = word.text.partition("=")
            _check_long_option(signature, name, word._replace(text=value) if glued else None, rest)
            used.add(name)
        elif word.text.startswith("-") and word.text != "-":
            used |= _check_short_options(signature, word, rest)
        else:
            operands.append(word)
    return used, operands


def _protect_operand(word: ShellWord) -> ShellWord:
    """Return an operand behind `--`, which is no option; a single dash is the input even there."""
    return word._replace(text=f"./{word.text}") if word.text[:1] in ("*", "?", "[", "-") and word.text != "-" else word


def _check_long_option(signature: Signature, name: str, value: ShellWord | None, rest: Iterator[ShellWord]) -> None:
    kind = signature.options.get(name)
    if kind is None or (value is not None and not kind):
        raise Unproven(f"the option {quote_word(name)} is not known")
    if kind and kind != "?":
        _check_value(kind, value if value is not None else next(rest, ShellWord("")))


def _check_short_options(signature: Signature, word: ShellWord, rest: Iterator[ShellWord]) -> set[str]:
    used: set[str] = set()
    if word.is_glob:
        raise Unproven(f"{quote_word(word.text)} could become another option")
    if "-#" in signature.options and re.fullmatch(r"-\d{1,6}", word.text):
        return used
    for position, letter in enumerate(word.text[1:], start=2):
        kind = signature.options.get(f"-{letter}")
        if kind is None:
            raise Unproven(f"the option {quote_word(word.text)} is not known")
        used.add(f"-{letter}")
        if kind == "?":
            break
        if kind:
            glued = word.text[position:]
            _check_value(kind, ShellWord(glued) if glued else next(rest, ShellWord("")))
            break
    return used


def _check_value(kind: str, word: ShellWord) -> None:
    if word.is_glob and kind not in ("PATH", "FILE", ":", "?"):
        raise Unproven(f"{quote_word(word.text)} could become several words")
    if not VALUE_CHECKS[kind](word):
        raise Unproven(f"{quote_word(word.text)} is not proven harmless there")
