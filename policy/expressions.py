"""Check programs whose arguments are a language, or whose calls need more than a signature."""

import re
from collections.abc import Callable

from policy.allowlist import PROGRAM_SIGNATURES
from policy.languages.formats import PLAIN_NUMBER, is_bounded_seq, is_safe_find_format, is_safe_printf
from policy.languages.regexes import is_bounded_regex
from policy.paths import find_path_error
from policy.shell import ShellCommand, ShellWord, Unproven, quote_word
from policy.signatures import parse_signature, parse_words
from policy.values import VALUE_CHECKS

MAX_MERGED_FILES = 16
"""Files that `sort -m` merges without a temporary file, in GNU by default."""

FIND_ARGUMENTS = {
    **dict.fromkeys(["!", "(", ")", "-a", "-and", "-o", "-or", "-not", ","], ""),
    **dict.fromkeys(["-print", "-print0", "-ls", "-prune", "-quit", "-true", "-false", "-empty", "-depth", "-d"], ""),
    **dict.fromkeys(["-mount", "-xdev", "-readable", "-writable", "-executable", "-noleaf", "-daystart"], ""),
    **dict.fromkeys(["-name", "-iname", "-path", "-ipath", "-wholename", "-iwholename", "-lname", "-ilname"], "GLOB"),
    **dict.fromkeys(["-regex", "-iregex"], "RE"),
    "-printf": "FINDFORMAT",
    **dict.fromkeys(["-regextype", "-user", "-group", "-fstype"], r"[\w.+-]{1,64}"),
    **dict.fromkeys(["-maxdepth", "-mindepth", "-links", "-inum", "-uid", "-gid"], r"[+-]?\d{1,9}"),
    **dict.fromkeys(["-mtime", "-mmin", "-atime", "-amin", "-ctime", "-cmin", "-used"], r"[+-]?\d{1,9}(\.\d+)?"),
    "-size": r"[+-]?\d{1,12}[bcwkMG]?",
    "-type": "[bcdpflsD](,[bcdpflsD])*",
    "-xtype": "[bcdpflsD]",
    "-perm": "[-/+]?[0-7ugoarwxst=,+-]{1,20}",
    **dict.fromkeys(["-newer", "-anewer", "-cnewer", "-samefile"], "PATH"),
}
"""The words that may follow the folders, each with the pattern of its argument.

Empty: it has no argument. A name in capitals is a kind of value. Nine digits are a number that fits 32 bits.
"""

VALUE_CHECKS["FINDFORMAT"] = lambda word: is_safe_find_format(word.text)


def check_find(command: ShellCommand) -> None:
    """Check the arguments of find. Raises Unproven if one may write, run a program, or leave the workspace."""
    words = [word._replace(text=FIND_ESCAPES.get(word.text, word.text)) for word in command.words[1:]]
    while words and words[0].text in ("-P", "-E"):
        words.pop(0)
    while words and not re.match(r"[-!(),]", words[0].text):
        _require_kind("PATH", words.pop(0))
    rest = iter(words)
    for word in rest:
        pattern = FIND_ARGUMENTS.get(word.text)
        if pattern is None or word.is_glob:
            raise Unproven(f"find's {quote_word(word.text)} is not known to only read")
        if pattern:
            _check_argument(pattern, next(rest, ShellWord("")))


FIND_ESCAPES = {"\\(": "(", "\\)": ")", "\\!": "!"}
"""Escaped words, as a client passes them that uses no shell. find refuses them, so they do no harm."""


def _check_argument(pattern: str, word: ShellWord) -> None:
    if word.is_glob or not word.text:
        raise Unproven(f"{quote_word(word.text)} could become several words; quote it")
    if pattern == "PATH":
        _require_kind("PATH", word)
    elif not (VALUE_CHECKS[pattern](word) if pattern.isupper() else re.fullmatch(pattern, word.text)):
        raise Unproven(f"{quote_word(word.text)} is not proven harmless there")


