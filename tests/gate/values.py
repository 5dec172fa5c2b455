"""Choose values for options and operands: ordinary ones, boundaries, and words with two readings."""

import tomllib
from pathlib import Path
from random import Random

_TABLES = tomllib.loads(Path(__file__).with_name("words.toml").read_text("utf-8"))
WORDS: dict[str, list[str]] = {name: text.split() for name, text in _TABLES["words"].items()}
LINES: dict[str, list[str]] = {name: text.strip("\n").split("\n") for name, text in _TABLES["lines"].items()}
NUMBERS, TEXTS, PATTERNS, NAMES = WORDS["numbers"], WORDS["texts"], WORDS["patterns"], WORDS["names"]
FILES, DAYS = LINES["files"], LINES["days"]
FILE_KINDS = {"PATH", "FILE", "FOLDER", "OBJECT"}
BY_KIND = {
    **dict.fromkeys(["#", "NUMBER", "SMALL", "THREADS"], NUMBERS),
    **dict.fromkeys(["WIDTH", "TABS"], WORDS["widths"]),
    **dict.fromkeys(["SEQFORMAT", "STATFORMAT", "TIMESTYLE"], WORDS["formats"]),
    "NAME": NAMES,
    "DAY": DAYS,
    "RE": PATTERNS,
    "GLOB": WORDS["globs"],
    "RANGES": WORDS["ranges"],
    "COLUMNS": WORDS["columns"],
}
"""The words for each kind of `policy.signatures`. A kind that is not listed gets any text."""

QUOTED = set(" \t'\"\\$`*?[]{}()<>|;&#~!=%^")


def choose_value(kind: str, random: Random) -> str:
    """Return a value for a kind of `policy.signatures`, mostly one of that kind, as it is written in a line."""
    if kind in FILE_KINDS:
        return random.choice(FILES)
    words = BY_KIND.get(kind, TEXTS) if random.random() < 0.85 else random.choice([NUMBERS, TEXTS, PATTERNS, NAMES])
    return quote_value(random.choice(words), random)


def quote_value(value: str, random: Random) -> str:
    """Return the value as a word of a shell: mostly so that the shell gives it back, in one of several styles."""
    style = random.random()
    needs_quotes = not value or bool(QUOTED & set(value))
    if style < (0.1 if needs_quotes else 0.7):
        return value
    if style < 0.75 and "'" not in value:
        return f"'{value}'"
    if style < 0.92:
        return '"' + "".join(f"\\{char}" if char in '\\"$`' else char for char in value) + '"'
    if style < 0.96:
        return "".join(f"\\{char}" if char in QUOTED else char for char in value)
    half = random.randint(0, len(value))
    return f"'{value[:half]}'{value[half:]}" if "'" not in value[:half] else f"''{value}"
