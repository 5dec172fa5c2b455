"""Read the words of a command as options and operands, after its signature has permitted them."""

from collections.abc import Iterator
from typing import NamedTuple

from policy.shell import ShellCommand
from policy.signatures import Signature


class Argument(NamedTuple):
    """An option, or an operand, which has no name. `-#` is the name of a dash and a number."""

    name: str
    value: str = ""


def iterate_arguments(signature: Signature, command: ShellCommand) -> Iterator[Argument]:
    """Yield the options with their values, and the operands."""
    words = iter([word.text for word in command.words[1:]])
    for word in words:
        if word == "--":
            yield from (Argument("", operand) for operand in words)
        elif word.startswith("--"):
            name, glued, value = word.partition("=")
            takes_next = not glued and signature.options.get(name, "") not in ("", "?")
            yield Argument(name, next(words, "") if takes_next else value)
        elif not word.startswith("-") or word == "-":
            yield Argument("", word)
        elif "-#" in signature.options and word[1:].isdigit():
            yield Argument("-#", word)
        else:
            yield from _iterate_letters(signature, word, words)


def _iterate_letters(signature: Signature, word: str, rest: Iterator[str]) -> Iterator[Argument]:
    for position, letter in enumerate(word[1:], start=2):
        kind = signature.options.get(f"-{letter}", "")
        if kind:
            yield Argument(f"-{letter}", word[position:] or ("" if kind == "?" else next(rest, "")))
            return
        yield Argument(f"-{letter}")
