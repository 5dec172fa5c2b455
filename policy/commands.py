"""Is this command proven to only read? What is not in the tables is not proven."""

import re
from collections.abc import Mapping
from enum import StrEnum
from typing import Any, NamedTuple

from policy.allowlist import FORBIDDEN_TRAILING_WORDS, PROGRAM_SIGNATURES, VERSION_OPTIONS
from policy.expressions import EXPRESSION_CHECKS, check_git
from policy.paths import find_path_error
from policy.shell import ShellCommand, ShellWord, Unproven, parse_commands, tokenize_without_shell
from policy.signatures import OUTSIDE_WORKSPACE, check_signature, parse_signature


class CommandClass(StrEnum):
    READ_ONLY = "read_only"
    GIT_READ = "git_read"
    """Only reads as far as git goes; but git may run what the repository's own configuration names."""
    UNPROVEN = "unproven"


class CommandClassification(NamedTuple):
    kind: CommandClass
    why: str = ""
    """Of an unproven one, as the end of a sentence."""


def classify_command(arguments: Mapping[str, Any]) -> CommandClassification:
    """Of the arguments of execute_command."""
    try:
        return CommandClassification(_classify_arguments(arguments))
    except Unproven as error:
        return CommandClassification(CommandClass.UNPROVEN, str(error))


def _classify_arguments(arguments: Mapping[str, Any]) -> CommandClass:
    line, cwd = arguments.get("command"), arguments.get("cwd")
    if not isinstance(line, str) or not line.strip():
        raise Unproven("it is empty")
    if arguments.get("shell"):
        raise Unproven("it asks for a shell")
    if cwd is not None and (wrong := find_path_error(cwd)):
        raise Unproven(f"of its folder, {wrong}")
    chain = parse_commands(line)
    kinds = {_classify_invocation(command) for command in chain}
    for split in tokenize_without_shell(line):
        _check_plain_parse(split, chain)
    return CommandClass.GIT_READ if CommandClass.GIT_READ in kinds else CommandClass.READ_ONLY


def _classify_invocation(command: ShellCommand) -> CommandClass:
    """Raises Unproven."""
    name, *words = _extract_texts(command)
    if words in ([option] for option in VERSION_OPTIONS.get(name, ())):
        return CommandClass.READ_ONLY
    if name in PROGRAM_SIGNATURES and words in (["--help"], ["--version"]):
        return CommandClass.READ_ONLY
    if name == "git":
        check_git(command)
        return CommandClass.GIT_READ
    if name in EXPRESSION_CHECKS:
        EXPRESSION_CHECKS[name](command)
    if name in PROGRAM_SIGNATURES:
        check_signature(parse_signature(PROGRAM_SIGNATURES[name]), command)
    elif name not in EXPRESSION_CHECKS:
        raise Unproven(f"{name[:40]!r} is not a program that is known to only read")
    return CommandClass.READ_ONLY


def _extract_texts(command: ShellCommand) -> list[str]:
    return [word.text for word in command.words]


def _check_plain_parse(parsed: list[list[str]], chain: list[ShellCommand]) -> None:
    """As a client reads it that splits it itself, and runs each command, or the first one with all the words."""
    ours = [_extract_texts(command) for command in chain]
    for number, words in enumerate(parsed):
        if parsed != ours:
            _classify_invocation(ShellCommand(_make_literal_words(words), is_piped=number > 0))
    program, rest = ours[0][0], [word for words in parsed[1:] for word in words]
    peril = FORBIDDEN_TRAILING_WORDS.get(program, "")
    if rest and (peril is None or any(_is_dangerous_word(word, peril, program) for word in rest)):
        raise Unproven(f"a client that uses no shell would give all of it to {program}")


def _make_literal_words(words: list[str]) -> list[ShellWord]:
    return [ShellWord(word, is_literal=True) for word in words]


PRINTING_PROGRAMS = {"echo", "printf", "true", "false"}


def _is_dangerous_word(word: str, dangerous_pattern: str, program: str) -> bool:
    if dangerous_pattern and re.match(dangerous_pattern, word):
        return True
    glued = word[2:] if word.startswith("-") else ""
    return program not in PRINTING_PROGRAMS and bool(
        OUTSIDE_WORKSPACE.search(word) or (len(glued) > 1 and OUTSIDE_WORKSPACE.search(glued))
    )
