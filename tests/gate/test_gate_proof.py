"""The short form of the proof: the whole corpus and a few generated lines of each program are run and watched.

`make gate-fuzz` is the long form.
"""

from collections.abc import Iterable, Iterator
from itertools import islice
from random import Random

import pytest

from tests.gate.clients import plan_executions, split_quotes
from tests.gate.coverage import Coverage
from tests.gate.generator import ATTACKS, PROGRAMS, generate_candidates, is_accepted
from tests.gate.probes import find_changed_variables
from tests.gate.proof import Proof, iterate_shorter
from tests.gate.sandbox import Execution
from tests.gate.trace import parse_trace
from tests.gate.verdicts import IDE_KINDS, Violation, find_violations
from tests.support.corpus import read_lines

SEED = 1
GENERATED_LINES = 1
"""Generated lines of each program: the whole file then takes half a minute of one core."""
TRIES = 60
"""Candidates of a program, at most; the gate accepts most programs' second or third."""


@pytest.fixture(scope="module")
def proof() -> Iterator[Proof]:
    proof = Proof(SEED, 1, is_short=True)
    yield proof
    proof.remove()


def try_lines(proof: Proof, source: str, lines: Iterable[str]) -> list[Violation]:
    """Return the violations that the gate answers for, not those that the IDE must stop."""
    found = [violation for line in lines for violation in proof.try_line(source, line)]
    return [violation for violation in found if violation.kind not in IDE_KINDS]


def test_corpus_only_reads(proof: Proof) -> None:
    assert try_lines(proof, "corpus", read_lines("read_only_commands.txt")) == []


def test_known_attacks_and_their_neighbours_only_read_if_accepted(proof: Proof) -> None:
    candidates = islice(generate_candidates("attacks", SEED), len(ATTACKS) + 50)
    assert try_lines(proof, "attacks", candidates) == []


def test_generated_lines_only_read_if_accepted(proof: Proof) -> None:
    broken: list[Violation] = []
    for program in PROGRAMS:
        candidates = islice(generate_candidates(program, SEED), TRIES)
        broken += try_lines(proof, program, islice(filter(is_accepted, candidates), GENERATED_LINES))
    assert broken == []


def test_every_implementation_is_here(proof: Proof) -> None:
    if proof.installation.missing:
        pytest.skip(f"not run, because they are not installed: {', '.join(proof.installation.missing)}")


def test_system_calls_are_watched(proof: Proof) -> None:
    if proof.sandbox.strace is None:
        pytest.skip("strace is not installed: only changes of files, output, time, memory and input are checked")


UNSAFE_LINES = [
    ("sort -o out a.txt", "write"),
    ("uniq a.txt out", "write"),
    ("sed 's/a/b/w out' a.txt", "write"),
    ("sed '1e id' a.txt", "program"),
    ("awk 'BEGIN { system(\"id\") }'", "program"),
    ("awk 'BEGIN { print ENVIRON[\"GATE_PASSWORD\"] }'", "environment"),
    ("cat ../outside/secret", "outside"),
    ("cat flink", "link"),
    ("seq 1 9999999", "output"),
    ("awk '{$99999999=1}' a.txt", "memory"),
    ("awk 'BEGIN { while (1) x++ }'", "time"),
    ("sed 's/a/b/e;s/a/b/w out' a.txt", "write"),
]
"""Harmless here, where they run without rights in a scratch folder; the gate would accept none of them."""
NEEDS_STRACE = {"program", "outside"}


@pytest.mark.parametrize(("line", "kind"), UNSAFE_LINES)
def test_unsafe_line_is_recognized_by_what_it_does(proof: Proof, line: str, kind: str) -> None:
    if kind in NEEDS_STRACE and proof.sandbox.strace is None:
        pytest.skip("strace is not installed")
    shell, system = proof.installation.shells[0], proof.installation.sets[0]
    execution = Execution((*shell.argv, line), system, shell.name)
    found = find_violations(line, execution, proof.sandbox.run(execution), proof.scratch)
    assert kind in {violation.kind for violation in found}


