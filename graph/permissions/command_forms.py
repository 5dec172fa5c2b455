"""Bring a command into a form that its variants share. It decides nothing but whether two commands mean the same."""

import re
import shlex
from posixpath import normpath

MAX_CHARACTERS = 4096
"""Characters of a command that is brought into a form. A longer one is compared as it is; chosen, not measured."""
COMMENT = re.compile(r"(?:^|\s)#")
SILENCED = re.compile(r"\s(?:\d|&)?>>?\s?(?:/dev/null|&\d)(?=[\s;|&]|$)")
"""Output that is dropped, or goes to the other output."""
OPERATORS = re.compile(r"[;&|()]+")
NO_EFFECT = (["true"], [":"], ["cd", "."])
"""Commands that change nothing, so that they may stand beside any other."""
TRANSPARENT_PROGRAMS = {"command", "builtin", "exec", "nohup", "time", "env"}
"""Programs that run the words behind them."""
SHELLS = {"sh", "bash", "dash", "zsh"}
SHORT_FLAGS = re.compile(r"-[A-Za-z]{1,5}")
LONG_FLAGS = {"--recursive": "-r", "--force": "-f", "--verbose": "-v", "--parents": "-p"}
FILE_PROGRAMS = {"rm", "cp", "mv", "mkdir", "rmdir", "touch", "ln"}
"""Programs whose flags may stand behind their operands."""


def normalize_command(command: str, cwd: str) -> tuple[str, list[list[str]]]:
    """Return the folder and the commands of the line, without the variants that make no difference.

    Flags are sorted, paths normalized, and commands without effect left out. A pipe is a command of its own.
    """
    if len(command) > MAX_CHARACTERS:
        return cwd, [command.split()]
    commands: list[list[str]] = []
    line = " ; ".join(map(_drop_comment, command.split("\n")))
    for words in _split_chain(SILENCED.sub("", line)):
        form = _normalize_words(words)
        if not commands and len(form) == 2 and form[0] == "cd":
            cwd = normpath(f"{cwd}/{form[1]}")
        elif form and form not in NO_EFFECT:
            commands.append(form)
    if len(commands) == 1 and len(commands[0]) == 3 and commands[0][0] in SHELLS and commands[0][1] == "-c":
        return normalize_command(commands[0][2], cwd)
    return cwd, commands


def _drop_comment(line: str) -> str:
    """Return the line without a comment at its end. With quotes behind the mark it may be none."""
    before, *comment = COMMENT.split(line, maxsplit=1)
    return line if comment and set("'\"") & set(comment[0]) else before


def _split_chain(line: str) -> list[list[str]]:
    lexer = shlex.shlex(line, posix=True, punctuation_chars=";&|()")
    lexer.whitespace_split, lexer.commenters = True, ""
    chain: list[list[str]] = [[]]
    try:
        for word in lexer:
            if not OPERATORS.fullmatch(word):
                chain[-1].append(word)
            elif word == "|":
                chain += [["|"], []]
            else:
                chain.append([])
    except ValueError:  # a quote is not closed
        return [line.split()]
    return chain


def _normalize_words(words: list[str]) -> list[str]:
    while len(words) > 1 and words[0] in TRANSPARENT_PROGRAMS:
        words = words[1:]
    if not words:
        return []
    program, rest = words[0], [word for word in words[1:] if word != "--"]
    program = program.rpartition("/")[2] if program.startswith("/") else program
    if program in FILE_PROGRAMS:
        rest = [LONG_FLAGS.get(word, word) for word in rest]
        rest = [word.replace("R", "r") if SHORT_FLAGS.fullmatch(word) else word for word in rest]
        rest.sort(key=lambda word: not SHORT_FLAGS.fullmatch(word))
    result = [_normalize_path(program)]
    for word in rest:
        if SHORT_FLAGS.fullmatch(word) and SHORT_FLAGS.fullmatch(result[-1]):
            word = result.pop() + word[1:]
        result.append(word if word.startswith("-") else _normalize_path(word))
    return ["-" + "".join(sorted(set(word[1:]))) if re.fullmatch("-[A-Za-z]+", word) else word for word in result]


def _normalize_path(word: str) -> str:
    """Return a word that may be a path without what makes no difference in one."""
    word = re.sub(r"^\$(?:PWD|\{PWD\})/", "", word)
    return word if "://" in word or re.search(r"\s", word) else normpath(word) if word else word
