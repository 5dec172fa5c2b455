"""Find the paths that a command names, and those that it may reach.

The words of a proven command are read by its signature: a search pattern is no path there. In other commands each word,
and each part of one, may be a path. Both are joined with every folder that the command may be in.
"""

import re
from collections.abc import Iterator, Sequence
from itertools import islice, pairwise, takewhile
from typing import Any, NamedTuple

from policy.allowlist import PROGRAM_SIGNATURES, resolve_alias
from policy.commands import CommandClass, classify_invocation
from policy.file_names import is_file_name
from policy.git_contents import find_git_paths
from policy.globs import has_wildcard, normalize_path
from policy.options import Argument, iterate_arguments
from policy.shell import ShellCommand, Unproven, parse_commands, tokenize_without_shell
from policy.signatures import parse_signature, replaces_first_operand

PATH_KINDS = {"PATH", "FILE", "FOLDER", "OBJECT"}
"""The kinds of values in signatures that are paths."""
LISTING_PROGRAMS = {
    *("basename", "cd", "df", "dirname", "du", "fd", "file", "find", "ls", "readlink", "realpath", "stat"),
    "tree",
}
"""Programs of the table that print no contents of files."""
FILE_COMPARISONS = {"cmp", "comm", "join"}
"""Programs of the table that take paths and read no folder."""
RECURSIVE_OPTION = re.compile(
    r"-[A-Za-z]*[rR][A-Za-z]*|--(dereference-)?recursive|--archive|--directories=rec.*|-drec.*"
)
RECURSIVE_PROGRAMS = {
    "rg",
    "ag",
    "ack",
    "ugrep",
    "diff",
    "tar",
    "zip",
    "7z",
    "cp",
    "mv",
    "rsync",
    "scp",
    "chmod",
    "chown",
}
"""Programs outside the table, or called in a way that is not proven, that read or change the files below a folder."""
MAX_FOLDERS = 8
"""Folders that a command may be in after its `cd`s; beyond them it may be in any. Chosen, not measured."""
ANY_PATH = "**"
MAX_REACHES = 500
"""Paths of a command; one with more may reach any path. They take 1 ms, as measured."""
MAX_RAW_WORDS = 300
"""Words of a line that is not parsed; one with more may reach any path. Chosen, not measured."""
FIND_PATH_OPTIONS = {"-newer", "-anewer", "-cnewer", "-samefile"}
SEPARATORS = re.compile(r"[\s'\"=:,;|&<>(){}$`@]+")
RAW_WORD = re.compile(r"""(?:'[^']*'|"[^"]*"|\\.|[^\s;|&<>()'"\\])++""", re.DOTALL)
EXPANSION = re.compile(r"\$\{[^{}]*\}|\$\([^()]*\)|\{[^{}]*\}|`[^`]*`|\$\w+")
FOLDER_OPTIONS = {"cd", "chdir", "pushd", "-C", "--directory", "--cwd", "--chdir", "--prefix", "--work-tree"}
"""The words before the name of a folder that the rest of the command may be in."""


class Reach(NamedTuple):
    """A path that a command names or may reach."""

    path: str
    """Relative to the workspace, normalized. `*`, `?` and sets stand for names, `**` for folders."""
    is_named: bool = True
    """True if the command names the path, or a glob for it. False: the word may mean something else."""
    is_folder: bool = False
    """True if the command may read, or change, each file below it."""
    only_reads: bool = False
    is_above: bool = False
    """True if the command may change the files below it that a rule with folders names."""
    is_outside: bool = False
    """True if the path starts above the workspace, or at the root. It may still lead into the workspace."""


def iterate_reaches(command: str, cwd: str) -> Iterator[Reach]:
    """Yield the paths that the command names or may reach. After too many comes ANY_PATH, and no other."""
    reaches = _iterate_reaches(command, cwd)
    yield from islice(reaches, MAX_REACHES)
    if next(reaches, None):
        yield Reach(ANY_PATH, is_named=False)


def _iterate_reaches(command: str, cwd: str) -> Iterator[Reach]:
    """Yield the paths as a shell and other clients read the command."""
    folders = [normalize_path(cwd)]
    try:
        chain = parse_commands(command)
    except (Unproven, ValueError):
        words = [_unquote(found[0]) for found in islice(RAW_WORD.finditer(command), MAX_RAW_WORDS + 1)]
        if len(words) > MAX_RAW_WORDS:
            yield Reach(ANY_PATH, is_named=False)
        yield from _read_unproven(words, folders)
        for part in dict.fromkeys(SEPARATORS.split(command)):
            yield from _join(Reach(part), folders)
        return
    for number, each in enumerate(chain):
        yield from _read_command(each, folders, is_first=number == 0)
    shell_words = [[word.text for word in each.words] for each in chain]
    for split in tokenize_without_shell(command):
        if split != shell_words:
            words = [word for each in split for word in each]
            for reach in _read_unproven(words, folders):  # nothing is expanded there
                if not has_wildcard(reach.path):
                    yield reach._replace(is_named=False, is_above=False)


def _read_command(command: ShellCommand, folders: list[str], *, is_first: bool) -> Iterator[Reach]:
    """Yield the paths of one command, and add the folder that it enters to `folders`."""
    name, *words = [word.text for word in command.words]
    try:
        kind = classify_invocation(command)
    except Unproven:
        yield from _read_unproven([name, *words], folders)
        return
    if name == "cd":
        yield from _join(Reach(words[0]), folders)
        _enter(words[0], folders)
        return
    if not is_first:  # a client without a shell gives these words to the first program, as operands
        for word in (word for word in words if not has_wildcard(word)):
            yield from _join(Reach(word, is_named=False, only_reads=True), folders)
    if kind is CommandClass.GIT_READ:
        for path, is_folder in find_git_paths(words):
            yield from _join(Reach(path, is_folder=is_folder, only_reads=True), folders)
        return
    yield from _read_operands(resolve_alias(name), command, folders)


