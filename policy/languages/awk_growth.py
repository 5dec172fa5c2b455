"""Bound how much longer an awk script may make its input."""

from collections.abc import Sequence
from itertools import pairwise

from policy.languages.awk_tokens import END, Brackets, Token, token_at
from policy.languages.awk_values import (
    COMPARISONS,
    Assignment,
    Growing,
    Place,
    find_loop,
    has_grown_keys,
    is_safe_in_loop,
    is_variable,
    locate_tokens,
    read_assignments,
)
from policy.languages.formats import measure_widths
from policy.languages.text_growth import TextGrowth

NUMBER_BYTES = 6
"""Bytes of a printed number, such as NR. Chosen, not measured."""


def measure_output(tokens: Sequence[Token], brackets: Brackets) -> int | None:
    """Return the factor by which the script may lengthen its input; None if a text could grow without a bound."""
    try:
        assignments = read_assignments(tokens, brackets)
        places = locate_tokens(tokens)
        arrays = _find_split_arrays(tokens, brackets)
        texts = {each.name for each in assignments if each.is_text} | arrays.keys()
        loop = find_loop(tokens, brackets)
        if loop:
            texts.add(loop[2])
            _check_loop(tokens, places, loop, texts)
        _check_assignments(assignments, texts)
        _check_reads(tokens, places, texts, _find_fresh(tokens, places, assignments) | arrays)
        if has_grown_keys(tokens, texts):
            return None
        return _measure(tokens, brackets, assignments, texts)
    except Growing:
        return None


def _find_split_arrays(tokens: Sequence[Token], brackets: Brackets) -> dict[str, int]:
    """Return the arrays that split fills, with the index behind the call if it is a statement, else the last one."""
    found: dict[str, int] = {}
    for index, token in enumerate(tokens):
        if token != Token("name", "split") or token_at(tokens, index + 1).text != "(":
            continue
        arguments = brackets.arguments(index + 1)
        if len(arguments) < 2 or arguments[1][1] - arguments[1][0] != 1 or not is_variable(tokens[arguments[1][0]]):
            raise Growing
        before = index - 2 if token_at(tokens, index - 1) == Token("mark", "=") else index
        starts = token_at(tokens, before - 1) in (Token("mark", "{"), Token("mark", ";"))
        found.setdefault(tokens[arguments[1][0]].text, arguments[-1][1] if starts else len(tokens))
    return found


def _find_fresh(tokens: Sequence[Token], places: Sequence[Place], assignments: Sequence[Assignment]) -> dict[str, int]:
    """Return the variables that their action always assigns, with the index behind the first such assignment."""
    fresh: dict[str, int] = {}
    for each in assignments:
        is_scalar = token_at(tokens, each.target + 1) == Token("mark", "=")
        if is_scalar and token_at(tokens, each.target - 1) in (Token("mark", "{"), Token("mark", ";")):
            fresh.setdefault(each.name, each.end)
    return fresh


def _check_loop(tokens: Sequence[Token], places: Sequence[Place], loop: tuple[int, int, str], texts: set[str]) -> None:
    start, end, key = loop
    if not places[start - 1].is_end:
        raise Growing
    if not all(is_safe_in_loop(tokens, index, key, texts) for index in range(start, end)):
        raise Growing


def _check_assignments(assignments: Sequence[Assignment], texts: set[str]) -> None:
    """Check that no value joins a text, and no field gets one or the whole record. Raises Growing."""
    for each in assignments:
        if each.name.startswith("$"):
            copies_record = each.name == "$" and "0" in each.fields
            if each.is_join or copies_record or each.names & texts:
                raise Growing
        elif each.is_join and each.names & texts:
            raise Growing


