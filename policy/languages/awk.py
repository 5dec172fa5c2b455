"""Recognize the awk scripts that only read their input and print, within bounds of memory and time."""

from collections.abc import Iterator, Sequence
from itertools import pairwise

from policy.languages.awk_tokens import END, FOR_IN, FUNCTIONS, KEYWORDS, Token, read_tokens, token_at
from policy.languages.formats import is_safe_awk_format
from policy.languages.regexes import is_bounded_regex
from policy.limits import MAX_FIELD, MAX_GROWTH, MAX_LOOPS, MAX_SCRIPT_LENGTH

ASSIGNMENTS = frozenset({"=", "+=", "-=", "*=", "%=", "++", "--"})


def is_safe_awk(script: str) -> bool:
    """Return whether the script only reads its files and prints, ends, and needs bounded memory."""
    if len(script) > MAX_SCRIPT_LENGTH or not script.strip() or len(FOR_IN.findall(script)) > MAX_LOOPS:
        return False
    tokens = read_tokens(FOR_IN.sub(" ", script))
    return tokens is not None and all(check(tokens) for check in (_has_balanced_output, *CHECKS))


def _has_balanced_output(tokens: Sequence[Token]) -> bool:
    """Return whether no `>` can be a redirection: one inside braces may be."""
    depth = 0
    for token in tokens:
        if token.kind != "mark":
            continue
        depth += {"{": 1, "}": -1}.get(token.text, 0)
        if depth < 0 or (token.text.startswith(">") and depth):
            return False
    return depth == 0 or not any(token.text.startswith(">") for token in tokens)


def _has_bounded_texts(tokens: Sequence[Token]) -> bool:
    """Return whether every expression, and every string that may be used as one, is bounded."""
    return all(is_bounded_regex(token.text) for token in tokens if token.kind in ("regex", "string"))


def _has_literal_patterns(tokens: Sequence[Token]) -> bool:
    """Return whether patterns and formats are literals: from data they could take any memory or time."""
    for index, token in enumerate(tokens):
        following = token_at(tokens, index + 1)
        if token.text in ("~", "!~") and token.kind == "mark" and following.kind not in ("regex", "string"):
            return False
        if token == Token("name", "FS") and following.text == "=" and token_at(tokens, index + 2).kind != "string":
            return False
        if token.kind == "name" and token.text in ("printf", "sprintf"):
            first = token_at(tokens, index + 2) if following.text == "(" else following
            is_syntax_error = first == Token("mark", "%")  # as a client passes it that drops the quotes
            if not is_syntax_error and (first.kind != "string" or not is_safe_awk_format(first.text)):
                return False
        if token.kind == "name" and token.text in PATTERN_ARGUMENT:
            arguments = [*_arguments(tokens, index + 1)]
            place = PATTERN_ARGUMENT[token.text]
            if len(arguments) > place and (
                len(arguments[place]) != 1 or arguments[place][0].kind not in ("regex", "string")
            ):
                return False
    return True


PATTERN_ARGUMENT = {"sub": 0, "gsub": 0, "match": 1, "split": 2}


def _arguments(tokens: Sequence[Token], start: int) -> Iterator[list[Token]]:
    """Yield the arguments of the call whose parenthesis is at `start`."""
    depth, argument = 0, list[Token]()
    for token in tokens[start:]:
        depth += {"(": 1, "[": 1, ")": -1, "]": -1}.get(token.text, 0) if token.kind == "mark" else 0
        if depth == 0:
            break
        if depth == 1 and token == Token("mark", ","):
            yield argument
            argument = []
        elif not (depth == 1 and token == Token("mark", "(") and not argument):
            argument.append(token)
    yield argument


def _names_small_fields(tokens: Sequence[Token]) -> bool:
    """Return whether every field has a small number, or is counted from the last: some awks create all below it."""
    for index, token in enumerate(tokens):
        if token != Token("mark", "$"):
            continue
        following = token_at(tokens, index + 1)
        if following == Token("mark", "("):
            inner = {part.text for part in next(_arguments(tokens, index + 1)) if part.kind != "number"}
            numbers = [part for part in next(_arguments(tokens, index + 1)) if part.kind == "number"]
            if not inner <= {"NF", "+", "-"} or any(len(part.text) > len(str(MAX_FIELD)) for part in numbers):
                return False
        elif following.kind == "number":
            if len(following.text) > len(str(MAX_FIELD)):
                return False
        elif following != Token("name", "NF"):
            return False
    return True


