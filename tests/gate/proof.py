"""Run candidates in every way, collect violations, and make each command that shows one as short as possible."""

import re
from collections.abc import Iterator
from random import Random

from tests.gate.clients import plan_executions, plan_short, read_chain, rewrite_execution
from tests.gate.coverage import Coverage
from tests.gate.generator import is_accepted
from tests.gate.implementations import Installation, lay_out_programs
from tests.gate.probes import find_changed_variables, has_builtin
from tests.gate.sandbox import UNPRIVILEGED_USER, Execution, Sandbox, is_root
from tests.gate.scratch import Scratch
from tests.gate.trace import parse_trace
from tests.gate.verdicts import IDE_KINDS, KINDS, Violation, find_violations, replace_ids

SLOW_KINDS = {"time", "fifo"}
"""Kinds that cost seconds, so the line is not run in further ways."""
UNSHORTENED = {*SLOW_KINDS, *IDE_KINDS}
SHRINKING_RUNS = 60
"""Executions that shorten one command; most are short after thirty."""
EXAMPLES_PER_GROUP = 3
"""Commands that are kept, and shortened, of one kind and program. The others are only counted."""


class Proof:
    """A sandbox, what was run in it, and the promises that were broken."""

    def __init__(self, seed: int, most_ways: int, *, is_short: bool = False) -> None:
        """Lay out the programs. Each line is run in `most_ways` ways of each kind; if `is_short`, in two in all."""
        self.seed = seed
        self.most_ways = most_ways
        self.is_short = is_short
        self.scratch = Scratch(UNPRIVILEGED_USER if is_root() else None)
        self.installation: Installation = lay_out_programs(self.scratch.programs)
        self.sandbox = Sandbox(self.scratch, self.installation)
        self.coverage = Coverage()
        self.violations: list[Violation] = []
        self.counts: dict[tuple[str, str], int] = {}
        self._usual = {shell.name: self._learn_usual_files(shell.argv) for shell in self.installation.shells}

    def _learn_usual_files(self, argv: tuple[str, ...]) -> frozenset[str]:
        """Return what a shell opens that does nothing."""
        outcome = self.sandbox.run(Execution((*argv, "true; cd src"), self.installation.sets[0], argv[0]))
        return frozenset(map(replace_ids, parse_trace(outcome.trace, str(self.scratch.workspace)).opened))

    def try_line(self, source: str, line: str) -> list[Violation]:
        """Run the line in each way, if the gate accepts it. Return what it broke that is new."""
        self.coverage.generated[source] += 1
        if not is_accepted(line):
            return []
        self.coverage.accepted[source] += 1
        found = [violation for violation in self._iterate_violations(line) if self._count_violation(violation)]
        self.violations += found
        return found

    def _iterate_violations(self, line: str) -> Iterator[Violation]:
        random = Random(f"{self.seed} {line}")
        is_slow = False
        for execution in self._plan(line, random):
            if is_slow:
                break
            violations = self._run(line, execution)
            is_slow = any(violation.kind in SLOW_KINDS for violation in violations)
            self.coverage.add_execution(line, [execution.way, execution.programs.name])
            for violation in violations:
                yield self._shrink(violation, execution)
        if has_builtin(line) and not is_slow:
            shells = self.installation.shells
            for shell in random.sample(shells, min(self.most_ways, len(shells))):
                yield from find_changed_variables(line, shell, self.sandbox)

    def _plan(self, line: str, random: Random) -> list[Execution]:
        if self.is_short:
            return plan_short(line, self.installation, random)
        return plan_executions(line, self.installation, random, self.most_ways)

    def _run(self, line: str, execution: Execution) -> list[Violation]:
        violations = self._run_once(line, execution)
        if any(violation.kind == "time" for violation in violations):
            return self._run_once(line, execution)  # a loaded machine may have been the reason
        return violations

    def _run_once(self, line: str, execution: Execution) -> list[Violation]:
        usual = self._usual.get(execution.way, frozenset())
        return find_violations(line, execution, self.sandbox.run(execution), self.scratch, usual)

    def _count_violation(self, violation: Violation) -> bool:
        """Count the violation. Return whether its group has room for another example."""
        group = (violation.kind, describe_programs(violation.line))
        self.counts[group] = self.counts.get(group, 0) + 1
        same = [each for each in self.violations if (each.kind, each.line) == (violation.kind, violation.line)]
        return self.counts[group] <= EXAMPLES_PER_GROUP and not same

    def _shrink(self, violation: Violation, execution: Execution) -> Violation:
        """Return the violation with the shortest accepted line that shows it in the same way."""
        group = (violation.kind, describe_programs(violation.line))
        if self.is_short or self.counts.get(group, 0) >= EXAMPLES_PER_GROUP or violation.kind in UNSHORTENED:
            return violation
        runs, candidates = 0, iterate_shorter(violation.line)
        while runs < SHRINKING_RUNS and (shorter := next(candidates, None)) is not None:
            rewritten = rewrite_execution(execution, violation.line, shorter)
            if rewritten is None or not is_accepted(shorter):
                continue
            runs += 1
            same = [each for each in self._run_once(shorter, rewritten) if each.kind == violation.kind]
            if same:
                violation, execution, candidates = same[0], rewritten, iterate_shorter(shorter)
        return violation

    def remove(self) -> None:
        """Remove the scratch folders."""
        self.scratch.remove()

    def format_violations(self) -> str:
        """Return the examples of all groups, most severe first, with the number of each group."""
        ordered = sorted(self.violations, key=lambda each: (KINDS.index(each.kind), describe_programs(each.line)))
        return "\n".join(
            f"{each.kind} (x{self.counts[each.kind, describe_programs(each.line)]}): {each.line}\n"
            f"    {each.way}: {each.detail}"
            for each in ordered
        )


def describe_programs(line: str) -> str:
    """Return the programs of the line, by which violations are grouped."""
    return " ".join(sorted({command.words[0].text for command in read_chain(line)}))


def iterate_shorter(line: str) -> Iterator[str]:
    """Yield lines with less: without a command, without a word, without a part of a word."""
    parts = re.split(r"( *(?:&&|\|\||[|;]) *)", line)
    if len(parts) > 1:
        for number in range(0, len(parts), 2):
            rest = parts[:number] + parts[number + 2 :] if number < len(parts) - 1 else parts[: number - 1]
            yield "".join(rest)
    words = line.split(" ")
    for number in range(len(words) - 1, 0, -1):
        yield " ".join(words[:number] + words[number + 1 :])
    for size in (8, 4, 2, 1):
        for position in range(0, len(line) - size + 1, size):
            yield line[:position] + line[position + size :]
