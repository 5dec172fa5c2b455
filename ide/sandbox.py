"""Choose the sandbox for commands that no user has approved, and what they can reach in it.

The kernel's Landlock is preferred, then `bwrap`. Both need no privileges.
"""

import os
import shutil
import subprocess
from collections.abc import Iterable, Sequence
from enum import StrEnum
from functools import cache
from pathlib import Path
from typing import NamedTuple

from ide.landlock import NET_ABI, find_abi
from ide.seccomp import has_seccomp
from ide.workspace import Workspace

SYSTEM_FOLDERS = ("/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32", "/nix", "/gnu/store")
"""The folders of the system's programs and libraries."""
SYSTEM_PREFIXES = tuple(f"{folder}/" for folder in SYSTEM_FOLDERS)
SYSTEM_FILES = (
    *("/proc", "/sys/devices/system", "/sys/fs/cgroup", "/run/utmp", "/var/log/wtmp", "/var/cache/man"),
    *("/dev/zero", "/dev/random", "/dev/urandom", "/dev/fd"),
    *("/etc/ld.so.cache", "/etc/ld.so.conf", "/etc/ld.so.conf.d", "/etc/ld.so.preload", "/etc/localtime"),
    *("/etc/timezone", "/etc/passwd", "/etc/group", "/etc/nsswitch.conf", "/etc/hosts", "/etc/host.conf"),
    *("/etc/resolv.conf", "/etc/services", "/etc/protocols", "/etc/locale.alias", "/etc/locale.conf"),
    *("/etc/default/locale", "/etc/magic", "/etc/magic.mime", "/etc/mime.types", "/etc/terminfo", "/etc/os-release"),
    *("/etc/lsb-release", "/etc/debian_version", "/etc/DIR_COLORS", "/etc/alternatives", "/etc/mtab"),
)
"""The other files that programs read at their start, or to print the state of the system."""
WRITABLE_DEVICES = ("/dev/null", "/dev/full")
INSTALLATION_FOLDERS = ("bin", "lib", "lib64", "libexec", "shims", "versions", "version", "jre", "conf", "release")
"""The parts of an installation that its program may read. `share` is not one: in `~/.local` it holds keys."""
PROBE_SECONDS = 10
"""Seconds for bwrap to show that it works, with room for a busy machine; chosen, not measured."""


class SandboxKind(StrEnum):
    LANDLOCK = "landlock"
    BWRAP = "bwrap"
    NONE = "none"


class Sandbox(NamedTuple):
    """The way in which commands are confined."""

    kind: SandboxKind
    abi: int = 0
    """The version of Landlock."""

    def describe(self) -> str:
        """Return a sentence for the user."""
        match self.kind:
            case SandboxKind.LANDLOCK:
                network = "no network" if has_seccomp() else "no TCP" if self.abi >= NET_ABI else "with network"
                wall = f"Landlock (ABI {self.abi}), no writes, no reads outside the workspace, {network}"
            case SandboxKind.BWRAP:
                wall = "bwrap, no writes, no reads outside the workspace, no network"
            case _:
                wall = "no sandbox on this system: limits and path checks only"
        return f"Unasked commands: {wall}."


class Access(NamedTuple):
    """The files that a command can reach. All is reachable if there are none."""

    readable: list[str]
    executable: list[str]
    writable: list[str]


NO_SANDBOX = Sandbox(SandboxKind.NONE)
FULL_ACCESS = Access([], [], [])


@cache
def find_sandbox() -> Sandbox:
    """Return the sandbox that works on this system."""
    if abi := find_abi():
        return Sandbox(SandboxKind.LANDLOCK, abi)
    return Sandbox(SandboxKind.BWRAP) if works_with_bwrap() else NO_SANDBOX


def works_with_bwrap() -> bool:
    """Return whether bwrap is there and can run a program."""
    if not find_bwrap():
        return False
    argv = wrap_with_bwrap(["true"], Access(list(SYSTEM_FILES), list(SYSTEM_FOLDERS), []), "/")
    try:
        return not subprocess.call(  # noqa: S603
            argv,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            timeout=PROBE_SECONDS,
        )
    except (OSError, subprocess.TimeoutExpired):
        return False


def find_bwrap() -> str:
    """Return the path of bwrap, or "" if the system has none. One of a workspace is not trusted."""
    found = os.path.realpath(shutil.which("bwrap") or "/")
    return found if found.startswith(SYSTEM_PREFIXES) else ""


def list_access(workspace: Workspace, temporary: str, programs: Iterable[str], search_path: str) -> Access:
    """Return what a command that runs these programs, found in the search path, can reach in a workspace.

    Git may read everything: the repository may lie above the workspace, and the user's settings count. It runs unasked
    only if the policy trusts the repository.
    """
    writable = [temporary, *WRITABLE_DEVICES]
    if "git" in programs:
        return Access(["/"], ["/"], writable)
    paths = (found for program in programs if (found := shutil.which(program, path=search_path)))
    installed = [path for found in paths for path in _list_installation(found, workspace)]
    return Access([str(workspace.root), *SYSTEM_FILES], [*SYSTEM_FOLDERS, *installed], writable)


def _list_installation(program: str, workspace: Workspace) -> list[str]:
    """Return the files of a program that is installed outside the system's folders, as in a home folder.

    There are none for a link to a program of the workspace. Folders that hold the workspace or the home folder are left
    out.
    """
    paths = {program, os.path.realpath(program)}
    if any(workspace.contains(path) for path in paths):
        return []
    outside = [Path(path) for path in paths if not path.startswith(SYSTEM_PREFIXES)]
    prefixes = {path.parent.parent for path in outside if path.parent.name in INSTALLATION_FOLDERS}
    trusted = [
        prefix
        for prefix in prefixes
        if not (workspace.contains(str(prefix)) or workspace.root.is_relative_to(prefix))
        and not Path(os.path.expanduser("~")).is_relative_to(prefix)
    ]
    return [*map(str, outside), *(str(prefix / name) for prefix in trusted for name in INSTALLATION_FOLDERS)]


def wrap_with_bwrap(argv: Sequence[str], access: Access, folder: str) -> list[str]:
    """Return the command that runs `argv` in a view of the file system of its own, and without a network."""
    binds: list[str] = []
    for path in (*access.executable, *access.readable):
        if not path.startswith(("/proc", "/dev")):
            binds += ["--ro-bind-try", path, path]
    binds += ["--proc", "/proc", "--dev", "/dev"]
    for path in access.writable:
        if not path.startswith("/dev"):
            binds += ["--bind", path, path]
    for path in ("/proc", "/dev", "/"):
        binds += ["--remount-ro", path]
    privileges = ["--cap-drop", "ALL"]
    if os.geteuid() == 0:  # root reads files of other users with it
        privileges += ["--cap-add", "CAP_DAC_READ_SEARCH"]
    isolation = ["--unshare-all", "--die-with-parent", "--new-session", "--chdir", folder]
    return [find_bwrap(), *binds, *privileges, *isolation, "--", *argv]
