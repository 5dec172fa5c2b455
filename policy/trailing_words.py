"""Check the words that the first program of a chain gets from a client that uses no shell.

Such a client may split the line itself, and give the words of all commands to the first program.
`sed -n 5p a | grep -i b` would then edit two files in place.
"""

import re
from collections.abc import Mapping, Sequence

from policy.allowlist import resolve_alias
from policy.shell import Unproven
from policy.values import OUTSIDE_WORKSPACE

_CHECKSUM = r"-[A-Za-z]*c(?!\d)|--c"
"""Check mode: the program opens every file that its operand lists."""
_GREP = r"-[^-]*[RSO]|--d"
"""Follow links, read devices."""

FORBIDDEN_WORDS: Mapping[str, str | None] = {
    "arch": None,
    "awk": r"[A-Za-z_]\w*=",
    "base64": r"-[^-]*[oiD]|--[oi]",
    "command": None,
    "date": r"-[^-]*[sfrndvj]|--[sfr]",
    "diff": r"--[ft]",
    "du": r"-[^-]*[LDHX]|--(d|f|e)",
    "fd": r"-[^-]*[xXlL]|--(e|l|b|fo)",
    "file": r"-[^-]*[CmfzZ]|--(c|f|m|u)",
    "find": r"-(exec|ok|delete|fprint|fls|files0|follow)",
    "free": r"-[^-]*[sc]|--[sc]",
    "git": r"-[^-]*[oO]|--[oetu]",
    "grep": _GREP,
    "hostname": None,
    "jq": r"-[^-]*[fL]|--(f|raw|sl|a|j|li)",
    "ls": r"-[^-]*[LH]|--d",
    "md5": r"-[^-]*[sp]",
    "netstat": None,
    "rg": r"-[^-]*[zfL]|--(pre|host|sea|fo|file$|file=|ignore-file)",
    "ss": None,
    "sed": r"-(?!\d+$|n$|E$)",
    "sort": r"-[^-]*[moTS]|--(o|comp|t|f|ra|b|pa|m)",
    "strings": r"@",
    "tail": r"-[A-Za-z]*[fF](?!\d)|--[frp]",
    "tree": r"-[^-]*[olRHT]|--(o|f|h|info)",
    "type": None,
    "uname": r"-[^-]*S",
    "uniq": None,
    "wc": r"--f",
    "xxd": None,
    **dict.fromkeys(["b2sum", "cksum", "md5sum", "shasum"], _CHECKSUM),
}
"""Patterns of the words that a program must not get from the later commands of its chain. None: it must get no word.

These are the options, in any implementation, that write, start a program, follow links, read a list of files, or do not
end. A program that is not listed has none of them. A letter before a digit is no option: `tail -f1` is an error.
"""
PRINTING_PROGRAMS = {"echo", "printf", "true", "false"}
"""Programs that open no file, so a path among their words does no harm."""


def check_trailing_words(program: str, words: Sequence[str]) -> None:
    """Check the words of the later commands. Raises Unproven if the first program could do harm with them."""
    forbidden = FORBIDDEN_WORDS.get(resolve_alias(program), "")
    if words and (forbidden is None or any(_is_dangerous(word, forbidden, program) for word in words)):
        raise Unproven(f"a client that uses no shell would give all of it to {program}")


def _is_dangerous(word: str, forbidden: str, program: str) -> bool:
    """Return whether the program could do harm with a word. `forbidden` is a pattern of its words, empty for none."""
    if forbidden and re.match(forbidden, word):
        return True
    glued = word[2:] if word.startswith("-") else ""
    return program not in PRINTING_PROGRAMS and bool(
        OUTSIDE_WORKSPACE.search(word) or (len(glued) > 1 and OUTSIDE_WORKSPACE.search(glued))
    )
