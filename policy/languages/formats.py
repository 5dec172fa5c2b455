"""Allow-lists of the conversions in the format texts of printf, awk, find, stat, seq and date."""

import re
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from policy.languages.escapes import has_control_escape
from policy.limits import MAX_LINES, MAX_SEQ_BYTES, MAX_WIDTH

_WIDTH = r"\d{1,3}"
CONVERSION = re.compile(rf"%(?:%|([-+ 0#]{{0,4}}(?:{_WIDTH})?(?:\.(?:{_WIDTH})?)?)([A-Za-z]))")
PRINTF_TEXT = frozenset("sbc")
PRINTF_NUMBER = frozenset("dioxXufFeEgG")
AWK_CONVERSIONS = frozenset("sdioxXufFeEgG")
"""Not `c`, which makes a control character of a number."""
PLAIN_NUMBER = re.compile(r"[+-]?\d{1,18}(?:\.\d{1,18})?")
_TIME_FIELD = r"[ACT][@aAbBcdDFhHIjklmMpSTuUVwWxXyYZ+]"
FIND_CONVERSION = re.compile(
    rf"%(?:%|[-+ 0#]?(?:{_WIDTH})?(?:\.{_WIDTH})?(?:[abcdDfFgGhHiklmMnpPsStuUyY]|{_TIME_FIELD}))"
)
STAT_CONVERSION = re.compile(rf"%(?:%|[-+ 0#]?(?:{_WIDTH})?(?:\.{_WIDTH})?[aAbBCdDfFgGhHimMnNorRsStTuUwWxXyYzZ])")
DATE_CONVERSION = re.compile(r"%(?:[-_0^#]?[aAbBcCdDeFgGhHIjklmMnNpPqrRsStTuUVwWxXyYzZ%]|:{1,3}z)")
SEQ_FORMAT = re.compile(rf"[^%]*%[-+ 0#]?(?:{_WIDTH})?(?:\.\d{{1,2}})?[fgGeE][^%]*")


class Conversion(NamedTuple):
    letter: str
    is_number: bool


def _conversions(text: str) -> Iterator[Conversion | None]:
    """Yield each conversion of a printf format, and None for a percent sign that begins none."""
    position = 0
    while (position := text.find("%", position)) >= 0:
        found = CONVERSION.match(text, position)
        if found is None:
            yield None
            return
        position = found.end()
        if found[2]:
            yield Conversion(found[2], found[2] in PRINTF_NUMBER)


def is_safe_printf(text: str, values: Sequence[str]) -> bool:
    """Return whether printf only prints: known conversions, and plain numbers where a number is converted.

    Some shells evaluate such an argument as arithmetic, which can assign variables. `%n` assigns one in all of them.
    """
    if has_control_escape(text) or any(map(has_control_escape, values)):
        return False
    found = [*_conversions(text)]
    if any(each is None or each.letter not in PRINTF_TEXT | PRINTF_NUMBER for each in found):
        return False
    known = [each for each in found if each]
    return all(
        PLAIN_NUMBER.fullmatch(value)
        for index, value in enumerate(values)
        if known and known[index % len(known)].is_number
    )


def is_safe_awk_format(text: str) -> bool:
    """Return whether the format of awk's printf has known conversions only, each of a bounded width."""
    return all(each is not None and each.letter in AWK_CONVERSIONS for each in _conversions(text))


def _has_only(pattern: re.Pattern[str], text: str) -> bool:
    return "%" not in pattern.sub("", text)


def is_safe_find_format(text: str) -> bool:
    return _has_only(FIND_CONVERSION, text) and not has_control_escape(text)


def is_safe_stat_format(text: str) -> bool:
    return _has_only(STAT_CONVERSION, text) and not has_control_escape(text)


def is_safe_date_format(text: str) -> bool:
    return _has_only(DATE_CONVERSION, text) and not has_control_escape(text)


def is_safe_seq_format(text: str) -> bool:
    return SEQ_FORMAT.fullmatch(text) is not None and not has_control_escape(text)


def is_bounded_seq(numbers: Sequence[str], extra: int) -> bool:
    """Return whether `seq LAST`, `seq FIRST LAST` or `seq FIRST STEP LAST` prints a bounded number of lines and bytes.

    `extra` are the bytes that its separator and its format add to each number.
    """
    values = [float(number) for number in numbers]
    first, step, last = {1: (1.0, 1.0, values[-1]), 2: (values[0], 1.0, values[-1])}.get(
        len(values), (values[0], values[len(values) // 2], values[-1])
    )
    if step == 0:
        return False
    lines = max(0.0, (last - first) / step) + 1
    return lines <= MAX_LINES + 1 and lines * (max(map(len, numbers)) + 1 + extra) <= MAX_SEQ_BYTES


def measure_widths(text: str) -> int:
    """Return the characters that the widths and precisions of the conversions in a format may add."""
    return sum(int(number) for number in re.findall(r"[0-9]{1,4}+", text)) if "%" in text else 0


def is_width(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) <= len(str(MAX_WIDTH))


def is_width_list(text: str) -> bool:
    """Return whether the text is a list of tab stops or columns, such as `4` or `1,5,9`."""
    return all(is_width(part) for part in re.split(r"[, ]", text)) if text else False
