"""Programs whose arguments are a language: find, test, echo and others, and the reads of git."""

import re
from collections.abc import Callable

from policy.paths import fault
from policy.shell import Command, Unproven, Word
from policy.signatures import KINDS, check, form

FIND = {
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
"""What may follow the folders; the pattern of its argument, `.` for any, `/` for a path."""


def find(command: Command) -> None:
    words = [word._replace(text=UNESCAPED.get(word.text, word.text)) for word in command.words[1:]]
    while words and words[0].text in ("-L", "-H", "-P", "-E"):
        words.pop(0)
    while words and not re.match(r"[-!(),]", words[0].text):
        _require("PATH", words.pop(0))
    rest = iter(words)
    for word in rest:
        pattern = FIND.get(word.text)
        if pattern is None or word.is_glob:
            raise Unproven(f"find's {word.text[:40]!r} is not known to only read")
        if pattern:
            _argument(pattern, next(rest, Word("")))


UNESCAPED = {"\\(": "(", "\\)": ")", "\\!": "!"}
"""As a client gives them that uses no shell; find refuses them then."""


def _argument(pattern: str, word: Word) -> None:
    if word.is_glob or not word.text:
        raise Unproven(f"{word.text[:40]!r} could become several words; quote it")
    if pattern == "/":
        _require("PATH", word)
    elif pattern != "." and not re.fullmatch(pattern, word.text):
        raise Unproven(f"{word.text[:40]!r} is not proven harmless there")


def _require(kind: str, word: Word) -> None:
    if not KINDS[kind](word):
        raise Unproven(f"{word.text[:40]!r} is not proven to be inside the workspace")


UNARY = {"-" + letter for letter in "bcdefghLprsSuwxknz"}
BINARY = {"=", "==", "!=", "-eq", "-ne", "-lt", "-le", "-gt", "-ge", "-nt", "-ot", "-ef"}
NUMERIC = {"-eq", "-ne", "-lt", "-le", "-gt", "-ge"}


def test(command: Command) -> None:
    """Some shells compute what stands where a number is expected, and may run commands for it."""
    words = [word.text for word in command.words[1:]]
    if any(word.is_glob for word in command.words[1:]):
        raise Unproven("a glob could become several words")
    if command.words[0].text == "[" and (not words or words.pop() != "]"):
        raise Unproven("the bracket is not closed")
    for part in re.split(r"\0-[ao]\0", "\0".join(words)):
        _tested([word for word in part.split("\0") if word != "!"])


def _tested(words: list[str]) -> None:
    match words:
        case [operator, value] if operator in ("-n", "-z"):
            fine = True
        case [operator, value] if operator in UNARY:
            fine = not fault(value)
        case [left, operator, right] if operator in NUMERIC:
            fine = all(re.fullmatch(r"-?\d{1,18}", value) for value in (left, right))
        case [left, ("-nt" | "-ot" | "-ef"), right]:
            fine = not fault(left) and not fault(right)
        case [left, operator, right] if operator in BINARY:
            fine = left not in UNARY
        case _:
            fine = False
    if not fine:
        raise Unproven("not each part of the test is known to only read")


def echo(command: Command) -> None:
    if any(word.is_glob and re.match(r"[*?\[]", word.text) for word in command.words):
        raise Unproven("a glob could become an option")


def _first(command: Command, options: set[str]) -> None:
    if len(command.words) < 2 or command.words[1].text not in options:
        raise Unproven("it runs a program unless its first option forbids it")


def printf(command: Command) -> None:
    echo(command)
    if any(re.search(r"[$`\[]", word.text) for word in command.words):
        raise Unproven("some shells compute what stands in brackets")
    if len(command.words) < 2 or command.words[1].text.startswith("-") or command.words[1].is_glob:
        raise Unproven("its first operand could be an option")


def _without(pattern: str, why: str) -> Callable[[Command], None]:
    """A condition besides the form of the table."""

    def look(command: Command) -> None:
        if any(re.search(pattern, word.text) for word in command.words[1:]):
            raise Unproven(why)

    return look


EXPRESSIONS: dict[str, Callable[[Command], None]] = {
    "find": find,
    "test": test,
    "[": test,
    "echo": echo,
    "command": lambda command: _first(command, {"-v", "-V"}),
    "ps": _without(r"^-.*(e.*[axu]|[axu].*e)", "ps may show the environment of programs"),
    "strings": _without(r"^@", "strings reads options from a file that is named so"),
    "tree": _without(r"^-[^-]*[IP].|^-[^-]+[IP]", "tree takes the letters after -I and -P for options"),
    "printf": printf,
}

COMMITS = (
    "-#pisuzRwb -n# -S: -G: -U# -M? -C? --all --branches --tags --remotes --oneline --graph --stat=? --shortstat "
    "--numstat --name-only --name-status --summary --decorate=? --no-decorate --abbrev-commit --abbrev=? --patch "
    "--no-patch --author=: --committer=: --grep=: --since=: --after=: --until=: --before=: --max-count=# --skip=# "
    "--date=: --format=: --pretty=? --merges --no-merges --first-parent --reverse --follow --full-history --topo-order "
    "--date-order --cherry-pick --left-right --color=? --no-color --word-diff=? --unified=# --ignore-all-space "
    "--ignore-space-change --find-renames=? --diff-filter=: --patch-with-stat --raw --no-ext-diff --no-textconv "
    "--dirstat=? --minimal --histogram --patience --no-renames --no-prefix REV*"
)
GIT: dict[str, str] = {
    "status": "-bsuvz --short --branch --porcelain=? --long --show-stash --ignored=? --untracked-files=? "
    "--ahead-behind --no-renames PATH*",
    "log": COMMITS,
    "show": COMMITS,
    "diff": COMMITS.replace("REV*", "--cached --staged --merge-base --check --exit-code --quiet REV*"),
    "whatchanged": COMMITS,
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
KINDS["LIST"] = lambda word: word.text == "list"


def git(command: Command) -> None:
    """Its reads; what a repository's own configuration may run then is not looked at here."""
    words = command.words[1:]
    while words and words[0].text in ("--no-pager", "-P", "--no-optional-locks", "--literal-pathspecs"):
        words = words[1:]
    name = words[0].text if words else ""
    if name not in GIT or words[0].is_glob:
        raise Unproven(f"git {name[:40]!r} is not known to only read")
    check(form(GIT[name]), Command(words, piped=False))