def _check_reads(tokens: Sequence[Token], places: Sequence[Place], texts: set[str], fresh: dict[str, int]) -> None:
    """Check that a text of an earlier record is only compared, but for END. Raises Growing."""
    for index, token in enumerate(tokens):
        if token.text not in texts or not is_variable(token) or places[index].is_end:
            continue
        end = _find_read_end(tokens, index)
        before, following = token_at(tokens, index - 1), token_at(tokens, end)
        is_compared = {before.text, following.text} & COMPARISONS
        is_fresh = index >= fresh.get(token.text, len(tokens)) and (
            places[index].action == places[fresh[token.text] - 1].action
        )
        is_named = following.text == "=" or before.text == "in" or (before.text == "," and following.text in (",", ")"))
        if not (is_compared or is_fresh or is_named):
            raise Growing


def _find_read_end(tokens: Sequence[Token], index: int) -> int:
    """Return the index behind a variable, or behind a subscript without brackets in it."""
    if token_at(tokens, index + 1) != Token("mark", "["):
        return index + 1
    end = next((i for i in range(index + 2, len(tokens)) if tokens[i].text in ("[", "]")), len(tokens))
    return end + 1


def _measure(tokens: Sequence[Token], brackets: Brackets, assignments: Sequence[Assignment], texts: set[str]) -> int:
    literals = sum(len(token.text) + measure_widths(token.text) for token in tokens if token.kind == "string")
    copies, reads, numbers = _count_printed(tokens, texts)
    value_fields = max((len(each.fields) for each in assignments if not each.name.startswith("$")), default=0)
    changed_fields = sum(each.name == "$" and bool(each.fields) for each in assignments)
    line = TextGrowth()
    for index, token in enumerate(tokens):
        if token.kind == "name" and token.text in ("sub", "gsub"):
            _count_substitution(tokens, brackets, index, texts, line)
    separator = max(
        (
            1 + len(tokens[each.end - 1].text)
            for each in assignments
            if each.name == "OFS" and tokens[each.end - 1].kind == "string"
        ),
        default=1,
    )
    whole = (copies + reads * max(1, value_fields)) * (1 + changed_fields) * separator * line.total
    return max(1, whole) + literals * (1 + numbers) + NUMBER_BYTES * numbers


def _count_substitution(
    tokens: Sequence[Token], brackets: Brackets, index: int, texts: set[str], line: TextGrowth
) -> None:
    """Count a call of sub or gsub, whose replacement is a literal or a number. Raises Growing for another one."""
    arguments = brackets.arguments(index + 1)
    if not 2 <= len(arguments) <= 3 or (len(arguments) == 3 and tokens[arguments[2][0]].text != "$"):
        raise Growing
    (pattern, _), (start, end) = arguments[:2]
    if start == end:
        return  # a syntax error, as a client passes it that drops the quotes
    text = tokens[start].text
    if end - start != 1 or (tokens[start].kind != "string" and (not is_variable(tokens[start]) or text in texts)):
        raise Growing
    line.substitute(
        tokens[pattern].text, text.count("&"), len(text) - text.count("&"), everywhere=tokens[index].text == "gsub"
    )


def _count_printed(tokens: Sequence[Token], texts: set[str]) -> tuple[int, int, int]:
    """Return how often a record, a text and a number may be printed for a record."""
    fields: dict[str, int] = {}
    records = reads = numbers = 0
    is_printing, depth, has_pattern = False, 0, False
    for token, following in pairwise([*tokens, END]):
        if token.kind == "mark" and token.text in ("{", "}", ";"):
            records += has_pattern and depth == 0 and token.text == ";"
            depth += {"{": 1, "}": -1}.get(token.text, 0)
            is_printing = has_pattern = False
        elif token.kind == "name" and token.text in ("print", "printf"):
            is_printing = True
            records += following in (END, Token("mark", ";"), Token("mark", "}"))
        elif is_printing and token == Token("mark", "$"):
            fields[following.text] = fields.get(following.text, 0) + 1
        elif is_printing and token.kind == "name":
            reads += token.text in texts
            numbers += token.text not in texts
        has_pattern |= depth == 0 and token.text not in ("}", ";")
    records += has_pattern and depth == 0 and tokens[-1].text not in ("}", ";")
    anywhere = sum(fields.get(name, 0) for name in ("0", "NF", "("))
    return (
        records + anywhere + max((n for name, n in fields.items() if name.isdigit() and name != "0"), default=0),
        (reads),
        numbers,
    )
