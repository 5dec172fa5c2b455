"""What a verdict costs: of ordinary commands, and of the worst of many hostile ones of 4 kB."""

import random
import time
from pathlib import Path
from typing import NamedTuple

from policy.commands import classify

ORDINARY = Path(__file__).parent.parent / "tests" / "corpus" / "read_only_commands.txt"
BYTES = 4090
BEGINNINGS = ["", "ls ", "cat ", "sed -n '", "awk '", "find . -name ", "jq '", "grep '", "test -f a -a ", "echo ", "[ "]
PIECES = [
    *" \n'\"\\$`|&;<>(){}[]!*?~#=-+/%^1",
    *("a", "||", "&&", "<<", "[[", "]]", "$(", "if ", "then ", "fi ", "for ", "in ", "do ", "done ", "-f ", "é", ".."),
    *("ls ", "cat a", "grep x a|", "{print $1}", "s/a/b/", "p;", "\\(", "-name ", '"a"', "/x/", "s|a|b|"),
]


class Cost(NamedTuple):
    """Seconds a verdict."""

    ordinary: float
    worst: float


def cost_of_a_verdict(hostile: int, seed: int = 1) -> Cost:
    """`hostile`: how many are tried; the same ones for a seed. The least of three runs counts."""
    lines = ORDINARY.read_text("utf-8").splitlines()
    chance = random.Random(seed)
    worst = max(_seconds(_hostile(chance)) for _ in range(hostile))
    return Cost(sum(map(_seconds, lines)) / len(lines), worst)


def _hostile(chance: random.Random) -> str:
    unit = "".join(chance.choice(PIECES) for _ in range(chance.randint(1, 5)))
    whole = chance.choice(BEGINNINGS) + unit * (BYTES // len(unit.encode()) + 1)
    return whole.encode()[:BYTES].decode(errors="ignore") + chance.choice(["", "'", '"', " ]"])


def _seconds(command: str) -> float:
    return min(_once(command) for _ in range(3))


def _once(command: str) -> float:
    began = time.perf_counter()
    classify({"command": command})
    return time.perf_counter() - began
