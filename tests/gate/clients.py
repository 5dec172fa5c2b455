"""List the ways in which a line can be run: by each shell, and by clients that split the words themselves."""

import re
import shlex
from collections.abc import Iterator
from random import Random

from policy.shell import ShellCommand, Unproven, parse_commands
from tests.gate.implementations import Installation, ProgramSet
from tests.gate.sandbox import Execution

BUILTINS = {"[", "cd", "command", "echo", "false", "printf", "pwd", "test", "true", "type", "which"}
"""Programs that some shell has inside, so that they act on the shell itself."""
ORACLES = {"sed --sandbox", "gawk --sandbox"}
"""Families that refuse what the gate must refuse."""
OPERATOR = re.compile(r"&&|\|\||[|;&]")
QUOTES = {"'": "'", '"': '"'}


def read_chain(line: str) -> list[ShellCommand]:
    """Return the commands of the line as the gate reads them; none if it reads nothing."""
    try:
        return parse_commands(line)
    except Unproven:
        return []


def plan_executions(line: str, installation: Installation, random: Random, most: int) -> list[Execution]:
    """Return the executions that try the line, about `most` of each of three kinds.

    Families that have one of its programs run it, under shells in turn; the oracles always do. A line with a builtin
    is run by more shells. Then come the clients without a shell. The last one shows if the line reads its input.
    """
    names = {command.words[0].text for command in read_chain(line)}
    sets = installation.sets_for(names)
    shells = random.sample(installation.shells, len(installation.shells))
    others = random.sample(sets[1:], min(most - 1, len(sets) - 1))
    others += [each for each in sets if each.name in ORACLES and each not in others]
    pairs = [(programs, shells[number % len(shells)]) for number, programs in enumerate([sets[0], *others])]
    if names & BUILTINS:
        pairs += [(sets[0], shell) for shell in shells[1:most]]
    clients = list(_iterate_clients(line, sets, random))
    executions = [Execution((*shell.argv, line), programs, shell.name) for programs, shell in pairs]
    reading = Execution((*shells[0].argv, line), sets[0], shells[0].name, is_traced=False, gives_input=True)
    return [*executions, *random.sample(clients, min(most, len(clients))), reading]


def plan_short(line: str, installation: Installation, random: Random) -> list[Execution]:
    """Return one or two executions that try the line: any family under any shell, and any other way."""
    executions = plan_executions(line, installation, random, len(installation.sets))
    by_shell = [each for each in executions if not each.way.startswith("no shell") and not each.gives_input]
    first = random.choice(by_shell)
    return [first, *random.sample([each for each in executions if each is not first], random.randint(0, 1))]


def rewrite_execution(execution: Execution, old: str, new: str) -> Execution | None:
    """Return the same way to run another line. None: this way does not exist for it."""
    if execution.argv[-1] == old and not execution.way.startswith("no shell"):
        return execution._replace(argv=(*execution.argv[:-1], new))
    ways = [words for way, words in _split_line(new) if way == execution.way and words]
    return execution._replace(argv=tuple(ways[-1])) if ways else None


def _iterate_clients(line: str, sets: list[ProgramSet], random: Random) -> Iterator[Execution]:
    """Yield what clients without a shell would run, each different call once."""
    seen: set[tuple[str, ...]] = set()
    for way, words in _split_line(line):
        programs = random.choice(sets)
        if words and tuple(words) not in seen and (programs.programs | sets[0].programs) >= {words[0]}:
            seen.add(tuple(words))
            yield Execution(tuple(words), programs, way)


def _split_line(line: str) -> Iterator[tuple[str, list[str]]]:
    yield "no shell, first program gets all", split_quotes(line)
    yield "no shell, quotes are one kind", split_quotes(line.replace('"', "'"))
    try:
        yield "no shell, shlex", shlex.split(line)
    except ValueError:
        return
    for part in OPERATOR.split(line):
        yield "no shell, each command alone", split_quotes(part)


def split_quotes(line: str) -> list[str]:
    """Split as a client does that knows quotes, and neither backslashes nor operators."""
    words: list[str] = []
    word: str | None = None
    quote = ""
    for char in line:
        if quote:
            word, quote = (word, "") if char == quote else ((word or "") + char, quote)
        elif char in QUOTES:
            word, quote = word or "", char
        elif char.isspace():
            words += [word] if word is not None else []
            word = None
        else:
            word = (word or "") + char
    return [*words, *([word] if word is not None else [])]
