"""Read a command line as words: as a shell does, and as a client does that splits it itself.

Only a small part of the shell's language is read at all. Two readers must agree on it: the tokens below and
tree-sitter's grammar of bash. The tokens come first, since the grammar takes half a second for some lines of 4 kB.
"""

import re
from collections.abc import Iterator
from typing import NamedTuple

import tree_sitter_bash
from tree_sitter import Language, Node, Parser

from policy.limits import MAX_COMMAND_BYTES, MAX_COMMANDS, MAX_PIECES, MAX_STARS


class Unproven(Exception):
    """The command is not proven to only read; `str(error)` says why, as the end of a sentence."""


class ShellWord(NamedTuple):
    """A word of a command."""

    text: str
    """The word without its quotes."""
    is_glob: bool = False
    """True if a shell would look for names that match it."""
    is_literal: bool = False
    """True if no shell reads it, so that nothing in it is expanded."""
    is_zsh_glob: bool = False
    """True if zsh would look for names as well, where EXTENDED_GLOB is set: `^a` is all names but a."""


MAX_QUOTED_CHARACTERS = 40
"""Characters of a word that a reason quotes. It keeps the sentence on one line; chosen, not measured."""


def quote_word(text: str) -> str:
    """Return the beginning of a word as a Python literal, for the reason of Unproven."""
    return repr(text[:MAX_QUOTED_CHARACTERS])


class ShellCommand(NamedTuple):
    """One command of a chain."""

    words: list[ShellWord]
    is_piped: bool = False
    """True if its input is the output of another command."""


SPACE_PATTERN = r"(?P<space>[ \t]+)"
OPERATOR_PATTERN = r"(?P<operator>&&|\|\||\||;)"
PIECE_PATTERNS = {
    "single": r"'[^']*'",
    "double": r'"(?:[^"\\$`!]|\\[^\n]|\$(?=")|!(?=[ ="]))*"',
    "escaped": r"\\[!-~]",
    "plain": r"[^\s'\"\\$`<>(){}&|;]+",
}
PIECE_REGEX = re.compile(
    "|".join([SPACE_PATTERN, OPERATOR_PATTERN, *(f"(?P<{name}>{piece})" for name, piece in PIECE_PATTERNS.items())])
)
UNSUPPORTED_SYNTAX = (
    (re.compile(r"[$`]"), "a variable or a substitution"),
    (re.compile(r"[<>]"), "a redirection"),
    (re.compile(r"&"), "a command in the background"),
    (re.compile(r"[(){}]"), "a group, a function or braces"),
    (re.compile(r"['\"]"), "a quote that is not closed"),
)
SWALLOWED = re.compile(r"[^\x00-\x7f][0-9@-~]")
"""A character beyond ASCII, and one that can be the second byte of a character in GBK, Big5 or Shift-JIS.

In a locale of these encodings a program reads the bytes of UTF-8 in another way: a quote, a backslash or a bracket
behind such a character could lose its meaning.
"""
OPERATORS = {"&&", "||", "|", ";"}


def parse_commands(line: str) -> list[ShellCommand]:
    """Return the commands of the line as a shell reads it.

    Raises Unproven if the line holds more than words, quotes and the operators of a chain.
    """
    if len(line.encode("utf-8", "replace")) > MAX_COMMAND_BYTES:
        raise Unproven(f"it is longer than {MAX_COMMAND_BYTES} bytes")
    if not line.replace("\t", " ").isprintable():
        raise Unproven("it holds a line break or a character that cannot be seen")
    if SWALLOWED.search(line):
        raise Unproven("in some encodings a character of it would swallow the next one")
    tokens = _tokenize_shell_line(line)
    chain = _build_chain(tokens)
    if [*_iterate_leaves(_parse_tree(line))] != ["".join(raw for _, raw in token) for token in tokens]:
        raise Unproven("its grammar is not that of a plain command")
    return chain


ShellToken = list[tuple[str, str]]
"""The pieces of a word, or one operator. A piece is its kind, a name of PIECE_PATTERNS or "operator", and its text."""


def _tokenize_shell_line(line: str) -> list[ShellToken]:
    tokens: list[ShellToken] = []
    starts_word, position, pieces = True, 0, 0
    while position < len(line):
        piece = PIECE_REGEX.match(line, position)
        pieces += 1
        if piece is None or pieces > MAX_PIECES:
            raise Unproven(_describe_syntax(line[position:]) if piece is None else "it has too many words")
        kind, position = piece.lastgroup or "", piece.end()
        if starts_word and kind != "space":
            tokens.append([])
        if kind == "operator" and not starts_word:
            tokens.append([])
        if kind != "space":
            tokens[-1].append((kind, piece[0]))
        starts_word = kind in ("space", "operator")
    return tokens


def _describe_syntax(rest: str) -> str:
    return next(
        (f"it holds {what}" for pattern, what in UNSUPPORTED_SYNTAX if pattern.match(rest)), "it cannot be read"
    )


