"""Check programs whose arguments are a language: find, test, echo and others, and the reads of git."""

import re
from collections.abc import Callable

from policy.paths import find_path_error
from policy.shell import ShellCommand, ShellWord, Unproven, quote_word
from policy.signatures import VALUE_CHECKS, check_signature, parse_signature

FIND_ARGUMENTS = {
    **dict.fromkeys(["!", "(", ")", "-a", "-and", "-o", "-or", "-not", ","], ""),
    **dict.fromkeys(["-print", "-print0", "-ls", "-prune", "-quit", "-true", "-false", "-empty", "-depth", "-d"], ""),
    **dict.fromkeys(["-mount", "-xdev", "-readable", "-writable", "-executable", "-noleaf", "-daystart"], ""),
    **dict.fromkeys(["-name", "-iname", "-path", "-ipath", "-wholename", "-iwholename", "-regex", "-iregex"], "."),
    **dict.fromkeys(["-lname", "-ilname", "-printf", "-regextype", "-user", "-group", "-fstype"], "."),
    **dict.fromkeys(["-maxdepth", "-mindepth", "-links", "-inum", "-uid", "-gid"], r"[+-]?\d{1,9}"),
    **dict.fromkeys(["-mtime", "-mmin", "-atime", "-amin", "-ctime", "-cmin", "-used"], r"[+-]?\d{1,9}(\.\d+)?"),
    "-size": r"[+-]?\d{1,12}[bcwkMG]?",
    "-type": "[bcdpflsD](,[bcdpflsD])*",
    "-xtype": "[bcdpflsD]",
    "-perm": "[-/+]?[0-7ugoarwxst=,+-]{1,20}",
    **dict.fromkeys(["-newer", "-anewer", "-cnewer", "-samefile"], "/"),
}
"""The words that may follow the folders, each with the pattern of its argument.

Empty: it has no argument. `.` is any argument, `/` a path. Nine digits are a number that fits 32 bits.
"""


def check_find(command: ShellCommand) -> None:
    """Check the arguments of find. Raises Unproven if one may write, run a program, or leave the workspace."""
    words = [word._replace(text=FIND_ESCAPES.get(word.text, word.text)) for word in command.words[1:]]
    while words and words[0].text in ("-L", "-H", "-P", "-E"):
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
    if pattern == "/":
        _require_kind("PATH", word)
    elif pattern != "." and not re.fullmatch(pattern, word.text):
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
    """Check the words of echo. Raises Unproven if a glob could become an option."""
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


def _forbid_pattern(pattern: str, why: str) -> Callable[[ShellCommand], None]:
    """Return a check that raises Unproven with the reason `why` if a word matches the pattern."""

    def check_words(command: ShellCommand) -> None:
        if any(re.search(pattern, word.text) for word in command.words[1:]):
            raise Unproven(why)

    return check_words


EXPRESSION_CHECKS: dict[str, Callable[[ShellCommand], None]] = {
    "find": check_find,
    "test": check_test,
    "[": check_test,
    "echo": check_echo,
    "command": lambda command: _require_first_option(command, {"-v", "-V"}),
    "ps": _forbid_pattern(r"^-.*(e.*[axu]|[axu].*e)", "ps may show the environment of programs"),
    "strings": _forbid_pattern(r"^@", "strings reads options from a file that is named so"),
    "tree": _forbid_pattern(r"^-[^-]*[IP].|^-[^-]+[IP]", "tree takes the letters after -I and -P for options"),
    "printf": check_printf,
}
"""Checks by program. A program that has a signature too must pass both."""

COMMIT_SIGNATURE = (
    "-#pisuzRwb -n# -S: -G: -U# -M? -C? --all --branches --tags --remotes --oneline --graph --stat=? --shortstat "
    "--numstat --name-only --name-status --summary --decorate=? --no-decorate --abbrev-commit --abbrev=? --patch "
    "--no-patch --author=: --committer=: --grep=: --since=: --after=: --until=: --before=: --max-count=# --skip=# "
    "--date=: --format=: --pretty=? --merges --no-merges --first-parent --reverse --follow --full-history --topo-order "
    "--date-order --cherry-pick --left-right --color=? --no-color --word-diff=? --unified=# --ignore-all-space "
    "--ignore-space-change --find-renames=? --diff-filter=: --patch-with-stat --raw --no-ext-diff --no-textconv "
    "--dirstat=? --minimal --histogram --patience --no-renames --no-prefix REV*"
)
GIT_SIGNATURES: dict[str, str] = {
    "status": "-bsuvz --short --branch --porcelain=? --long --show-stash --ignored=? --untracked-files=? "
    "--ahead-behind --no-renames PATH*",
    "log": COMMIT_SIGNATURE,
    "show": COMMIT_SIGNATURE,
    "diff": COMMIT_SIGNATURE.replace("REV*", "--cached --staged --merge-base --check --exit-code --quiet REV*"),
    "whatchanged": COMMIT_SIGNATURE,
    "shortlog": "-censw --summary --numbered --email --all --no-merges --since=: --until=: REV*",
    "blame": "-ceflnpsw -L: -C? -M? --date=: --show-email --porcelain --line-porcelain --root REV+",
    "branch": "-arv --all --remotes --verbose --show-current --list --no-color --color=?",
    "tag": "-ln? --list --no-column",
    "remote": "-v --verbose",
    "stash": "LIST",
    "ls-files": "-cdmosktuvz --cached --deleted --modified --others --stage --exclude-standard --full-name "
    "--error-unmatch PATH*",
    "ls-tree": "-dlrtz --long --name-only --name-status --full-tree REV PATH*",
    "rev-parse": "--short=? --abbrev-ref=? --show-toplevel --show-prefix --is-inside-work-tree --git-dir --verify "
    "--quiet REV*",
    "rev-list": "-n# --all --count --max-count=# --no-merges --merges --since=: --until=: REV*",
    "describe": "--all --tags --long --always --dirty=? --abbrev=# --match=: --exact-match REV*",
    "merge-base": "--all --is-ancestor --fork-point REV+",
    "name-rev": "--name-only --tags REV+",
    "cat-file": "-epst REV",
    "grep": "-cEFGhHiIlLnoPqvw -e: -A# -B# -C# --count --line-number --name-only --files-with-matches --cached "
    "--ignore-case --word-regexp --fixed-strings --extended-regexp --perl-regexp --no-color --untracked TEXT REV*",
    "reflog": "-# -n# --oneline --date=: REV*",
    "check-ignore": "-v --verbose PATH+",
    "count-objects": "-vH --verbose --human-readable",
    "worktree": "LIST",
}
VALUE_CHECKS["LIST"] = lambda word: word.text == "list"


def check_git(command: ShellCommand) -> None:
    """Check the arguments of git. Raises Unproven if the command is not a known read.

    The programs that the repository's own configuration may run are not checked here.
    """
    words = command.words[1:]
    while words and words[0].text in ("--no-pager", "-P", "--no-optional-locks", "--literal-pathspecs"):
        words = words[1:]
    name = words[0].text if words else ""
    if name not in GIT_SIGNATURES or words[0].is_glob:
        raise Unproven(f"git {quote_word(name)} is not known to only read")
    check_signature(parse_signature(GIT_SIGNATURES[name]), ShellCommand(words, is_piped=False))
