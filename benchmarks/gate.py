"""What a verdict costs: of ordinary commands, and of the worst of many hostile ones of 4 kB."""

import random
import time
from pathlib import Path
from typing import NamedTuple

from policy.commands import classify_command

ORDINARY_COMMANDS_FILE = Path(__file__).parent.parent / "tests" / "corpus" / "read_only_commands.txt"
HOSTILE_BYTES = 4090
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
    """Seconds a verdict."""

    ordinary: float
    worst: float


def measure_verdict_cost(hostile_count: int, seed: int = 1) -> VerdictCost:
    """`hostile`: how many are tried; the same ones for a seed. The least of three runs counts."""
    lines = ORDINARY_COMMANDS_FILE.read_text("utf-8").splitlines()
    chance = random.Random(seed)
    worst = max(_measure_command(_build_hostile_command(chance)) for _ in range(hostile_count))
    return VerdictCost(sum(map(_measure_command, lines)) / len(lines), worst)


def _build_hostile_command(random_source: random.Random) -> str:
    unit = "".join(random_source.choice(HOSTILE_PIECES) for _ in range(random_source.randint(1, 5)))
    whole = random_source.choice(HOSTILE_BEGINNINGS) + unit * (HOSTILE_BYTES // len(unit.encode()) + 1)
    return whole.encode()[:HOSTILE_BYTES].decode(errors="ignore") + random_source.choice(["", "'", '"', " ]"])


def _measure_command(command: str) -> float:
    return min(_time_classification(command) for _ in range(3))


def _time_classification(command: str) -> float:
    began = time.perf_counter()
    classify_command({"command": command})
    return time.perf_counter() - began
