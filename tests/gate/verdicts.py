"""Judge what an execution did: the promise is that an auto-approved command only reads its workspace, and ends."""

import re
import resource
from collections.abc import Iterator
from posixpath import basename
from typing import NamedTuple

from policy.allowlist import VERSION_OPTIONS
from tests.gate.clients import read_chain
from tests.gate.sandbox import (
    CPU_SECONDS,
    ENVIRONMENT_SECRET,
    MEMORY_KB,
    OUTPUT_BYTES,
    WALL_SECONDS,
    Execution,
    Outcome,
)
from tests.gate.scratch import SECRET, Scratch
from tests.gate.trace import Facts, parse_trace, program_name

KINDS = (
    "program",
    "write",
    "network",
    "signal",
    "variable",
    "oracle",
    "environment",
    "outside",
    "reading",
    "memory",
    "output",
    "time",
    "input",
    "temporary",
    "link",
    "fifo",
)
"""The kinds of violations, most severe first."""
IDE_KINDS = {"temporary", "link", "fifo"}
"""Kinds that no text shows: a link or a fifo of the workspace, and temporary files that are gone at the end.

The IDE's own wall must stop or bound these.
"""

SYSTEM_FILES = re.compile(
    r"/(etc)?$|/(usr/)?(s?bin|lib\d*|libexec)(/|$)|/usr/local/(s?bin|lib)(/|$)"
    r"|/usr/share/(locale|i18n|zoneinfo|misc/magic|misc/magic\.mgc|file|terminfo|perl|perl5|mawk|awk|zsh|nodejs|node|java)"
    r"|/etc/(ld\.so\.\w+|passwd|group|nsswitch\.conf|localtime|timezone|locale\.\w+|magic|magic\.mime|mtab|shells"
    r"|terminfo|zsh|mkshrc|host\.conf|hosts|services|protocols|gai\.conf|java[\w-]*|perl|ssl/openssl\.cnf)(/|$)"
    r"|/dev/(null|zero|tty|urandom|random|pts/\d+|fd|stdin|stdout|stderr)$|/(var/)?run/utmp$|/var/log/wtmp$"
    r"|/proc/(filesystems|cpuinfo|meminfo|stat|uptime|loadavg|version|mounts|cmdline)$|/proc/sys/|/proc/(self|\d+)$"
    r"|/proc/(self|thread-self|\d+)/(maps|fd|stat|status|statm|mountinfo|mounts|cgroup|auxv|exe|task|oom_score_adj)(/|$)"
    r"|/sys/(fs/cgroup|devices/system|kernel/mm/transparent_hugepage)(/|$)"
)
"""Programs, libraries, locales, and the data of the system that programs look up. Nothing in it is the user's."""
EXTRA_FILES = {
    **dict.fromkeys(VERSION_OPTIONS, re.compile(r"/etc/|/proc/|/sys/kernel/mm/|/usr/share/postgresql-common/")),
    "df": re.compile(r"/$|/(proc|dev)(/|$)"),
    "free": re.compile(r"/proc/"),
    "hostname": re.compile(r"/(proc/|etc/(resolv\.conf|hostname))"),
    "lscpu": re.compile(r"/(proc|sys)/"),
    "netstat": re.compile(r"/(proc/|etc/resolv\.conf)"),
    "nproc": re.compile(r"/(proc|sys)/"),
    "ps": re.compile(r"/(proc(/|$)|sys/devices|dev$)"),
    "ss": re.compile(r"/(proc(/|$)|etc/iproute2)"),
    "uptime": re.compile(r"/(proc(/|$)|run/systemd|sys/)"),
    "whereis": re.compile(r"/(usr|opt|etc|lib|snap)(/|$)|/$"),
    "who": re.compile(r"/(proc/|dev/|run/systemd)"),
    "locale": re.compile(r"/usr/"),
    "tty": re.compile(r"/dev(/|$)"),
}
"""What one program reads beyond that, because it reports on the system."""
HARMLESS_CHANGES = re.compile(
    r"\w+ (.*/tmp/hsperfdata_.*|/proc/\d+/coredump_filter|/dev/(null|tty|stdout|stderr|fd/[12])|\d+<(socket|pipe):.*)$"
)
HELPERS = {"egrep": {"grep"}, "fgrep": {"grep"}, "which": {"sh"}, "shasum": {"perl"}, "docker": {"docker"}}
"""Programs that are scripts of the system, with the programs that they are for."""
LOCAL_SERVICES = re.compile(r"/(var/)?run/(nscd/socket|systemd/userdb/.*)$")
REFUSED_MEMORY = re.compile(rb"memory exhausted|annot allocate|out of memory|memory allocation|Out of memory")
SANDBOX_REFUSAL = b"in sandbox mode"


class Violation(NamedTuple):
    """A promise that a line broke."""

    kind: str
    """One of KINDS."""
    line: str
    way: str
    """How it was run: the shell or client, and the family of programs."""
    detail: str


