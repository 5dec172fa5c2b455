"""How a program may be called for it to only read: a form, written as one line.

    -abc        letters that may follow one dash, alone or joined        --long     a long option
    -A# -e:     a letter whose value follows, glued or as the next word  --long=#   the same of a long option
    --long=?    a value that may be left out, glued only                 -#         a dash and a number
    <           options before operands only; !-l  this letter must be there
                                               -e:SED     a value of a kind of its own
    PATH NAME   operands, in their order; with ? one or none, with + one or more, with * any number
    FILE        as PATH; without one the program reads its input, which it may in a pipe only

`#` is a number, `:` any text. `-e` and `--regexp`, `--expression`, `--files` stand for the first operand.
"""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cache
from typing import NamedTuple

from policy import script_subsets
from policy.paths import find_path_error, find_pattern_error
from policy.shell import ShellCommand, ShellWord, Unproven

FIRST_OPERAND_KINDS = {"TEXT", "SED"}
FIRST_OPERAND_OPTIONS = {"-e", "--regexp", "--expression", "--files", "--type-list"}
RECURSIVE_OPTIONS = {"-r", "-R", "--recursive", "--dereference-recursive"}


class Operand(NamedTuple):
    kind: str
    least: int
    most: int


class Signature(NamedTuple):
    options: Mapping[str, str]
    """The kind of each one's value; empty: it has none."""
    required_options: frozenset[str]
    operands: tuple[Operand, ...]
    options_first: bool = False
    """Some systems take an option behind an operand for another operand; here that would be written to."""


@cache
def parse_signature(line: str) -> Signature:
    options: dict[str, str] = {}
    needed: set[str] = set()
    operands: list[Operand] = []
    for item in line.split():
        if item.startswith("!"):
            needed |= {f"-{letter}" for letter in item[2:]}
        item = item.lstrip("!")
        if item == "<":
            continue
        if item == "-#":
            options[item] = ""
        elif item.startswith("-"):
            options |= _parse_options(item)
        else:
            operands.append(_parse_operand(item))
    return Signature(options, frozenset(needed), tuple(operands), "<" in line.split())


OPTION_PATTERN = re.compile(r"(--[\w-]+|-\w)(=?)([#:?]|)(.*)")


def _parse_options(item: str) -> dict[str, str]:
    found = OPTION_PATTERN.fullmatch(item)
    if found and (found[3] or found[1].startswith("--")):
        return {found[1]: (found[4] or found[3])}
    return dict.fromkeys((f"-{letter}" for letter in item[1:]), "")


def _parse_operand(item: str) -> Operand:
    kind, how = (item[:-1], item[-1]) if item[-1] in "?*+" else (item, "")
    least, most = {"": (1, 1), "?": (0, 1), "*": (0, 999), "+": (1, 999)}[how]
    return Operand(kind, least, most)


def check_signature(signature: Signature, command: ShellCommand) -> None:
    """Raises Unproven if the command is called in another way."""
    seen, operands = _parse_words(signature, command.words[1:])
    if signature.required_options and not signature.required_options & seen:
        raise Unproven(f"without {' or '.join(sorted(signature.required_options))} it may change something")
    wanted = list(signature.operands)
    stands_first = wanted and wanted[0].kind in FIRST_OPERAND_KINDS
    if stands_first and any(
        signature.options[name] or name.startswith("--")
        for name in FIRST_OPERAND_OPTIONS & seen & signature.options.keys()
    ):
        wanted.pop(0)
    if command.is_piped or RECURSIVE_OPTIONS & seen:
        wanted = [each._replace(least=0) if each.kind == "FILE" else each for each in wanted]
    for number, (kind, least, most) in enumerate(wanted):
        taken = min(most, max(0, len(operands) - sum(later.least for later in wanted[number + 1 :])))
        if taken < least:
            raise Unproven("an operand is missing")
        for word in operands[:taken]:
            if word.is_glob and most == 1:
                raise Unproven(f"{_quote_word(word)} could become several words")
            _check_value(kind, word)
        del operands[:taken]
    if operands:
        raise Unproven(f"the operand {_quote_word(operands[0])} is one too many")


def _parse_words(signature: Signature, words: Sequence[ShellWord]) -> tuple[set[str], list[ShellWord]]:
    seen: set[str] = set()
    operands: list[ShellWord] = []
    rest = iter(words)
    for word in rest:
        if word.text == "--":
            operands += [each._replace(text=f"./{each.text}") if each.text[:1] in "*?[-" else each for each in rest]
        elif word.text.startswith("-") and word.text != "-" and operands and signature.options_first:
            raise Unproven(f"the option {_quote_word(word)} stands after an operand")
        elif word.text.startswith("--"):
            name, glued, value = word.text.partition("=")
            _check_long_option(signature, name, word._replace(text=value) if glued else None, rest)
            seen.add(name)
        elif word.text.startswith("-") and word.text != "-":
            seen |= _check_short_options(signature, word, rest)
        else:
            operands.append(word)
    return seen, operands


