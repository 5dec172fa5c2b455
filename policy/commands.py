"""Is this command proven to only read? What is not in the tables is not proven."""

import re
from collections.abc import Mapping
from enum import StrEnum
from typing import Any, NamedTuple

from policy.allowlist import ALONE, PROGRAMS, VERSIONS
from policy.expressions import EXPRESSIONS, git
from policy.paths import fault
from policy.shell import Command, Unproven, Word, commands, splits
from policy.signatures import LEADS_OUT, check, form


class CommandClass(StrEnum):
    READ_ONLY = "read_only"
    GIT_READ = "git_read"
    """Only reads as far as git goes; but git may run what the repository's own configuration names."""
    UNPROVEN = "unproven"


class Reading(NamedTuple):
    kind: CommandClass
    why: str = ""
    """Of an unproven one, as the end of a sentence."""


def classify(arguments: Mapping[str, Any]) -> Reading:
    """Of the arguments of execute_command."""
    try:
        return Reading(_proven(arguments))
    except Unproven as error:
        return Reading(CommandClass.UNPROVEN, str(error))


def _proven(arguments: Mapping[str, Any]) -> CommandClass:
    line, cwd = arguments.get("command"), arguments.get("cwd")
    if not isinstance(line, str) or not line.strip():
        raise Unproven("it is empty")
    if arguments.get("shell"):
        raise Unproven("it asks for a shell")
    if cwd is not None and (wrong := fault(cwd)):
        raise Unproven(f"of its folder, {wrong}")
    chain = commands(line)
    kinds = {_fits(command) for command in chain}
    for split in splits(line):
        _fits_split(split, chain)
    return CommandClass.GIT_READ if CommandClass.GIT_READ in kinds else CommandClass.READ_ONLY


def _fits(command: Command) -> CommandClass:
    """Raises Unproven."""
    name, *words = _texts(command)
    if words in ([option] for option in VERSIONS.get(name, ())):
        return CommandClass.READ_ONLY
    if name in PROGRAMS and words in (["--help"], ["--version"]):
        return CommandClass.READ_ONLY
    if name == "git":
        git(command)
        return CommandClass.GIT_READ
    if name in EXPRESSIONS:
        EXPRESSIONS[name](command)
    if name in PROGRAMS:
        check(form(PROGRAMS[name]), command)
    elif name not in EXPRESSIONS:
        raise Unproven(f"{name[:40]!r} is not a program that is known to only read")
    return CommandClass.READ_ONLY


def _texts(command: Command) -> list[str]:
    return [word.text for word in command.words]


def _fits_split(split: list[list[str]], chain: list[Command]) -> None:
    """As a client reads it that splits it itself, and runs each command, or the first one with all the words."""
    ours = [_texts(command) for command in chain]
    for number, words in enumerate(split):
        if split != ours:
            _fits(Command(_literal(words), piped=number > 0))
    program, rest = ours[0][0], [word for words in split[1:] for word in words]
    peril = ALONE.get(program, "")
    if rest and (peril is None or any(_is_perilous(word, peril, program) for word in rest)):
        raise Unproven(f"a client that uses no shell would give all of it to {program}")


def _literal(words: list[str]) -> list[Word]:
    return [Word(word, is_literal=True) for word in words]


TALKERS = {"echo", "printf", "true", "false"}


def _is_perilous(word: str, peril: str, program: str) -> bool:
    if peril and re.match(peril, word):
        return True
    glued = word[2:] if word.startswith("-") else ""
    return program not in TALKERS and bool(LEADS_OUT.search(word) or (len(glued) > 1 and LEADS_OUT.search(glued)))
