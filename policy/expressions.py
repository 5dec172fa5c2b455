"""Check programs whose arguments are a language, or whose calls need more than a signature."""

import re
from collections.abc import Callable

from policy.allowlist import PROGRAM_SIGNATURES
from policy.find_expressions import check_find
from policy.languages.escapes import has_control_escape, is_printable_set
from policy.languages.formats import (
    PLAIN_NUMBER,
    is_bounded_seq,
    is_safe_printf,
    measure_widths,
)
from policy.languages.regexes import is_bounded_regex
from policy.options import iterate_arguments
from policy.paths import find_path_error
from policy.shell import ShellCommand, ShellWord, Unproven, quote_word
from policy.signatures import Signature, parse_signature, parse_words

MAX_MERGED_FILES = 16
"""Files that `sort -m` merges without a temporary file, in GNU by default."""

UNARY_OPERATORS = {"-" + letter for letter in "bcdefghLprsSuwxknz"}
BINARY_OPERATORS = {"=", "==", "!=", "-eq", "-ne", "-lt", "-le", "-gt", "-ge", "-nt", "-ot", "-ef"}
NUMERIC_OPERATORS = {"-eq", "-ne", "-lt", "-le", "-gt", "-ge"}


def check_test(command: ShellCommand) -> None:
    """Check each part of a test. Raises Unproven if one is not known to only read.

    Some shells evaluate a word where a number is expected, and may run commands in it.
    """
    words = [word.text for word in command.words[1:]]
    if any(word.is_glob for word in command.words[1:]):
        raise Unproven("a glob could become several words")
    if command.words[0].text == "[" and (not words or words.pop() != "]"):
        raise Unproven("the bracket is not closed")
    for part in re.split(r"\0-[ao]\0", "\0".join(words)):
        _check_test_part([word for word in part.split("\0") if word != "!"])


def _check_test_part(words: list[str]) -> None:
    match words:
        case [operator, value] if operator in ("-n", "-z"):
            is_safe = True
        case [operator, value] if operator in UNARY_OPERATORS:
            is_safe = not find_path_error(value)
        case [left, operator, right] if operator in NUMERIC_OPERATORS:
            is_safe = all(re.fullmatch(r"-?\d{1,18}", value) for value in (left, right))  # 18 digits fit 64 bits
        case [left, ("-nt" | "-ot" | "-ef"), right]:
            is_safe = not find_path_error(left) and not find_path_error(right)
        case [left, operator, right] if operator in BINARY_OPERATORS:
            is_safe = left not in UNARY_OPERATORS
        case _:
            is_safe = False
    if not is_safe:
        raise Unproven("not each part of the test is known to only read")


def check_echo(command: ShellCommand) -> None:
    """Check the words of echo. Raises Unproven for a glob, a name of cmd.exe, or an escape that some shells obey."""
    if any(has_control_escape(word.text) for word in command.words):
        raise Unproven("some shells print a control character there, which a terminal obeys")
    if any(re.search(r"%[A-Za-z_]\w+%", word.text) for word in command.words):
        raise Unproven("cmd.exe replaces a name between percent signs")
    if any(word.is_glob and re.match(r"[*?\[]", word.text) for word in command.words):
        raise Unproven("a glob could become an option")


def _require_first_option(command: ShellCommand, options: set[str]) -> None:
    """Check the first word after the program. Raises Unproven if it is none of the options."""
    if len(command.words) < 2 or command.words[1].text not in options:
        raise Unproven("it runs a program unless its first option forbids it")


def check_printf(command: ShellCommand) -> None:
    """Check the words of printf. Raises Unproven if one could be evaluated, or the format could be an option."""
    check_echo(command)
    if any(re.search(r"[$`\[]", word.text) for word in command.words):
        raise Unproven("some shells evaluate brackets")
    if len(command.words) < 2 or command.words[1].text.startswith("-") or command.words[1].is_glob:
        raise Unproven("its first operand could be an option")
    text, *values = [word.text for word in command.words[1:]]
    if not is_safe_printf(text, values) or any(word.is_glob for word in command.words):
        raise Unproven("its format is not proven to only print: some conversions assign variables or take memory")


def _forbid_pattern(pattern: str, why: str) -> Callable[[ShellCommand], None]:
    """Return a check that raises Unproven with the reason `why` if a word matches the pattern."""

    def check_words(command: ShellCommand) -> None:
        if any(re.search(pattern, word.text) for word in command.words[1:]):
            raise Unproven(why)

    return check_words


def _require_pipe(command: ShellCommand) -> None:
    """Check that a program without files gets the output of another one. Raises Unproven otherwise."""
    if not command.is_piped:
        raise Unproven("it would wait for input")


def _find_signature(command: ShellCommand) -> Signature:
    return parse_signature(PROGRAM_SIGNATURES[command.words[0].text])


def _parse_call(command: ShellCommand) -> tuple[set[str], list[ShellWord]]:
    """Return the options in use and the operands of a program of the table. Raises Unproven."""
    return parse_words(_find_signature(command), command.words[1:])


