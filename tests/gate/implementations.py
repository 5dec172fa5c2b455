"""Find the shells and the families of programs that this machine has, and lay each family out as a folder of links."""

import shutil
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

from policy.allowlist import PROGRAM_SIGNATURES, VERSION_OPTIONS
from policy.expressions import EXPRESSION_CHECKS

SYSTEM_FOLDERS = "/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin"
"""Where programs are looked for. The user's own folders are left out: another user cannot read them."""
UUTILS_FOLDER = Path("/usr/lib/cargo/bin/coreutils")
"""Where Debian's package rust-coreutils puts its programs."""
TABLE_PROGRAMS = sorted({*PROGRAM_SIGNATURES, *EXPRESSION_CHECKS, *VERSION_OPTIONS} - {"git"})

SHELL_ONLY = {"cd", "command", "type"}
"""Programs of the table that only a shell has."""


class Shell(NamedTuple):
    """A shell, and the words that make it run the text that follows."""

    name: str
    argv: tuple[str, ...]
    installed_by: str
    """The package that has it."""


SHELLS = [
    Shell("bash", ("bash", "--norc", "-c"), "bash"),
    Shell("dash", ("dash", "-c"), "dash"),
    Shell("zsh", ("zsh", "-f", "-c"), "zsh"),
    Shell("zsh with extended globs", ("zsh", "-f", "-o", "extendedglob", "-c"), "zsh"),
    Shell("mksh", ("mksh", "-c"), "mksh"),
    Shell("busybox sh", ("busybox", "sh", "-c"), "busybox"),
    Shell("ksh93", ("ksh93", "-c"), "ksh93u+m"),
    Shell("bash --posix", ("bash", "--norc", "--posix", "-c"), "bash"),
]

WRAPPERS = {
    "sed --sandbox": ({"sed": "--sandbox"}, "sed"),
    "gawk --sandbox": ({"awk": "--sandbox", "gawk": "--sandbox"}, "gawk"),
    "sed --posix": ({"sed": "--posix"}, "sed"),
    "gawk --posix": ({"awk": "--posix", "gawk": "--posix"}, "gawk"),
    "gawk --traditional": ({"awk": "--traditional", "gawk": "--traditional"}, "gawk"),
}
"""Families that are one program called with one more option: the option by name, and the program behind it."""
VARIABLES = {
    "POSIXLY_CORRECT": {"POSIXLY_CORRECT": "1"},
    "C locale": {"LC_ALL": "C"},
    "GBK locale": {"LC_ALL": "zh_CN.gbk"},
    "Shift-JIS locale": {"LC_ALL": "ja_JP.sjis"},
}
"""Families that are the system's programs with other variables.

In the last two encodings an ASCII byte may end a character. So a program may miss a quote that the gate sees.
"""
ALIASES = {
    "gawk": ({"awk": "gawk", "gawk": "gawk"}, "gawk"),
    "mawk": ({"awk": "mawk", "mawk": "mawk"}, "mawk"),
    "original-awk": ({"awk": "original-awk"}, "original-awk"),
    "gojq": ({"jq": "gojq"}, "gojq"),
}
"""Families that are other programs under the usual names: the program by name, and its package."""


class ProgramSet(NamedTuple):
    """A family of programs. Its folder stands first in the PATH, the system's programs stand behind it."""

    name: str
    folder: Path
    programs: frozenset[str]
    variables: Mapping[str, str]
    """Environment variables that this family adds."""


class Installation(NamedTuple):
    """All that can run a line here."""

    shells: list[Shell]
    sets: list[ProgramSet]
    """The system's programs are the first."""
    missing: list[str]
    """The shells and families that are not installed, each with its package."""
    folders: str
    """The PATH behind every family."""

    def sets_for(self, programs: set[str]) -> list[ProgramSet]:
        """Return the families that have at least one of the programs. The system's is always the first."""
        return [self.sets[0], *(each for each in self.sets[1:] if each.programs & programs)]


def lay_out_programs(folder: Path) -> Installation:
    """Make a folder of links for each family that is installed; return what there is and what is missing."""
    system = _link_system(folder / "system")
    sets, missing = [system], []
    locales = _list_words(["locale", "-a"]) | {"C"}
    for name, variables in VARIABLES.items():
        if variables.get("LC_ALL", "C") in locales:
            sets.append(system._replace(name=name, variables=variables))
        else:
            missing.append(f"{name} (localedef {variables['LC_ALL']})")
    for name, package, programs in _iterate_families():
        if programs:
            sets.append(_link_programs(name, folder / name.replace(" ", ""), programs))
        else:
            missing.append(f"{name} (package {package})")
    for name, (options, program) in WRAPPERS.items():
        if path := find_program(program):
            sets.append(_write_wrappers(name, folder / name.replace(" ", ""), options, path))
        else:
            missing.append(f"{name} (package {program})")
    shells = [shell._replace(argv=(path, *shell.argv[1:])) for shell in SHELLS if (path := find_program(shell.argv[0]))]
    names = {shell.name for shell in shells}
    missing += [f"{shell.name} (package {shell.installed_by})" for shell in SHELLS if shell.name not in names]
    external = set(TABLE_PROGRAMS) - SHELL_ONLY
    missing += [f"{name} (no such program)" for name in sorted(external - system.programs)]
    return Installation(shells, sets, missing, str(system.folder))


def find_program(name: str) -> str | None:
    """Return the path of a program of the system."""
    return shutil.which(name, path=SYSTEM_FOLDERS)


def _link_system(folder: Path) -> ProgramSet:
    names = {name: find_program(name) or find_program({"fd": "fdfind"}.get(name, "")) for name in TABLE_PROGRAMS}
    return _link_programs("system", folder, {name: path for name, path in names.items() if path})


def _iterate_families() -> Iterator[tuple[str, str, dict[str, str]]]:
    """Yield the name, the package and the programs of each family. One without programs is not installed."""
    for name, listing in (("busybox", ["--list"]), ("toybox", [])):
        path = find_program(name)
        applets = _list_words([path, *listing]) if path else set()
        yield name, name, {applet: path for applet in TABLE_PROGRAMS if path and applet in applets}
    uutils = {name: UUTILS_FOLDER / name for name in TABLE_PROGRAMS}
    yield "uutils", "rust-coreutils", {name: str(path) for name, path in uutils.items() if path.exists()}
    for name, (programs, package) in ALIASES.items():
        paths = {alias: find_program(program) for alias, program in programs.items()}
        yield name, package, {alias: path for alias, path in paths.items() if path}


def _list_words(argv: list[str]) -> set[str]:
    if not find_program(argv[0]):
        return set()
    return set(subprocess.run(argv, capture_output=True, text=True, timeout=10, check=False).stdout.split())


def _link_programs(name: str, folder: Path, programs: Mapping[str, str]) -> ProgramSet:
    folder.mkdir(parents=True)
    for program, path in programs.items():
        (folder / program).symlink_to(path)
    return ProgramSet(name, folder, frozenset(programs), {})


def _write_wrappers(name: str, folder: Path, options: Mapping[str, str], path: str) -> ProgramSet:
    folder.mkdir(parents=True)
    for program, option in options.items():
        wrapper = folder / program
        wrapper.write_text(f'#!/bin/sh\nexec {path} {option} "$@"\n')
        wrapper.chmod(0o755)
    return ProgramSet(name, folder, frozenset(options), {})