def _check_long_option(signature: Signature, name: str, value: ShellWord | None, rest: Iterator[ShellWord]) -> None:
    kind = signature.options.get(name)
    if kind is None or (value is not None and not kind):
        raise Unproven(f"the option {_quote_word(ShellWord(name))} is not known")
    if kind and kind != "?":
        _check_value(kind, value if value is not None else next(rest, ShellWord("")))


def _check_short_options(signature: Signature, word: ShellWord, rest: Iterator[ShellWord]) -> set[str]:
    seen: set[str] = set()
    if word.is_glob:
        raise Unproven(f"{_quote_word(word)} could become another option")
    if "-#" in signature.options and re.fullmatch(r"-\d{1,9}", word.text):
        return seen
    for place, letter in enumerate(word.text[1:], start=2):
        kind = signature.options.get(f"-{letter}")
        if kind is None:
            raise Unproven(f"the option {_quote_word(word)} is not known")
        seen.add(f"-{letter}")
        if kind == "?":
            break
        if kind:
            glued = word.text[place:]
            _check_value(kind, ShellWord(glued) if glued else next(rest, ShellWord("")))
            break
    return seen


def _check_value(kind: str, word: ShellWord) -> None:
    if word.is_glob and kind not in ("PATH", "FILE", ":", "?"):
        raise Unproven(f"{_quote_word(word)} could become several words")
    if not VALUE_CHECKS[kind](word):
        raise Unproven(f"{_quote_word(word)} is not proven harmless there")


def _is_path(word: ShellWord) -> bool:
    if word.is_literal:
        return not OUTSIDE_WORKSPACE.search(word.text)
    if word.is_glob:
        return is_safe_glob(word.text) and not find_pattern_error(word.text)
    return not find_path_error(word.text)


OUTSIDE_WORKSPACE = re.compile(
    r"^[/~]|^\\\\|(^|[/\\=])\.\.([/\\]|$)|=[/~]|^[A-Za-z]:|(^|[/\\])\.git([/\\]|$)", re.IGNORECASE
)
"""What a path inside the workspace cannot hold, even where nobody expands it."""


def is_safe_glob(glob: str) -> bool:
    """Whether nothing it matches can be taken for an option, for the folder above, or for the repository's data."""
    return not re.match(r"[*?\[]", glob) and not re.search(r"(^|/)\.[^/]*[*?\[]", glob)


def _is_text(word: ShellWord) -> bool:
    return not word.is_glob or not re.match(r"[*?\[-]", word.text)


def _make_matcher(pattern: str) -> Callable[[ShellWord], bool]:
    return lambda word: re.fullmatch(pattern, word.text) is not None


VALUE_CHECKS: dict[str, Callable[[ShellWord], bool]] = {
    "#": _make_matcher(r"[+-]?\d{1,9}[bkKmMG]?"),
    ":": lambda word: bool(word.text) and not word.text.startswith("-") and _is_text(word),
    "?": lambda word: True,
    "PATH": _is_path,
    "FILE": lambda word: word.text == "-" or _is_path(word),
    "FOLDER": lambda word: word.text != "-" and not word.is_glob and _is_path(word),
    "OBJECT": lambda word: not word.text.startswith("@") and _is_path(word),
    "DAY": _make_matcher(r"(?!.*TZ).*([A-Za-z@:]|\d-).*"),
    "TEXT": lambda word: True,
    "NUMBER": _make_matcher(r"\d{1,6}(\.\d{1,6})?"),
    "NAME": _make_matcher(r"[A-Za-z0-9_][A-Za-z0-9_.+-]*"),
    "DATE": _make_matcher(r"\+[^\x00-\x1f]*"),
    "PS": _make_matcher(r"[aAfjlrTuwx]{1,6}"),
    "REV": lambda word: _is_revision(word.text),
    "SED": lambda word: script_subsets.is_safe_sed(word.text),
    "AWK": lambda word: script_subsets.is_safe_awk(word.text),
    "JQ": lambda word: script_subsets.is_safe_jq(word.text),
}


def _is_revision(text: str) -> bool:
    """A commit, a range, a file of a commit, or a path."""
    revision, colon, path = text.partition(":")
    if colon and (not revision or find_path_error(path)):
        return False
    return bool(re.fullmatch(r"[\w@./^~+-]+", revision)) and not find_path_error(
        revision.replace("@", "").replace("^", "") or "x"
    )


def _quote_word(word: ShellWord) -> str:
    return repr(word.text[:40])