PERL_OPTIONS = {"-P", "--perl-regexp", "--pcre2"}


def _check_perl_regex(command: ShellCommand) -> None:
    """Check that an engine that backtracks gets no repeated group. Raises Unproven otherwise."""
    used, _ = _parse_call(command)
    if used & PERL_OPTIONS and not all(is_bounded_regex(word.text, backtracks=True) for word in command.words[1:]):
        raise Unproven("its expression may take exponential time")


def check_rg(command: ShellCommand) -> None:
    """Check the calls of ripgrep. Raises Unproven if it would read its input, which nobody gives it."""
    _check_perl_regex(command)
    used, operands = _parse_call(command)
    needed = 1 if used & {"-e", "--regexp"} else 2
    if not command.is_piped and not used & {"--files", "--type-list"} and len(operands) < needed:
        raise Unproven("it would wait for input; name a folder")


def check_diff(command: ShellCommand) -> None:
    """Check the calls of diff. Raises Unproven if it would follow the links that it finds in folders."""
    used, _ = _parse_call(command)
    if used & {"-r", "--recursive"} and "--no-dereference" not in used:
        raise Unproven("it would follow links; add --no-dereference")


def check_ls(command: ShellCommand) -> None:
    """Check the calls of ls. Raises Unproven if it would follow the links that it finds in folders."""
    used, _ = _parse_call(command)
    if used & {"-R", "--recursive"} and used & {"-L", "-H", "--dereference"}:
        raise Unproven("it would follow links")


def check_sort(command: ShellCommand) -> None:
    """Check the calls of sort. Raises Unproven if it would merge more files than it opens at once."""
    used, operands = _parse_call(command)
    if used & {"-m", "--merge"} and (len(operands) > MAX_MERGED_FILES or any(word.is_glob for word in operands)):
        raise Unproven("it may write a temporary file")


def check_seq(command: ShellCommand) -> None:
    """Check the numbers of seq. Raises Unproven if it prints too many lines, or may never end."""
    arguments = [*iterate_arguments(_find_signature(command), command)]
    numbers = [argument.value for argument in arguments if argument.name in ("", "-#")]
    if not 1 <= len(numbers) <= 3 or not all(PLAIN_NUMBER.fullmatch(number) for number in numbers):
        raise Unproven("its numbers are not proven harmless")
    texts = [argument.value for argument in arguments if argument.name not in ("", "-#")]
    if not is_bounded_seq(numbers, sum(len(text.encode()) + measure_widths(text) for text in texts)):
        raise Unproven("it may print too many lines")


def check_tr(command: ShellCommand) -> None:
    """Check the sets of tr. Raises Unproven if nothing is piped to it, or it could write a control character."""
    _require_pipe(command)
    sets = [each.value for each in iterate_arguments(_find_signature(command), command) if not each.name]
    if len(sets) > 1 and not is_printable_set(sets[1]):
        raise Unproven("it could write a control character, which a terminal obeys")


VARIABLE_OPERAND = re.compile(r"[A-Za-z_][A-Za-z0-9_]*+=")
PLAIN_VARIABLE = re.compile(r"[a-z][a-z0-9_]*+=[A-Za-z0-9_.:+-]{0,20}+|O?FS=[!-\[\]-~]")
"""An operand of awk that sets a variable without a meaning to awk, or a separator of one character."""


def check_awk(command: ShellCommand) -> None:
    """Check the operands of awk. Raises Unproven if one, or a name that matches a glob, could set a variable of awk."""
    _, operands = _parse_call(command)
    for word in operands[1:]:
        if VARIABLE_OPERAND.match(word.text) and not (PLAIN_VARIABLE.fullmatch(word.text) and not word.is_glob):
            raise Unproven(f"awk takes {quote_word(word.text)} for a variable, not for a file")
        if word.is_glob and re.match(r"\w*+[*?\[]", word.text):
            raise Unproven(f"{quote_word(word.text)} could become a variable of awk; write ./ before it")


EXPRESSION_CHECKS: dict[str, Callable[[ShellCommand], None]] = {
    "find": check_find,
    "test": check_test,
    "[": check_test,
    "echo": check_echo,
    "command": lambda command: _require_first_option(command, {"-v", "-V"}),
    "grep": _check_perl_regex,
    "rg": check_rg,
    "seq": check_seq,
    "diff": check_diff,
    "ls": check_ls,
    "sort": check_sort,
    "tr": check_tr,
    "awk": check_awk,
    "comm": _forbid_pattern(r"(?:^|/)\.{0,2}$", "some programs read a folder without end"),
    "strings": _forbid_pattern(r"^@", "strings reads options from a file that is named so"),
    "tree": _forbid_pattern(r"^-[^-]*[IP].|^-[^-]+[IP]", "tree takes the letters after -I and -P for options"),
    "printf": check_printf,
}
"""Checks by program. A program that has a signature too must pass both."""