def test_read_of_the_input_is_recognized(proof: Proof) -> None:
    shell, system = proof.installation.shells[0], proof.installation.sets[0]
    for line, is_reading in (("cat", True), ("cat a.txt", False)):
        execution = Execution((*shell.argv, line), system, shell.name, is_traced=False, gives_input=True)
        found = find_violations(line, execution, proof.sandbox.run(execution), proof.scratch)
        assert [violation.kind for violation in found] == ["input"] * is_reading


def test_changed_variable_of_the_shell_is_recognized(proof: Proof) -> None:
    shells = {shell.name: shell for shell in proof.installation.shells}
    if "bash" not in shells:
        pytest.skip("bash is not installed")
    assert find_changed_variables("printf %n PATH", shells["bash"], proof.sandbox) != []
    for shell in shells.values():
        assert find_changed_variables("cd src; ls | cat", shell, proof.sandbox) == []


@pytest.mark.parametrize("name", ["sed --sandbox", "gawk --sandbox"])
def test_refusal_of_a_sandbox_is_recognized(proof: Proof, name: str) -> None:
    oracle = next((each for each in proof.installation.sets if each.name == name), None)
    if oracle is None:
        pytest.skip(f"{name} is not installed")
    line = "sed 'w out' a.txt" if name.startswith("sed") else "awk 'BEGIN { print > \"out\" }'"
    shell = proof.installation.shells[0]
    execution = Execution((*shell.argv, line), oracle, shell.name)
    found = find_violations(line, execution, proof.sandbox.run(execution), proof.scratch)
    assert [violation.kind for violation in found] == ["oracle"]


def test_same_seed_generates_the_same_lines() -> None:
    for source in ("corpus", "attacks", "sed", "find"):
        first, second = (list(islice(generate_candidates(source, SEED), 1000)) for _ in range(2))
        assert first == second
        assert first != list(islice(generate_candidates(source, SEED + 1), 1000))


def test_line_is_run_by_shells_families_and_clients(proof: Proof) -> None:
    line = "cat 'a.txt' | wc -l"
    executions = plan_executions(line, proof.installation, Random(SEED), 99)
    families = {execution.programs.name for execution in executions}
    assert families >= {each.name for each in proof.installation.sets_for({"cat"})}
    words = [execution.argv for execution in executions if execution.way.startswith("no shell")]
    assert ("cat", "a.txt", "|", "wc", "-l") in words
    assert ("wc", "-l") in words
    assert split_quotes("a 'b c'\"d\" '' \\'e'") == ["a", "b cd", "", "\\e"]


def test_trace_is_read_also_where_calls_overlap() -> None:
    trace = "\n".join(
        [
            '7 execve("/usr/bin/cat", ["cat", "a b"], 0x7 /* 3 vars */) = 0',
            '7 openat(AT_FDCWD</w>, "a b", O_RDONLY <unfinished ...>',
            '8 openat(AT_FDCWD</w>, "../\\303\\251", O_WRONLY|O_CREAT, 0666) = -1 EACCES (Permission denied)',
            "7 <... openat resumed>) = 3</w/a b>",
            '8 openat(AT_FDCWD</w>, "missing", O_RDONLY) = -1 ENOENT (No such file or directory)',
            '8 connect(3, {sa_family=AF_INET, sin_port=htons(80), sin_addr=inet_addr("10.0.0.1")}, 16) = 0',
            "8 +++ exited with 0 +++",
            '7 openat(AT_FDCWD</w>, "pipe", O_RDONLY <unfinished ...>',
        ]
    )
    facts = parse_trace(trace, "/w")
    assert facts.started == [("/usr/bin/cat", "cat", "a b")]
    assert facts.opened == {"/w/a b", "/w/pipe"}
    assert facts.changed == {"openat /é"}
    assert len(facts.sockets) == 1


def test_coverage_names_the_options_that_were_not_run() -> None:
    coverage = Coverage()
    coverage.add_execution("tac -b a.txt | head -5", ["bash", "system"])
    rows = coverage.format_report().splitlines()
    assert [row.split()[:2] for row in rows[1:]] == [["head", "1/11"], ["tac", "1/6"]]
    assert "--separator" in rows[2]


def test_shorter_lines_lose_a_command_a_word_or_characters() -> None:
    shorter = list(iterate_shorter("cat a | wc -l"))
    assert {"cat a", "wc -l", "cat | wc -l", "cat a | wc"} <= set(shorter)
