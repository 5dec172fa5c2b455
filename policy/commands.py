"""Prove that a command only reads. A command that the tables do not contain is not proven."""

from collections.abc import Mapping
from enum import StrEnum
from typing import Any, NamedTuple

from policy.allowlist import PROGRAM_SIGNATURES, VERSION_OPTIONS, resolve_alias
from policy.expressions import EXPRESSION_CHECKS
from policy.git_reads import check_git
from policy.growth import check_growth
from policy.paths import find_path_error
from policy.shell import ShellCommand, ShellWord, Unproven, parse_commands, quote_word, tokenize_without_shell
from policy.signatures import check_signature, parse_signature
from policy.trailing_words import check_trailing_words


class CommandClass(StrEnum):
    """The result of the proof."""

    READ_ONLY = "read_only"
    GIT_READ = "git_read"
    """Git itself only reads. But it may run programs that the repository's own configuration names."""
    UNPROVEN = "unproven"


class CommandClassification(NamedTuple):
    """The class of a command, and the reason if it is not proven."""

    kind: CommandClass
    why: str = ""
    """The end of a sentence that begins "It is not proven, because". Empty for a command that is proven."""


def classify_command(arguments: Mapping[str, Any]) -> CommandClassification:
    """Classify the arguments of execute_command."""
    try:
        return CommandClassification(_classify_arguments(arguments))
    except Unproven as error:
        return CommandClassification(CommandClass.UNPROVEN, str(error))


def _classify_arguments(arguments: Mapping[str, Any]) -> CommandClass:
    line, cwd = arguments.get("command"), arguments.get("cwd")
    if not isinstance(line, str) or not line.strip():
        raise Unproven("it is empty")
    if arguments.get("shell"):
        raise Unproven("it requests a shell")
    if cwd is not None and (error := find_path_error(cwd)):
        raise Unproven(f"its folder may be outside the workspace: {error}")
    chain = parse_commands(line)
    kinds = {classify_invocation(command) for command in chain}
    check_growth(chain)
    for split in tokenize_without_shell(line):
        _check_plain_parse(split, chain)
    return CommandClass.GIT_READ if CommandClass.GIT_READ in kinds else CommandClass.READ_ONLY


def classify_invocation(command: ShellCommand) -> CommandClass:
    """Return READ_ONLY or GIT_READ. Raises Unproven."""
    name, *words = _extract_texts(command)
    if any(word.is_zsh_glob and not _is_revision(name, word) for word in command.words):
        raise Unproven("it holds a character that selects names in zsh; quote it")
    if words in ([option] for option in VERSION_OPTIONS.get(name, ())):
        return CommandClass.READ_ONLY
    if name in PROGRAM_SIGNATURES and words in (["--help"], ["--version"]):
        return CommandClass.READ_ONLY
    if name == "git":
        check_git(command)
        return CommandClass.GIT_READ
    check = EXPRESSION_CHECKS.get(resolve_alias(name))
    if check:
        check(command)
    if name in PROGRAM_SIGNATURES:
        check_signature(parse_signature(PROGRAM_SIGNATURES[name]), command)
    elif not check:
        raise Unproven(f"{quote_word(name)} is not a program that is known to only read")
    return CommandClass.READ_ONLY


def _is_revision(program: str, word: ShellWord) -> bool:
    """Return whether a word is a revision of git, as `HEAD~2`: names that zsh puts in its place are no options."""
    return program == "git" and word.text[0].isalnum() and "#" not in word.text


def _extract_texts(command: ShellCommand) -> list[str]:
    return [word.text for word in command.words]


def _check_plain_parse(parsed: list[list[str]], chain: list[ShellCommand]) -> None:
    """Check the words of a client that uses no shell. Raises Unproven.

    Such a client splits the line itself. It runs each command of the chain, or the first one with all the words.
    `chain` is the same line as a shell reads it.
    """
    shell_words = [_extract_texts(command) for command in chain]
    if parsed != shell_words:
        is_same_chain = len(parsed) == len(chain)
        literal = [
            ShellCommand(_make_literal_words(words), is_piped=chain[number].is_piped if is_same_chain else number > 0)
            for number, words in enumerate(parsed)
        ]
        for command in literal:
            classify_invocation(command)
        check_growth(literal)
    program, rest = shell_words[0][0], [word for words in parsed[1:] for word in words]
    check_trailing_words(program, rest)


def _make_literal_words(words: list[str]) -> list[ShellWord]:
    return [ShellWord(word, is_literal=True) for word in words]
