"""Bound how much longer the commands of a pipeline make their input, together: doublings multiply."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

from policy.allowlist import PROGRAM_SIGNATURES, resolve_alias
from policy.languages.awk import measure_awk
from policy.languages.formats import measure_widths
from policy.languages.jq import measure_jq
from policy.languages.sed import measure_sed
from policy.limits import MAX_GROWTH
from policy.options import Argument, iterate_arguments
from policy.shell import ShellCommand, Unproven
from policy.signatures import parse_signature

PREFIX_BYTES = 7
"""Bytes that a line number and its separator add to a line, which may have one byte."""
NAME_BYTES = 18
"""The name of the input, `(standard input)`, before each line."""
DUMP_BYTES = 4
"""Bytes that a dump writes for a byte, in each of its formats."""
DUMP_ADDRESS_BYTES = 12
"""Bytes of an address, where a line of the dump shows one byte."""
DEFAULT_TAB = 8


def check_growth(chain: Sequence[ShellCommand]) -> None:
    """Check that no pipeline of the chain lengthens its input beyond the limit. Raises Unproven."""
    growth = 1
    for command in chain:
        growth = (growth if command.is_piped else 1) * _measure(command)
        if growth > MAX_GROWTH:
            raise Unproven("its output could be too many times longer than its input")


class _Options(NamedTuple):
    arguments: list[Argument]
    is_literal: bool

    def has(self, *names: str) -> bool:
        return any(argument.name in names for argument in self.arguments)

    def count(self, *names: str) -> int:
        return sum(argument.name in names for argument in self.arguments)

    def values(self, *names: str) -> list[str]:
        return [argument.value for argument in self.arguments if argument.name in names]

    def longest(self, *names: str) -> int:
        return max((len(value.encode()) for value in self.values(*names)), default=0)

    def largest(self, *names: str, default: int) -> int:
        numbers = [int(part) for value in self.values(*names) for part in value.replace(",", " ").split()]
        return max(numbers, default=default)

    def script(self) -> str:
        return next(iter(self.values("")), "")


def _measure(command: ShellCommand) -> int:
    name = command.words[0].text
    rule = GROWTH_RULES.get(resolve_alias(name))
    if rule is None or command.words[-1].text in ("--help", "--version"):
        return 1
    arguments = [*iterate_arguments(parse_signature(PROGRAM_SIGNATURES[name]), command)]
    return rule(_Options(arguments, command.words[-1].is_literal))


def _measure_sed(options: _Options) -> int:
    growth = 1
    for script in options.values("-e", "--expression") or [options.script()]:
        growth *= measure_sed(script) or 1
    return growth


def _measure_jq(options: _Options) -> int:
    texts = 6 if options.has("-R", "--raw-input") else 1
    colors = 12 if options.has("-C", "--color-output") else 1
    return (measure_jq(options.script(), is_literal=options.is_literal) or 1) * texts * colors


def _measure_grep(options: _Options) -> int:
    prefixes = options.count("-n", "-b", "-c", "--line-number", "--byte-offset", "--column", "--count")
    names = options.count("-H", "--with-filename", "--label")
    return 1 + PREFIX_BYTES * bool(prefixes) + NAME_BYTES * bool(names) + options.has("-o", "--only-matching")


def _measure_rg(options: _Options) -> int:
    """Measure ripgrep: `$0` and the like copy the match; a line of JSON has about 250 bytes for each match."""
    copies = max((value.count("$") for value in options.values("-r", "--replace")), default=0)
    literals = options.longest("-r", "--replace")
    json = 250 if options.has("--json") else 0
    return _measure_grep(options) - 1 + max(1, copies + literals) + json


def _measure_dump(options: _Options) -> int:
    letters = sum(len(value) for value in options.values("-t", "--format"))
    formats = letters + sum(len(each.name) == 2 and not each.value for each in options.arguments)
    is_narrow = options.has("-w", "-c", "--width", "-g")
    return DUMP_BYTES * max(1, formats) + (DUMP_ADDRESS_BYTES if is_narrow else 1)


def _measure_nl(options: _Options) -> int:
    separator = max(1, options.longest("-s", "--number-separator"))
    return 1 + separator + options.largest("-w", "--number-width", default=PREFIX_BYTES - 1)


def _measure_cat(options: _Options) -> int:
    numbers = options.has("-n", "-b", "--number", "--number-nonblank")
    shown = options.has("-A", "-e", "-t", "-v", "-E", "-T", "--show-all", "--show-ends", "--show-nonprinting")
    return 1 + PREFIX_BYTES * numbers + 3 * shown


def _measure_column(options: _Options) -> int:
    names = sum(len(value) for value in options.values("-N", "--table-columns"))
    return 2 + names + options.longest("-o", "--output-separator") + 8 * options.has("-J", "--json")


def _measure_diff(options: _Options) -> int:
    if options.has("-y", "--side-by-side"):
        return options.largest("-W", "--width", default=130)
    return 3


def _measure_formats(options: _Options) -> int:
    """Measure find and stat: the formats write names of at least one byte, and literal texts."""
    texts = options.values("-c", "--format", "--printf")
    return 1 + sum(text.count("%") + measure_widths(text) for text in texts)


GROWTH_RULES: dict[str, Callable[[_Options], int]] = {
    "awk": lambda options: measure_awk(options.script()) or 1,
    "base64": lambda options: 1 if options.has("-d", "--decode") else 3,
    "cat": _measure_cat,
    "cmp": lambda options: 16,
    "column": _measure_column,
    "comm": lambda options: 3 + 2 * options.longest("--output-delimiter"),
    "cut": lambda options: max(1, options.longest("--output-delimiter")),
    "diff": _measure_diff,
    "expand": lambda options: options.largest("-t", "--tabs", default=DEFAULT_TAB),
    "fmt": lambda options: 2,
    "fold": lambda options: 2,
    "grep": _measure_grep,
    **dict.fromkeys(["hexdump", "od", "xxd"], _measure_dump),
    "join": lambda options: 2 + sum(value.count(",") for value in options.values("-o")) + options.longest("-e"),
    "jq": _measure_jq,
    "nl": _measure_nl,
    "paste": lambda options: 2,
    "rg": _measure_rg,
    "sed": _measure_sed,
    "stat": _measure_formats,
    "uniq": lambda options: 1 + (PREFIX_BYTES + 1) * options.has("-c", "--count"),
}
"""The factor of each program that may print more than it reads, from its options."""
