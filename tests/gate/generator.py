"""Generate candidates: neighbours of the corpus, calls of each program of the table, and changes of known attacks.

The same seed gives the same candidates. Most of them the gate refuses; only those that it accepts are run.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path
from random import Random

from policy.allowlist import PROGRAM_SIGNATURES, VERSION_OPTIONS
from policy.commands import CommandClass, classify_command
from policy.expressions import EXPRESSION_CHECKS
from policy.signatures import Operand, Signature, parse_signature
from tests.gate.languages import MAKERS, make_find_words, make_printf, make_test_words, make_text, mutate
from tests.gate.values import FILES, NAMES, TEXTS, choose_value, quote_value
from tests.support.corpus import read_lines

ATTACKS = Path(__file__).with_name("attacks.txt").read_text("utf-8").splitlines()
PROGRAMS = sorted({*PROGRAM_SIGNATURES, *EXPRESSION_CHECKS, *VERSION_OPTIONS} - {"git"})
SOURCES = ["corpus", "attacks", *PROGRAMS]
"""What candidates are generated from: the two lists of lines, and each program of the table."""
TRIES_PER_OPTION = 25
"""Calls that are tried until the gate accepts one with the option. Most options need one; chosen, not measured."""
LINE_PIECES = [
    *"'\" \\|;&-=/.*?[]{}()~!#%,:0 1",
    " -- ",
    " - ",
    " && ls",
    " | cat",
    "; ls",
    "''",
    '""',
    " a.txt",
    " ''",
]


def is_accepted(line: str) -> bool:
    """Return whether the gate lets the line run unasked."""
    return classify_command({"command": line}).kind is CommandClass.READ_ONLY


def generate_candidates(source: str, seed: int) -> Iterator[str]:
    """Yield candidates of one of SOURCES without end. The lists and each option alone come first."""
    random = Random(f"{seed} {source}")
    if source in ("corpus", "attacks"):
        lines = read_lines("read_only_commands.txt") if source == "corpus" else ATTACKS
        yield from lines
        while True:
            yield _change_line(random.choice(lines), random)
    builder = CallBuilder(source, random)
    yield from builder.iterate_options()
    while True:
        yield builder.build_line()


def _change_line(line: str, random: Random) -> str:
    """Return a neighbour: a word exchanged, added, removed or moved, or characters changed."""
    words = line.split(" ")
    position = random.randrange(len(words))
    match random.randrange(6):
        case 0:
            words[position] = quote_value(random.choice(TEXTS), random)
        case 1:
            words.insert(position + 1, choose_value(random.choice(["#", ":", "FILE", "TEXT"]), random))
        case 2 if len(words) > 1:
            words.pop(position)
        case 3:
            words.insert(random.randrange(len(words)), words.pop(position))
        case 4:
            program = words[0] if words[0] in PROGRAM_SIGNATURES else "ls"
            options = [*parse_signature(PROGRAM_SIGNATURES[program]).options] or ["-a"]
            words.insert(random.randint(1, len(words)), random.choice(options))
        case _:
            return mutate(line, LINE_PIECES, random)
    return " ".join(words)


class CallBuilder:
    """Builds calls of one program."""

    def __init__(self, program: str, random: Random) -> None:
        self.program = program
        self.random = random
        self.signature = parse_signature(PROGRAM_SIGNATURES.get(program, ""))
        self.options: Mapping[str, str] = self.signature.options

    def iterate_options(self) -> Iterator[str]:
        """Yield calls with each option alone, until one is accepted, then with each pair of joined letters."""
        yield from (f"{self.program} {option}" for option in ("--version", "--help"))
        yield from (f"{self.program} {option}" for option in VERSION_OPTIONS.get(self.program, ()))
        for option in self.options:
            for _ in range(TRIES_PER_OPTION):
                line = self._join([self._write_option(option), *self._write_operands()])
                yield line
                if is_accepted(line):
                    break
        letters = [option[1] for option, kind in self.options.items() if len(option) == 2 and not kind]
        pairs = [f"-{first}{second}" for first in letters for second in letters]
        self.random.shuffle(pairs)
        for pair in pairs[: len(letters)]:
            yield self._join([pair, *self._write_operands()])

    def build_line(self) -> str:
        """Return a random call, alone or in a chain."""
        match self.program:
            case "find":
                words = make_find_words(self.random)
            case "test" | "[":
                words = make_test_words(self.random) + (["]"] if self.program == "[" else [])
            case "echo" | "printf" | "command" | "type" | "which":
                words = self._write_texts()
            case _:
                words = self._write_call()
        return self._surround(self._join(words))

    def _write_call(self) -> list[str]:
        known = [*self.options]
        chosen = self.random.choices(known, k=self.random.choice([0, 1, 1, 2, 2, 3, 4])) if known else []
        options, operands = [self._write_option(option) for option in chosen], self._write_operands()
        if self.random.random() < 0.15:
            words = [*options, *operands]
            self.random.shuffle(words)
            return words
        return [*options, *(["--"] if self.random.random() < 0.08 else []), *operands]

    def _write_texts(self) -> list[str]:
        count = self.random.choice([0, 1, 1, 2, 3])
        if self.program in ("command", "type", "which"):
            options = self.random.sample(
                ["-v", "-V", "-a", "-p", "-t", "-f", "-P", "-s", "--"], self.random.choice([0, 1, 1])
            )
            return [*options, *self.random.choices(NAMES, k=count)]
        first = [make_printf(self.random)] if self.program == "printf" else []
        options = self.random.choices(["-n", "-e", "-E", "-ne", "-v", "--", "-"], k=self.random.choice([0, 0, 1]))
        return options + [
            quote_value(text, self.random) for text in [*first, *(make_text(self.random) for _ in range(count))]
        ]

    def _write_option(self, option: str) -> str:
        """Return the option with a value of its kind: glued, or as the next word."""
        kind, random = self.options[option], self.random
        if option == "-#":
            return f"-{random.choice(['1', '5', '0', '99', '999999999', '9999999999'])}"
        if option.startswith("--") and random.random() < 0.05:
            option = option[: random.randint(3, len(option))]
        if not kind or (kind == "?" and random.random() < 0.4):
            return self._join_letters(option)
        value = self._write_value(kind)
        if option.startswith("--"):
            return option + random.choice(["=", "=", " "]) + value
        return option + random.choice(["", " ", " ", ""]) + value

    def _join_letters(self, option: str) -> str:
        letters = [name[1] for name, kind in self.options.items() if len(name) == 2 and not kind]
        if len(option) != 2 or not letters or self.random.random() < 0.6:
            return option
        return option + "".join(self.random.choices(letters, k=self.random.choice([1, 1, 2, 5])))

    def _write_value(self, kind: str) -> str:
        if kind in MAKERS and self.random.random() < 0.8:
            return _quote_script(MAKERS[kind](self.random), self.random)
        return choose_value(kind, self.random)

    def _write_operands(self) -> list[str]:
        words = []
        for operand in self._vary_operands(self.signature):
            count = self.random.choice([1, 1, 1, 2, 3]) if operand.most > 1 else 1
            if operand.least == 0 and self.random.random() < 0.4:
                count = 0
            words += [self._write_value(operand.kind) for _ in range(count)]
        return words

    def _vary_operands(self, signature: Signature) -> list[Operand]:
        operands = list(signature.operands)
        if operands and self.random.random() < 0.1:
            operands.pop(self.random.randrange(len(operands)))
        if self.random.random() < 0.05:
            operands.append(Operand("FILE", 1, 1))
        return operands

    def _join(self, words: list[str]) -> str:
        return " ".join([self.program, *words])

    def _surround(self, line: str) -> str:
        file = self.random.choice(FILES)
        shapes = (
            ["{}"] * 12
            + [f"cat {file} | {{}}"] * 3
            + ["{} | head", "{} | wc -l", "{} && ls", "cd src && {}", "{}; pwd"]
        )
        shapes += ["{} | sort | uniq -c", "echo a | {}", "{} | grep -v x", "ls | {}", "seq 9 | {}"]
        line = self.random.choice(shapes).replace("{}", line)
        return mutate(line, LINE_PIECES, self.random) if self.random.random() < 0.1 else line


def _quote_script(script: str, random: Random) -> str:
    """Return the script as a word: mostly in single quotes, as people write it."""
    if "'" not in script and random.random() < 0.85:
        return f"'{script}'"
    return quote_value(script, random)
