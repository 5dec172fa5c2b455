"""Bound the values of an awk script: no text grows from record to record, and none is copied for each of them.

A *text* is a variable or an array with a value from a field, a key or another variable. Numbers and literals are small.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

from policy.languages.awk_tokens import END, FUNCTIONS, KEYWORDS, VARIABLES, Brackets, Token, token_at

ARITHMETIC = frozenset({"+", "-", "*", "/", "%", "++", "--"})
COMPARISONS = frozenset({"==", "!=", "<", ">", "<=", ">="})
NUMBER_FUNCTIONS = frozenset({"length", "int", "index", "match", "split"})
"""Functions whose result is a number, whatever their arguments are."""
TEXT_FUNCTIONS = frozenset({"substr", "tolower", "toupper", "sprintf"})


class Growing(Exception):
    """A text could grow."""


@dataclass
class Assignment:
    """A variable, an element or a field, and the value that `=` gives it."""

    name: str
    """`$` for a field, `$0` for the whole record."""
    target: int
    end: int = 0
    """The index behind the value."""
    is_text: bool = False
    is_join: bool = False
    names: set[str] = field(default_factory=set)
    fields: list[str] = field(default_factory=list)


@dataclass
class Place:
    """The action of a token."""

    action: int
    is_end: bool
    """In the action of END, which runs once."""


def locate_tokens(tokens: Sequence[Token]) -> list[Place]:
    """Return the place of each token. The patterns between actions have the number of the action before them."""
    places, depth, action, is_end = list[Place](), 0, 0, False
    for index, token in enumerate(tokens):
        if token == Token("mark", "{"):
            if depth == 0:
                action, is_end = action + 1, token_at(tokens, index - 1) == Token("name", "END")
            depth += 1
        places.append(Place(action if depth else -action, is_end and depth > 0))
        if token == Token("mark", "}"):
            depth -= 1
    return places


def read_assignments(tokens: Sequence[Token], brackets: Brackets) -> list[Assignment]:
    """Return what `=` assigns. Raises Growing for an assignment inside of a value."""
    return [
        _read_assignment(tokens, brackets, index) for index, token in enumerate(tokens) if token == Token("mark", "=")
    ]


def _read_assignment(tokens: Sequence[Token], brackets: Brackets, index: int) -> Assignment:
    target = index - 1
    if tokens[target] == Token("mark", "]"):
        target = brackets.opener[target] - 1
    found = Assignment(tokens[target].text, target)
    if token_at(tokens, target - 1) == Token("mark", "$"):
        found.name = "$0" if found.name == "0" else "$"
    position, depth = index + 1, 0
    while position < len(tokens):
        token = tokens[position]
        if token.kind == "mark":
            depth += {"(": 1, ")": -1}.get(token.text, 0)
            if depth < 0 or token.text in (";", "{", "}", "]") or (token.text == "," and not depth):
                break
            if token.text in ("=", "+=", "-=", "*=", "%="):
                raise Growing
        last = _find_leaf_end(tokens, brackets, position)
        _note_leaf(tokens, found, position, last)
        found.is_join |= joins(tokens[last], token_at(tokens, last + 1))
        position = last + 1
    found.end = position
    found.is_text |= found.is_join and bool(found.fields or found.names)
    return found


def _find_leaf_end(tokens: Sequence[Token], brackets: Brackets, position: int) -> int:
    """Return the last token of the element, field or call of a number that begins at `position`."""
    token, following = tokens[position], token_at(tokens, position + 1)
    if token == Token("mark", "$"):
        return brackets.closer.get(position + 1, position + 1)
    if token.kind == "name" and (following.text == "[" or (following.text == "(" and token.text in NUMBER_FUNCTIONS)):
        return brackets.closer.get(position + 1, len(tokens) - 1)
    return position


def _note_leaf(tokens: Sequence[Token], found: Assignment, start: int, last: int) -> None:
    """Add a field or a variable to the value. It is a number only beside an operator of arithmetic."""
    token = tokens[start]
    is_number = bool({token_at(tokens, start - 1).text, token_at(tokens, last + 1).text} & ARITHMETIC)
    if token == Token("mark", "$"):
        found.fields.append(tokens[min(start + 1, len(tokens) - 1)].text)
        found.is_text |= not is_number
    elif token.kind == "name" and token.text in NUMBER_FUNCTIONS:
        found.names |= {each.text for each in tokens[start + 1 : last] if is_variable(each)}
    elif is_variable(token) or token.text == "FILENAME":
        found.names.add(token.text)
        found.is_text |= not is_number
    elif token.text in TEXT_FUNCTIONS and token.kind == "name":
        found.is_text = True
        found.is_join |= token.text == "sprintf"


def is_variable(token: Token) -> bool:
    """Return whether the token is a name that the script itself chose."""
    return token.kind == "name" and token.text.islower() and token.text not in FUNCTIONS | KEYWORDS | VARIABLES


def joins(left: Token, right: Token) -> bool:
    """Return whether two neighbours are joined to one text."""
    ends = left.kind in ("number", "string") or left.text in (")", "]")
    ends |= left.kind == "name" and left.text not in FUNCTIONS | KEYWORDS
    starts = right.kind in ("number", "string") or right.text in ("$", "(", "!")
    return ends and (starts or (right.kind == "name" and right.text not in KEYWORDS))


def has_grown_keys(tokens: Sequence[Token], texts: set[str]) -> bool:
    """Return whether a subscript may join a text to another one: the keys of an array could grow."""
    depth, is_join, names = 0, False, set[str]()
    for index, token in enumerate(tokens):
        if token.kind == "mark":
            depth += {"[": 1, "]": -1}.get(token.text, 0)
        if is_join and names & texts:
            return True
        if not depth:
            is_join, names = False, set()
        else:
            following = token_at(tokens, index + 1)
            is_join |= token.text == "," or (joins(token, following) and following.text != "(")
            names |= {token.text} if is_variable(token) and following.text != "[" else set()
    return False


def find_loop(tokens: Sequence[Token], brackets: Brackets) -> tuple[int, int, str] | None:
    """Return where the body of the loop over an array begins and ends, and its variable; None without a loop.

    Raises Growing for a second loop, for one that is not in END, and for one that is no loop over an array.
    """
    loops = [index for index, token in enumerate(tokens) if token == Token("name", "for")]
    if not loops:
        return None
    start = loops[0]
    head = [token.text for token in tokens[start + 1 : start + 6]]
    is_plain = len(loops) == 1 and head[:1] == ["("] and head[2:3] == ["in"] and head[4:] == [")"]
    if not is_plain or not is_variable(tokens[start + 2]) or not is_variable(tokens[start + 4]):
        raise Growing
    return start + 6, _find_statement_end(tokens, brackets, start + 6), head[1]


def _find_statement_end(tokens: Sequence[Token], brackets: Brackets, start: int) -> int:
    """Return the index behind the statement that begins at `start`, and behind its `else`."""
    while start < len(tokens):
        if tokens[start].text == "if" and tokens[start].kind == "name":
            start = brackets.closer.get(start + 1, len(tokens)) + 1
            continue
        if tokens[start] == Token("mark", "{"):
            end = brackets.closer.get(start, len(tokens)) + 1
        else:
            ends = (i for i in range(start, len(tokens)) if tokens[i] in (Token("mark", ";"), Token("mark", "}")))
            end = next(ends, len(tokens))
        behind = end + (token_at(tokens, end) == Token("mark", ";"))
        if token_at(tokens, behind) != Token("name", "else"):
            return end
        start = behind + 1
    return len(tokens)


def is_safe_in_loop(tokens: Sequence[Token], index: int, key: str, texts: set[str]) -> bool:
    """Return whether the token reads no text that is the same in each turn of the loop, and adds no element."""
    token, before, following = tokens[index], token_at(tokens, index - 1), token_at(tokens, index + 1)
    if token.text in ("$", "sub", "gsub", "split", "match", "FILENAME") and token.kind != "string":
        return False
    if token.kind == "regex":
        return before.text in ("~", "!~")
    if token.text == "length" and token.kind == "name":
        return following.text == "("
    if token.text == "print" and token.kind == "name":
        return following not in (END, Token("mark", ";"), Token("mark", "}"))
    if token == Token("mark", "["):
        return following == Token("name", key) and token_at(tokens, index + 2).text == "]"
    return not is_variable(token) or token.text == key or token.text not in texts or following.text in ("[", "=")
