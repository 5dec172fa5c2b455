"""Count what was run: by program, by option, by implementation."""

import re
from collections import Counter, defaultdict
from collections.abc import Iterator

from policy.allowlist import PROGRAM_SIGNATURES
from policy.find_expressions import FIND_ARGUMENTS
from policy.shell import ShellCommand
from policy.signatures import parse_signature
from tests.gate.clients import read_chain


class Coverage:
    """What the accepted lines used, and what ran them."""

    def __init__(self) -> None:
        self.generated: Counter[str] = Counter()
        """Candidates by source."""
        self.accepted: Counter[str] = Counter()
        """Candidates by source that the gate let pass and that were run."""
        self.executions: Counter[str] = Counter()
        """Executions by program."""
        self.ways: defaultdict[str, set[str]] = defaultdict(set)
        """Shells, clients and families by program."""
        self.options: defaultdict[str, set[str]] = defaultdict(set)
        """Options and expressions that were run, by program."""

    def add_execution(self, line: str, ways: list[str]) -> None:
        """Count an execution of the line, by the ways that ran it: a shell or client, and a family."""
        for command in read_chain(line):
            program = command.words[0].text
            self.executions[program] += 1
            self.ways[program].update(ways)
            self.options[program].update(_iterate_options(program, command))

    def format_report(self) -> str:
        """Return a line for each program: options run of those in the table, executions, implementations, gaps."""
        rows = [f"{'program':12} {'options':>9} {'runs':>6}  implementations; options that were not run"]
        for program in sorted(self.executions):
            known = known_options(program)
            gaps = sorted(known - self.options[program])
            ways = ", ".join(sorted(self.ways[program]))
            count = f"{len(known) - len(gaps)}/{len(known)}"
            rows.append(f"{program:12} {count:>9} {self.executions[program]:6}  {ways}; {' '.join(gaps) or 'none'}")
        return "\n".join(rows)

    def format_totals(self) -> str:
        """Return the sums over all programs."""
        known = sum(len(known_options(program)) for program in self.executions)
        seen = sum(len(known_options(program) & self.options[program]) for program in self.executions)
        return (
            f"{self.generated.total()} candidates, {self.accepted.total()} accepted and run; "
            f"{len(self.executions)} programs, {seen} of {known} options"
        )


def known_options(program: str) -> set[str]:
    """Return the options of the program in the table."""
    if program == "find":
        return set(FIND_ARGUMENTS)
    return set(parse_signature(PROGRAM_SIGNATURES.get(program, "")).options)


def _iterate_options(program: str, command: ShellCommand) -> Iterator[str]:
    options = parse_signature(PROGRAM_SIGNATURES.get(program, "")).options
    for word in command.words[1:]:
        text = word.text
        if program == "find":
            yield text
        elif text.startswith("--"):
            yield text.partition("=")[0]
        elif re.fullmatch(r"-\d+", text):
            yield "-#"
            yield text
        elif text.startswith("-"):
            for letter in text[1:]:
                yield f"-{letter}"
                if options.get(f"-{letter}"):
                    break