def _assigns_small_fields(tokens: Sequence[Token]) -> bool:
    """Return whether only fields with a small literal number, and the last one, are assigned, and NF never is."""
    for index, token in enumerate(tokens):
        if token.kind != "mark" or token.text not in ASSIGNMENTS:
            continue
        for target in (index - 1, index + 1) if token.text in ("++", "--") else (index - 1,):
            if not _is_small_target(tokens, target, is_prefix=target > index, operator=token.text):
                return False
    return True


def _is_small_target(tokens: Sequence[Token], index: int, *, is_prefix: bool, operator: str) -> bool:
    token, before = token_at(tokens, index), token_at(tokens, index - 1)
    if is_prefix and token.text == "$":
        return token_at(tokens, index + 1).kind == "number" and len(token_at(tokens, index + 1).text) <= len(
            str(MAX_FIELD)
        )
    if token == Token("name", "NF"):
        return before.text == "$" and operator not in ("++", "--")
    if token.kind == "number":
        return before.text == "$" and len(token.text) <= len(str(MAX_FIELD))
    return before.text != "$" and token.text != ")"


def _grows_slowly(tokens: Sequence[Token]) -> bool:
    """Return whether no text grows exponentially: by joining variables, or by repeated substitutions."""
    growth, assigned = 1, _assigned_names(tokens)
    for index, token in enumerate(tokens):
        if token == Token("mark", "=") and not _is_small_join(tokens, index, assigned):
            return False
        if token.kind == "name" and token.text in ("sub", "gsub"):
            arguments = [*_arguments(tokens, index + 1)]
            if not 2 <= len(arguments) <= 3 or (len(arguments) == 3 and arguments[2][:1] != [Token("mark", "$")]):
                return False
            if len(arguments[1]) != 1 or arguments[1][0].kind != "string":
                return False
            growth *= max(1, len(arguments[1][0].text))
    return growth <= MAX_GROWTH


def _is_small_join(tokens: Sequence[Token], index: int, assigned: set[str]) -> bool:
    """Return whether the assignment at `index` joins at most one variable to texts that do not depend on variables."""
    value = [*_value(tokens, index + 1)]
    if value[-1:] == [Token("mark", "=")]:
        return False
    variables = sum(token.kind == "name" and token.text.islower() and token.text not in FUNCTIONS for token in value)
    joins = any(_ends_operand(a) and _starts_operand(b) for a, b in pairwise(value))
    joins = joins or Token("name", "sprintf") in value
    to_field = token_at(tokens, index - 2).text == "$"
    if to_field:
        return not joins and not {token.text for token in value if token.kind == "name"} & assigned
    return not joins or variables <= 1


def _assigned_names(tokens: Sequence[Token]) -> set[str]:
    """Return the variables that the script assigns; the others are empty."""
    return {
        near.text
        for index, token in enumerate(tokens)
        if token.kind == "mark" and token.text in ASSIGNMENTS
        for near in (token_at(tokens, index - 1), token_at(tokens, index + 1) if token.text in ("++", "--") else END)
        if near.kind == "name"
    }


def _value(tokens: Sequence[Token], start: int) -> Iterator[Token]:
    """Yield the tokens of an assigned value, without what stands in brackets, up to an assignment inside it."""
    depth = brackets = 0
    for token in tokens[start:]:
        if token.kind == "mark":
            brackets += {"[": 1, "]": -1}.get(token.text, 0)
            depth += {"(": 1, ")": -1}.get(token.text, 0)
            if depth < 0 or (token.text in (";", "}", "{") and not brackets):
                return
        if not brackets or token == Token("mark", "="):
            yield token
        if token == Token("mark", "="):
            return


def _ends_operand(token: Token) -> bool:
    return (
        token.kind in ("number", "string")
        or token.text in (")", "]")
        or (token.kind == "name" and token.text not in FUNCTIONS | KEYWORDS)
    )


def _starts_operand(token: Token) -> bool:
    return (
        token.kind in ("number", "string")
        or token.text in ("$", "(")
        or (token.kind == "name" and token.text not in KEYWORDS)
    )


CHECKS = (_has_bounded_texts, _has_literal_patterns, _names_small_fields, _assigns_small_fields, _grows_slowly)