def _build_chain(tokens: list[ShellToken]) -> list[ShellCommand]:
    chain = [ShellCommand([])]
    for token in tokens:
        kind, raw = token[0]
        if kind == "operator":
            chain.append(ShellCommand([], is_piped=raw == "|"))
        else:
            chain[-1].words.append(_parse_word(token))
    if len(chain) > 1 and not chain[-1].words:
        chain.pop()  # a chain may end with a semicolon
    if not all(command.words for command in chain):
        raise Unproven("it holds an empty command")
    if len(chain) > MAX_COMMANDS:
        raise Unproven("it is a chain of too many commands")
    if not all(PROGRAM_NAME.fullmatch(command.words[0].text) for command in chain):
        raise Unproven("a program is named in a way that is not known")
    if any(command.words[0].text == "[" and not _is_plain_test(command) for command in chain):
        raise Unproven("it holds brackets or globs in brackets")
    return chain


def _is_plain_test(command: ShellCommand) -> bool:
    """Return whether the test ends with `]`, and the words before that hold no bracket and no glob.

    The grammar needs a long time for other tests.
    """
    return command.words[-1].text == "]" and not any(
        word.is_glob or "]" in word.text or "[" in word.text for word in command.words[1:-1]
    )


PROGRAM_NAME = re.compile(r"[a-z][a-z0-9_+.-]*|\[")


EXPANDING_START = re.compile(r"[~=#]")
"""The start of a home folder (~), of a program's path in zsh (=) or of a comment (#)."""
ZSH_GLOB = re.compile(r"[\^#~]")
"""Characters that select names in zsh with EXTENDED_GLOB, which widespread configurations set."""
WILDCARD = re.compile(r"[*?\[]")
EXPANDING_TILDE = re.compile(r"[=:]~")
"""A home folder inside a word, as in an assignment."""


PLAIN_WORD = re.compile(r"[\w./,:%@+-]+")
"""Most words: they have no character that any shell expands."""


def _parse_word(token: ShellToken) -> ShellWord:
    if len(token) == 1 and PLAIN_WORD.fullmatch(token[0][1]):
        return ShellWord(token[0][1])
    pieces = [(kind, raw) for kind, raw in token if raw not in ("''", '""')]
    kind, raw = pieces[0] if pieces else token[0]
    if kind == "plain" and EXPANDING_START.match(raw) and not (len(pieces) == 1 and raw in ("=", "==")):
        raise Unproven("it holds a home folder, a comment, or the path of a program")
    plain = [raw for kind, raw in token if kind == "plain"]
    if any(EXPANDING_TILDE.search(raw) or ("!" in raw and len(token) + len(raw) > 2 and raw != "!=") for raw in plain):
        raise Unproven("it holds a home folder or an event of the history")
    is_glob = any(WILDCARD.search(raw) for raw in plain) and token != [("plain", "[")]
    if is_glob and sum(raw.count("*") for raw in plain) > MAX_STARS:
        raise Unproven("it holds a glob with many stars")
    text = "".join(_unquote_piece(kind, raw) for kind, raw in token)
    return ShellWord(text, is_glob, is_zsh_glob=any(ZSH_GLOB.search(raw) for raw in plain))


def _unquote_piece(kind: str, raw: str) -> str:
    match kind:
        case "single":
            return raw[1:-1]
        case "double":
            return re.sub(r'\\([$`"\\])', r"\1", raw[1:-1])
        case "escaped":
            return raw[1:]
    return raw


BASH_GRAMMAR = Language(tree_sitter_bash.language())
LEAF_NODE_TYPES = {"word", "number", "raw_string", "string", "concatenation", "test_operator"}
GROUP_NODE_TYPES = {
    *("program", "list", "pipeline", "command", "command_name", "test_command"),
    *("unary_expression", "binary_expression", "negated_command"),
}


def _parse_tree(line: str) -> Node:
    return Parser(BASH_GRAMMAR).parse(line.encode()).root_node


def _iterate_leaves(node: Node) -> Iterator[str]:
    """Yield the words and operators of the tree, in order. Raises Unproven for anything else."""
    if node.has_error or node.is_missing:
        raise Unproven("it is no valid command")
    if node.type in LEAF_NODE_TYPES or not node.is_named:
        yield (node.text or b"").decode()
    elif node.type in GROUP_NODE_TYPES:
        for child in node.children:
            yield from _iterate_leaves(child)
    else:
        raise Unproven(f"it holds a {node.type.replace('_', ' ')}")


QUOTED_STRING = r"""'[^']*(?:'|$)|"[^"]*(?:"|$)"""
QUOTED = re.compile(QUOTED_STRING)
PLAIN_PART = re.compile(rf"&&|\|\||[|;&]|(?:{QUOTED_STRING}|[^\s'\"|;&])+")


def tokenize_without_shell(line: str) -> list[list[list[str]]]:
    """Return the commands of the line, each as its words, in the two ways of clients that use no shell.

    The first way takes two kinds of quotes, the second takes both kinds for one. A backslash has no meaning.
    """
    lines = [line, line.replace('"', "'")] if '"' in line else [line]
    return [*map(_tokenize_plain_line, lines)]


def _tokenize_plain_line(line: str) -> list[list[str]]:
    commands: list[list[str]] = [[]]
    for word in PLAIN_PART.findall(line):
        if word in OPERATORS | {"&"}:
            commands.append([])
        else:
            commands[-1].append(_unquote_word(word))
    return [words for words in commands if words]


def _unquote_word(word: str) -> str:
    return QUOTED.sub(lambda quoted: quoted[0][1:].removesuffix(quoted[0][0]), word)