def _require_kind(kind: str, word: ShellWord) -> None:
    if not VALUE_CHECKS[kind](word):
        raise Unproven(f"{quote_word(word.text)} is not proven to be inside the workspace")


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
    """Check the words of echo. Raises Unproven if a glob could become an option, or cmd.exe replaces a word."""
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


PERL_OPTIONS = {"-P", "--perl-regexp", "--pcre2"}


def _check_perl_regex(command: ShellCommand) -> None:
    """Check that an engine that backtracks gets no repeated group. Raises Unproven otherwise."""
    used, _ = parse_words(parse_signature(PROGRAM_SIGNATURES[command.words[0].text]), command.words[1:])
    if used & PERL_OPTIONS and not all(is_bounded_regex(word.text, backtracks=True) for word in command.words[1:]):
        raise Unproven("its expression may take exponential time")


def check_rg(command: ShellCommand) -> None:
    """Check the calls of ripgrep. Raises Unproven if it would read its input, which nobody gives it."""
    _check_perl_regex(command)
    signature = parse_signature(PROGRAM_SIGNATURES["rg"])
    used, operands = parse_words(signature, command.words[1:])
    needed = 1 if used & {"-e", "--regexp"} else 2
    if not command.is_piped and not used & {"--files", "--type-list"} and len(operands) < needed:
        raise Unproven("it would wait for input; name a folder")


def check_diff(command: ShellCommand) -> None:
    """Check the calls of diff. Raises Unproven if it would follow the links that it finds in folders."""
    used, _ = parse_words(parse_signature(PROGRAM_SIGNATURES["diff"]), command.words[1:])
    if used & {"-r", "--recursive"} and "--no-dereference" not in used:
        raise Unproven("it would follow links; add --no-dereference")


def check_ls(command: ShellCommand) -> None:
    """Check the calls of ls. Raises Unproven if it would follow the links that it finds in folders."""
    used, _ = parse_words(parse_signature(PROGRAM_SIGNATURES["ls"]), command.words[1:])
    if used & {"-R", "--recursive"} and used & {"-L", "-H", "--dereference"}:
        raise Unproven("it would follow links")


def check_sort(command: ShellCommand) -> None:
    """Check the calls of sort. Raises Unproven if it would merge more files than it opens at once."""
    used, operands = parse_words(parse_signature(PROGRAM_SIGNATURES["sort"]), command.words[1:])
    if used & {"-m", "--merge"} and (len(operands) > MAX_MERGED_FILES or any(word.is_glob for word in operands)):
        raise Unproven("it may write a temporary file")


def check_seq(command: ShellCommand) -> None:
    """Check the numbers of seq. Raises Unproven if it prints too many lines, or may never end."""
    _, operands = parse_words(parse_signature(PROGRAM_SIGNATURES["seq"]), command.words[1:])
    numbers = [word.text for word in operands]
    if not 1 <= len(numbers) <= 3 or not all(PLAIN_NUMBER.fullmatch(number) for number in numbers):
        raise Unproven("its numbers are not proven harmless")
    if not is_bounded_seq(numbers):
        raise Unproven("it may print too many lines")


EXPRESSION_CHECKS: dict[str, Callable[[ShellCommand], None]] = {
    "find": check_find,
    "test": check_test,
    "[": check_test,
    "echo": check_echo,
    "command": lambda command: _require_first_option(command, {"-v", "-V"}),
    "grep": _check_perl_regex,
    "egrep": _check_perl_regex,
    "fgrep": _check_perl_regex,
    "rg": check_rg,
    "seq": check_seq,
    "diff": check_diff,
    "ls": check_ls,
    "sort": check_sort,
    "tr": _require_pipe,
    "strings": _forbid_pattern(r"^@", "strings reads options from a file that is named so"),
    "tree": _forbid_pattern(r"^-[^-]*[IP].|^-[^-]+[IP]", "tree takes the letters after -I and -P for options"),
    "printf": check_printf,
}
"""Checks by program. A program that has a signature too must pass both."""
