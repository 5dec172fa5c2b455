# ruff: noqa: T201 -- it prints its findings
"""`python -m tests.gate`: the long form of the proof. The same seed makes the same candidates."""

import argparse
import ctypes
import sys
from itertools import islice
from pathlib import Path
from random import SystemRandom
from time import monotonic

from tests.gate.generator import SOURCES, generate_candidates
from tests.gate.proof import Proof
from tests.gate.sandbox import is_root
from tests.gate.verdicts import IDE_KINDS

TRIES_PER_LINE = 30
"""Candidates for each line that is to be accepted; the gate accepts one of two to one of twenty."""
NEW_NETWORK = 0x40000000
"""CLONE_NEWNET: a network of its own, in which there is nothing to reach."""


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="tests.gate", description=__doc__)
    parser.add_argument("--seed", type=int, default=SystemRandom().randrange(1_000_000))
    parser.add_argument("--per-program", type=int, default=100, help="accepted lines of each program; default 100")
    parser.add_argument(
        "--only", metavar="NAME,...", type=_parse_names, default=SOURCES, help="corpus, attacks, programs"
    )
    parser.add_argument("--ways", type=int, default=3, help="families, shells and clients that run a line; default 3")
    parser.add_argument("--minutes", type=float, default=float("inf"), help="stop after this time")
    parser.add_argument("--line", help="try this line only, if the gate accepts it")
    parser.add_argument("--report", type=Path, help="write the violations to this file as they are found")
    return parser.parse_args()


def _parse_names(text: str) -> list[str]:
    names = text.split(",")
    if unknown := [name for name in names if name not in SOURCES]:
        raise argparse.ArgumentTypeError(f"there is no {', '.join(unknown)}; there are {', '.join(SOURCES)}")
    return names


def main(options: argparse.Namespace) -> int:
    """Return 1 if a promise was broken."""
    if is_root():
        ctypes.CDLL(None).unshare(NEW_NETWORK)
    proof = Proof(options.seed, options.ways)
    try:
        _describe_installation(proof)
        print(f"seed {options.seed}")
        if options.line is not None:
            _try_line(proof, "line", options.line, options.report)
        else:
            _try_sources(proof, options)
    finally:
        proof.remove()
    print(proof.coverage.format_report())
    print(proof.coverage.format_totals())
    print(proof.format_violations() or "no promise was broken")
    return int(any(violation.kind not in IDE_KINDS for violation in proof.violations))


def _describe_installation(proof: Proof) -> None:
    installation = proof.installation
    print("shells:", ", ".join(shell.name for shell in installation.shells))
    print("programs:", ", ".join(f"{each.name} ({len(each.programs)})" for each in installation.sets))
    print("not found:", ", ".join(installation.missing) or "nothing")
    if proof.sandbox.strace is None:
        print("not found: strace; only changes of files, output, time and memory are seen")


def _try_sources(proof: Proof, options: argparse.Namespace) -> None:
    deadline = monotonic() + 60 * options.minutes
    for source in options.only:
        seen: set[str] = set()
        started = monotonic()
        for line in islice(generate_candidates(source, options.seed), TRIES_PER_LINE * options.per_program):
            if monotonic() > deadline or proof.coverage.accepted[source] >= options.per_program:
                break
            if line not in seen:
                seen.add(line)
                _try_line(proof, source, line, options.report)
        print(f"{source}: {proof.coverage.accepted[source]} lines in {monotonic() - started:.0f} s", flush=True)


def _try_line(proof: Proof, source: str, line: str, report: Path | None) -> None:
    found = proof.try_line(source, line)
    for violation in found:
        print(f"{violation.kind}: {violation.line}\n    {violation.way}: {violation.detail}", flush=True)
    if found and report:
        report.write_text(proof.format_violations() + "\n", "utf-8")


if __name__ == "__main__":
    sys.exit(main(parse_arguments()))
