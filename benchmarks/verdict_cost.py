"""Measure the time of a verdict, for ordinary commands and for the worst of many hostile ones."""

import random
import time
from pathlib import Path
from typing import NamedTuple

from policy.commands import classify_command
from policy.limits import MAX_COMMAND_BYTES

ORDINARY_COMMANDS_FILE = Path(__file__).parent.parent / "tests" / "corpus" / "read_only_commands.txt"
HOSTILE_BYTES = (MAX_COMMAND_BYTES - 4, 4090)
"""Bytes of a hostile command before its end: just below the limit of the gate, and far above it."""
HOSTILE_BEGINNINGS = [
    "",
    "ls ",
    "cat ",
    "sed -n '",
    "awk '",
    "find . -name ",
    "jq '",
    "grep '",
    "test -f a -a ",
    "echo ",
    "[ ",
]
HOSTILE_PIECES = [
    *" \n'\"\\$`|&;<>(){}[]!*?~#=-+/%^1",
    *("a", "||", "&&", "<<", "[[", "]]", "$(", "if ", "then ", "fi ", "for ", "in ", "do ", "done ", "-f ", "é", ".."),
    *("ls ", "cat a", "grep x a|", "{print $1}", "s/a/b/", "p;", "\\(", "-name ", '"a"', "/x/", "s|a|b|"),
]


class VerdictCost(NamedTuple):
    """Seconds of a verdict."""

    ordinary: float
    """The mean over the ordinary commands."""
    worst: float
    """The slowest of the hostile commands."""


def measure_verdict_cost(hostile_count: int, seed: int = 1) -> VerdictCost:
    """Return the costs over `hostile_count` hostile commands. The same seed makes the same commands."""
    lines = ORDINARY_COMMANDS_FILE.read_text("utf-8").splitlines()
    random_source = random.Random(seed)
    worst = max(_measure_command(_build_hostile_command(random_source)) for _ in range(hostile_count))
    return VerdictCost(sum(map(_measure_command, lines)) / len(lines), worst)


def _build_hostile_command(random_source: random.Random) -> str:
    unit = "".join(random_source.choice(HOSTILE_PIECES) for _ in range(random_source.randint(1, 5)))
    size = random_source.choice(HOSTILE_BYTES)
    whole = random_source.choice(HOSTILE_BEGINNINGS) + unit * (size // len(unit.encode()) + 1)
    return whole.encode()[:size].decode(errors="ignore") + random_source.choice(["", "'", '"', " ]"])


def _measure_command(command: str) -> float:
    """Return the least of three times, in seconds: other work on the machine only adds to a time."""
    return min(_time_classification(command) for _ in range(3))


def _time_classification(command: str) -> float:
    started = time.perf_counter()
    classify_command({"command": command})
    return time.perf_counter() - started
