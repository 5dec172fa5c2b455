"""Check the expressions of find."""

import re

from policy.languages.formats import is_safe_find_format
from policy.shell import ShellCommand, ShellWord, Unproven, quote_word
from policy.values import VALUE_CHECKS

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
