"""Write scripts of the inner languages: sed, awk, jq, find expressions, printf and date formats, tests."""

from collections.abc import Callable, Sequence
from random import Random

from tests.gate.values import FILES, LINES, NUMBERS, PATTERNS, TEXTS, WORDS

Maker = Callable[[Random], str]


def mutate(text: str, pieces: Sequence[str], random: Random) -> str:
    """Return the text with up to three pieces or characters inserted, removed, doubled or exchanged."""
    for _ in range(random.choice([0, 0, 1, 1, 2, 3])):
        position = random.randint(0, len(text))
        end = min(len(text), position + random.choice([0, 0, 1, 1, 2, 5]))
        piece = random.choice([random.choice(pieces), "", text[position:end] * 2, random.choice(text or " ")])
        text = text[:position] + piece + text[end:]
    return text


def make_sed(random: Random) -> str:
    """Return a script of sed, from a seed or from parts."""
    if random.random() < 0.4:
        text = random.choice(LINES["sed"])
    else:
        text = random.choice([";", "; ", " ;"]).join(
            _make_sed_command(random) for _ in range(random.choice([1, 1, 2, 3]))
        )
    return mutate(text, [*WORDS["sed"], *PATTERNS], random)


def _make_sed_command(random: Random) -> str:
    address = _choose("sed_addresses", random) if random.random() < 0.6 else ""
    while "{}" in address:
        address = address.replace("{}", random.choice(PATTERNS), 1)
    if random.random() < 0.5:
        return address + _choose("sed_commands", random)
    mark = random.choice("////|#,:@!a;")
    pattern, replacement = random.choice(PATTERNS), random.choice(["", "x", "&", "&&&&", "\\1", "\\n", "\\2\\1", mark])
    flags = _choose("sed_flags", random) if random.random() < 0.6 else ""
    return f"{address}s{mark}{pattern}{mark}{replacement}{mark}{flags}"


def _choose(name: str, random: Random) -> str:
    """Return a word of a list, in which a blank is written as an escape."""
    return random.choice(WORDS[name]).replace("\\x20", " ")


def make_awk(random: Random) -> str:
    """Return a script of awk."""
    return mutate(random.choice(LINES["awk"]), [*WORDS["awk"], " ", " "], random)


def make_jq(random: Random) -> str:
    """Return a filter of jq."""
    text = random.choice(LINES["jq"])
    if random.random() < 0.4:
        text = random.choice(["{}|{}", "{},{}", "[{}]|{}", "({})*{}", "map({})|{}"]).format(
            text, random.choice(WORDS["jq"])
        )
    return mutate(text, WORDS["jq"], random)


def make_pattern(random: Random) -> str:
    """Return a regular expression."""
    return mutate(random.choice(PATTERNS), PATTERNS, random)


def make_date(random: Random) -> str:
    """Return a format of date."""
    return mutate(
        "+" + "".join(random.choices(WORDS["date"], k=random.randint(1, 4))), [*WORDS["date"], *TEXTS], random
    )


def make_printf(random: Random) -> str:
    """Return a format of printf."""
    return mutate("".join(random.choices(WORDS["printf"], k=random.randint(1, 4))), [*WORDS["printf"], *TEXTS], random)


def make_text(random: Random) -> str:
    """Return any text."""
    return mutate(random.choice(random.choice([TEXTS, NUMBERS, PATTERNS])), TEXTS, random)


MAKERS: dict[str, Maker] = {
    "SED": make_sed,
    "AWK": make_awk,
    "JQ": make_jq,
    "RE": make_pattern,
    "TEXT": make_text,
    "DATE": make_date,
}
"""The makers of scripts, by the kind of `policy.signatures`."""


def make_find_words(random: Random) -> list[str]:
    """Return the arguments of find, as they are written in a line."""
    words = random.choices([".", "src", "./src", "docs", "link", *FILES], k=random.choice([0, 1, 1, 1, 2]))
    for _ in range(random.randint(0, 4)):
        words.append(random.choice(WORDS["find"]))
        if random.random() < 0.7:
            words.append(random.choice(WORDS["find_values"]))
    return words


def make_test_words(random: Random) -> list[str]:
    """Return the arguments of test, as they are written in a line."""
    files, numbers = random.choices(FILES, k=2), random.choices(NUMBERS, k=2)
    words = [
        {"{v}": files, "{n}": numbers}.get(word, [word])[number % 2 if word in ("{v}", "{n}") else 0]
        for number, word in enumerate(random.choice([*WORDS["test_shapes"], ""]).split("_"))
    ]
    for _ in range(random.choice([0, 1, 1, 2])):
        words.insert(random.randint(0, len(words)), random.choice(WORDS["test"]))
    return words
