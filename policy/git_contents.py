"""Find the files whose contents a read of git prints."""

import re
from collections.abc import Iterator, Sequence

PATCH_OPTION = re.compile(r"-[A-Za-z]*[pu]|-U.*|--(patch|patch-with-stat|unified|word-diff|check)(=.*)?")
"""Options with which git prints lines of files."""
SUMMARY_OPTION = re.compile(
    r"-s|--(stat|shortstat|numstat|name-only|name-status|summary|no-patch|raw|dirstat|quiet)(=.*)?"
)
"""Options with which `diff` and `show` print none."""
HEAD_REVISION = re.compile(r"(HEAD|@)[~^0-9]*")
"""A revision that is a commit for certain. Another name may be that of a file's contents."""
ALWAYS_PRINT = {"grep", "blame"}
PRINT_UNLESS_SUMMARY = {"diff", "show"}
PRINT_PATCHES = {"log", "whatchanged"}


def find_git_paths(words: Sequence[str]) -> Iterator[tuple[str, bool]]:
    """Yield the paths that a proven read of git names or prints, each with whether all below it may be printed.

    `words` are those after `git`. Without a `--` a word may be a revision: then any file may be printed.
    """
    while words and words[0].startswith("-"):
        words = words[1:]
    name, *rest = words
    options, marker, paths = rest, "", list[str]()
    if "--" in rest:
        options, marker, paths = rest[: rest.index("--")], "--", rest[rest.index("--") + 1 :]
    operands = [word for word in options if not word.startswith("-")]
    prints = _prints_contents(name, [word for word in options if word.startswith("-")], operands)
    for operand in [*operands, *paths]:
        revision, colon, path = operand.partition(":")
        if colon or not marker or operand in paths:
            yield (path if colon else revision), prints
    if not prints or (marker and paths):
        return
    if name == "blame" or (name in ("show", "cat-file") and operands and all(":" in operand for operand in operands)):
        return
    yield ".", True


def _prints_contents(name: str, options: Sequence[str], operands: Sequence[str]) -> bool:
    if name in ALWAYS_PRINT:
        return True
    if name == "cat-file":
        return "-p" in options
    is_patch = any(map(PATCH_OPTION.fullmatch, options))
    if name in PRINT_PATCHES:
        return is_patch
    if name not in PRINT_UNLESS_SUMMARY:
        return False
    is_commit = name == "diff" or all(map(HEAD_REVISION.fullmatch, operands))
    return is_patch or not is_commit or not any(map(SUMMARY_OPTION.fullmatch, options))