def _own_peak_kb() -> int:
    """Return the peak of this process in kB: the kernel counts it for a child until the child runs its program."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def find_violations(
    line: str, execution: Execution, outcome: Outcome, scratch: Scratch, usual: frozenset[str] = frozenset()
) -> list[Violation]:
    """Return the promises that this execution of the line broke, one of each kind.

    `usual` is what its shell opens when it does nothing.
    """
    facts = parse_trace(outcome.trace, str(scratch.workspace))
    facts = facts._replace(opened={path for path in facts.opened if replace_ids(path) not in usual})
    details: dict[str, str] = {}
    for kind, detail in (
        *_iterate_facts(line, execution, facts, scratch),
        *_iterate_results(execution, outcome, facts, scratch),
    ):
        details.setdefault(kind, detail)
    way = f"{execution.way}, {execution.programs.name}"
    return [Violation(kind, line, way, detail) for kind, detail in details.items()]


def replace_ids(path: str) -> str:
    """Return the path without the ids of processes."""
    return re.sub(r"^/proc/\d+/", "/proc/N/", path)


def _iterate_facts(line: str, execution: Execution, facts: Facts, scratch: Scratch) -> Iterator[tuple[str, str]]:
    names = {command.words[0].text for command in read_chain(line)} | {basename(execution.argv[0])}
    for started in facts.started[1:]:
        if not _is_expected_program(started, names, scratch):
            yield "program", f"it started {' '.join(started)[:200]}"
    for change in sorted(facts.changed):
        if not HARMLESS_CHANGES.match(change):
            kind = "temporary" if f" {scratch.temporary}/" in change else "write"
            yield kind, change.replace(str(scratch.workspace), ".")
    for socket in sorted(facts.sockets):
        if not LOCAL_SERVICES.search(socket):
            yield "network", socket[:200]
    for sent in sorted(facts.signals):
        if not sent.endswith(", 0") and not facts.processes & set(re.findall(r"\d+", sent.split(",", 1)[0])):
            yield "signal", sent
    for path in sorted(facts.opened):
        if _is_outside(path, names, scratch):
            kind = "link" if path.startswith(str(scratch.outside)) and ".." not in line else "outside"
            yield kind, f"it opened {path}"
    if difference := _find_other_reading(line, execution, facts, scratch):
        yield "reading", difference


def _is_expected_program(started: tuple[str, ...], names: set[str], scratch: Scratch) -> bool:
    name = program_name(started)
    helpers = set().union(*(HELPERS.get(each, set()) for each in names))
    path = started[0]
    is_ours = path.startswith((str(scratch.programs), "/")) and not path.startswith(str(scratch.root / "user"))
    return is_ours and (name in names or name in helpers or _is_front(name, names))


def _is_front(name: str, names: set[str]) -> bool:
    """Return whether the program stands behind a name of the line, as mawk stands behind awk."""
    fronts = {"awk": {"gawk", "mawk", "original-awk"}, "jq": {"gojq"}, "fd": {"fdfind"}}
    return any(name in behind and front in names for front, behind in fronts.items())


def _is_outside(path: str, names: set[str], scratch: Scratch) -> bool:
    if not path.startswith("/") or path == str(scratch.workspace) or SYSTEM_FILES.match(path):
        return False
    if path.startswith((f"{scratch.workspace}/", str(scratch.programs))):
        return False
    return not any(EXTRA_FILES[name].match(path) for name in names & EXTRA_FILES.keys())


def _find_other_reading(line: str, execution: Execution, facts: Facts, scratch: Scratch) -> str | None:
    """Return how the words that a program got differ from those that the gate read."""
    chain = read_chain(line)
    expected = [[word.text for word in command.words] for command in chain]
    names = {words[0] for words in expected} - HELPERS.keys()
    if execution.way.startswith("no shell") or any(word.is_glob for command in chain for word in command.words):
        return None
    for started in facts.started[1:]:
        words = list(started[1:])
        is_from_line = started[0].startswith(str(scratch.programs)) and program_name(started) in names
        if is_from_line and len(words) <= MOST_PRINTED_WORDS and words not in expected:
            return f"the program got {words!r}"[:300]
    return None


MOST_PRINTED_WORDS = 30
"""strace prints no more words of a program than 32."""


def _iterate_results(
    execution: Execution, outcome: Outcome, facts: Facts, scratch: Scratch
) -> Iterator[tuple[str, str]]:
    if execution.gives_input:
        if outcome.has_read_input:
            yield "input", "it reads its standard input, and would wait at a terminal"
        return
    text = outcome.output + outcome.errors
    if changes := [path for path in outcome.changes if path != scratch.temporary_name]:
        yield "write", f"changed: {', '.join(changes)}"[:300]
    if execution.programs.name.endswith("--sandbox") and SANDBOX_REFUSAL in outcome.errors:
        yield "oracle", outcome.errors.decode(errors="replace").strip()[:200]
    if ENVIRONMENT_SECRET.encode() in text:
        yield "environment", "its output holds a value of the environment"
    if SECRET.encode() in text:
        yield "link", "its output holds the content of a file outside"
    if outcome.memory > max(MEMORY_KB, _own_peak_kb() * 11 // 10):  # a child starts with the peak of its parent
        yield "memory", f"a process had {outcome.memory // 1024} MB"
    elif REFUSED_MEMORY.search(outcome.errors):
        yield "memory", "it asked for more memory than 1.25 GB"
    if outcome.ending == "output":
        yield "output", f"more than {OUTPUT_BYTES // 10**6} MB"
    if outcome.ending == "waits":
        kind = "fifo" if str(scratch.fifo) in facts.opened else "time"
        yield kind, f"it was running after {WALL_SECONDS} s ({outcome.cpu:.1f} s of CPU)"
    elif outcome.cpu > CPU_SECONDS:
        yield "time", f"{outcome.cpu:.1f} s of CPU"
    if outcome.has_left_processes:
        yield "program", "it left processes behind"