def _read_operands(name: str, command: ShellCommand, folders: list[str]) -> Iterator[Reach]:
    paths = [*_find_operands(name, command)]
    reads_folders = name not in LISTING_PROGRAMS | FILE_COMPARISONS and _reads_folders(name, command)
    for path in paths:
        if name in LISTING_PROGRAMS and path.rstrip("/").rpartition("/")[2][:1] in ("*", "?", "["):
            continue  # it lists names, or types of files
        yield from _join(Reach(path, is_folder=reads_folders, only_reads=True), folders)
    if reads_folders and not paths and not command.is_piped:
        yield from _join(Reach(".", is_folder=True, only_reads=True), folders)
    if name == "diff" and len(paths) == 2:  # a file is compared with the file of the same name in a folder
        for one, other in (paths, paths[::-1]):
            yield from _join(Reach(f"{one}/{other.rstrip('/').rpartition('/')[2]}"), folders)


def _reads_folders(name: str, command: ShellCommand) -> bool:
    """Return whether the program reads what is in a folder: its signature has paths, or an option says so."""
    signature = parse_signature(PROGRAM_SIGNATURES.get(name, ""))
    used = {argument.name for argument in iterate_arguments(signature, command)}
    if used & {"--files", "--type-list"}:  # ripgrep only lists
        return False
    if any(operand.kind == "PATH" for operand in signature.operands):
        return True
    return "--recursive" in signature.options and any(RECURSIVE_OPTION.fullmatch(option) for option in used)


def _find_operands(name: str, command: ShellCommand) -> Iterator[str]:
    """Yield the words of a proven command that are paths."""
    words = [word.text for word in command.words[1:]]
    if name in ("test", "["):
        yield from (word for word in words if not word.startswith("-"))
    elif name == "find":
        yield from takewhile(lambda word: not re.match(r"[-!(),\\]", word), words)
        yield from (word for option, word in pairwise(words) if option in FIND_PATH_OPTIONS)
    elif name in PROGRAM_SIGNATURES:
        signature = parse_signature(PROGRAM_SIGNATURES[name])
        arguments = [*iterate_arguments(signature, command)]
        kinds = [operand.kind for operand in signature.operands]
        if kinds and replaces_first_operand(signature, {argument.name for argument in arguments}):
            kinds = kinds[1:]
        yield from _select_paths(arguments, signature.options, kinds)


def _select_paths(arguments: Sequence[Argument], options: Any, kinds: Sequence[str]) -> Iterator[str]:
    position = 0
    for argument in arguments:
        if argument.name:
            if options.get(argument.name) in PATH_KINDS:
                yield argument.value
        else:
            if kinds and kinds[min(position, len(kinds) - 1)] in PATH_KINDS:
                yield argument.value
            position += 1


def _read_unproven(words: Sequence[str], folders: list[str]) -> Iterator[Reach]:
    """Yield every word of a command that is not proven, and every part of one."""
    names = {word.rpartition("/")[2] for word in words}
    is_recursive = bool(names & RECURSIVE_PROGRAMS) or any(map(RECURSIVE_OPTION.fullmatch, words))
    for number, word in enumerate(words):
        option, _, value = word.partition("=")
        if option in FOLDER_OPTIONS and (value or number + 1 < len(words)):
            _enter(value or words[number + 1], folders)
    for word in dict.fromkeys(words):
        yield from _join(Reach(word, is_folder=is_recursive, is_above=True), folders)
        for part in {*SEPARATORS.split(word), *_strip_options(word), word.lstrip("@%!^+")} - {word, ""}:
            yield from _join(Reach(part), folders)
    if is_recursive and not any(map(_is_path_like, words[1:])):
        yield from _join(Reach(".", is_folder=True), folders)


def _is_path_like(word: str) -> bool:
    return bool(word) and not word.startswith("-")


def _strip_options(word: str) -> Iterator[str]:
    """Yield the values that may be glued to short options."""
    letters = re.match(r"-[A-Za-z]{1,5}", word)
    for start in range(2, letters.end() + 1 if letters else 0):
        yield word[start:].lstrip("@")


def _unquote(raw: str) -> str:
    """Return a word of a line that is not parsed, without its quotes; expansions become wildcards."""
    text = re.sub(r"""'([^']*)'|"([^"]*)"|\\(.)""", lambda found: found[1] or found[2] or found[3] or "", raw)
    expanded = EXPANSION.sub("*", text)
    return expanded if expanded.strip("*/") else text


def _enter(folder: str, folders: list[str]) -> None:
    """Add the folder below each of the others. Before it stands `**` if it is not known."""
    if len(folders) > MAX_FOLDERS // 2 or re.search(r"[$`*?\[]|^[-~/]|(^|/)\.\.(/|$)", folder):
        folders[:] = [*folders[: MAX_FOLDERS // 2], "**"]
    else:
        folders += [each for parent in [*folders] if (each := normalize_path(f"{parent}/{folder}")) not in folders]


def _join(reach: Reach, folders: Sequence[str]) -> Iterator[Reach]:
    """Yield the path below each folder, without `..`."""
    if not reach.path:
        return
    if reach.only_reads and is_file_name(reach.path):
        reach = reach._replace(is_folder=False)
    for folder in folders:
        is_outside = reach.path[0] in "/~"
        names: list[str] = []
        for name in (reach.path if is_outside else f"{folder}/{reach.path}").split("/"):
            if name == "..":
                is_outside |= not names
                names = names[:-1]
            elif name not in ("", "."):
                names.append(name)
        yield reach._replace(path="/".join(names) or ".", is_outside=is_outside)
