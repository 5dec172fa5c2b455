"""Read the output of strace: which files a command opened or changed, which programs it ran, which sockets it used."""

import re
from collections.abc import Iterator
from posixpath import basename, join, normpath
from typing import NamedTuple

OPENING_CALLS = {"open", "openat", "openat2"}
CHANGING_CALLS = {
    *("creat", "truncate", "ftruncate", "fallocate", "mknod", "mknodat", "mkdir", "mkdirat", "rmdir"),
    *("rename", "renameat", "renameat2", "unlink", "unlinkat", "link", "linkat", "symlink", "symlinkat"),
    *("chmod", "fchmod", "fchmodat", "fchmodat2", "chown", "fchown", "lchown", "fchownat"),
    *("utimensat", "utime", "utimes", "futimesat"),
    *("setxattr", "lsetxattr", "fsetxattr", "removexattr", "lremovexattr", "fremovexattr"),
    *("mount", "umount2", "chroot", "pivot_root"),
    *("clock_settime", "settimeofday", "sethostname", "setdomainname"),
}
"""The calls that change a file, a folder or the system."""
NETWORK_CALLS = {"connect", "sendto", "sendmsg", "sendmmsg", "bind"}
PROGRAM_CALLS = {"execve", "execveat"}
OTHER_CALLS = {"kill", "tkill", "ptrace"}
TRACED_CALLS = ",".join(
    f"?{name}" for name in sorted(OPENING_CALLS | CHANGING_CALLS | NETWORK_CALLS | PROGRAM_CALLS | OTHER_CALLS)
)
"""A question mark: a system that has no such call is no error."""

LINE = re.compile(r"(\d+) +(.*)")
CALL = re.compile(r"(\w+)\((.*)\) += (-?\d+|\?)(.*)", re.DOTALL)
UNFINISHED = re.compile(r"(.*) <unfinished \.\.\.>")
RESUMED = re.compile(r"<\.\.\. \w+ resumed>(.*)", re.DOTALL)
WRITE_FLAGS = re.compile(r"O_(WRONLY|RDWR|CREAT|TRUNC|APPEND|TMPFILE)")
STRING = r'"((?:[^"\\]|\\.)*)"'
STRINGS = re.compile(STRING)
FOLDER = re.compile(rf"(?:AT_FDCWD|\d+)(?:<([^>]*)>)?, {STRING}")
INTERNET = re.compile(r"sa_family=AF_INET6?\b")
LOCAL_SOCKET = re.compile(rf"sun_path=@?{STRING}")
ESCAPE = re.compile(r"\\(?:([0-7]{1,3})|x([0-9a-f]{2})|(.))")
ESCAPED_CHARACTERS = {"n": "\n", "t": "\t", "r": "\r", "v": "\v", "f": "\f"}
REFUSED = ("EACCES", "EPERM", "EROFS")


class Facts(NamedTuple):
    """What the processes of a command did. A path is absolute, with its links resolved where the call succeeded."""

    opened: set[str]
    """Files and folders that were opened for reading, or would have been with more rights."""
    changed: set[str]
    """Files that were opened for writing or changed, or that it tried to, each behind the name of the call."""
    started: list[tuple[str, ...]]
    """The programs, each as its path and its words."""
    sockets: set[str]
    """Internet addresses and local sockets, as strace prints them."""
    signals: set[str]
    """Signals sent, as strace prints them."""
    processes: set[str]
    """The ids of the processes."""


def parse_trace(text: str, folder: str) -> Facts:
    """Return the facts of a trace. Relative paths are those of `folder`, unless strace names another one."""
    facts = Facts(set(), set(), [], set(), set(), set())
    for process, call in _iterate_calls(text):
        facts.processes.add(process)
        match = CALL.fullmatch(call)
        if match:
            _add_call(facts, match[1], match[2], match[3], match[4].strip(), folder)
    return facts


def _iterate_calls(text: str) -> Iterator[tuple[str, str]]:
    """Yield the process and the text of each call. Calls that strace prints in two parts are joined."""
    begun: dict[str, str] = {}
    for line in text.split("\n"):
        if not (match := LINE.fullmatch(line)):
            continue
        process, call = match[1], match[2]
        if unfinished := UNFINISHED.fullmatch(call):
            begun[process] = unfinished[1]
        elif resumed := RESUMED.fullmatch(call):
            yield process, begun.pop(process, "") + resumed[1]
        else:
            yield process, call
    for process, call in begun.items():
        yield process, f"{call}) = ? "


def _add_call(facts: Facts, name: str, arguments: str, result: str, rest: str, folder: str) -> None:
    if name in OPENING_CALLS:
        path = _resolve_path(arguments, rest, folder)
        has_no_effect = result == "-1" and not any(error in rest for error in REFUSED)
        if WRITE_FLAGS.search(STRINGS.sub("", arguments)):
            facts.changed.add(f"{name} {path}")
        elif not has_no_effect and "O_PATH" not in arguments:  # such a descriptor cannot be read
            facts.opened.add(path)
    elif name in CHANGING_CALLS:
        facts.changed.add(f"{name} {_resolve_path(arguments, '', folder)}")
    elif name in PROGRAM_CALLS and result == "0":
        facts.started.append(tuple(decode_string(text) for text in STRINGS.findall(arguments)))
    elif name in NETWORK_CALLS and (INTERNET.search(arguments) or LOCAL_SOCKET.search(arguments)):
        local = LOCAL_SOCKET.search(arguments)
        facts.sockets.add(decode_string(local[1]) if local else f"{name} {arguments}")
    elif name in OTHER_CALLS:
        facts.signals.add(f"{name} {arguments}")


def _resolve_path(arguments: str, rest: str, folder: str) -> str:
    if rest.startswith("<"):
        return decode_string(rest[1:].rpartition(">")[0])
    if relative := FOLDER.match(arguments):
        return normpath(join(folder, decode_string(relative[1] or ""), decode_string(relative[2])))
    if string := STRINGS.match(arguments):
        return normpath(join(folder, decode_string(string[1])))
    return arguments


def decode_string(text: str) -> str:
    """Return the text behind the escapes of strace. Its bytes are read as UTF-8."""
    if "\\" not in text:
        return text

    def replace(match: re.Match[str]) -> str:
        if match[1]:
            return chr(int(match[1], 8))
        return chr(int(match[2], 16)) if match[2] else ESCAPED_CHARACTERS.get(match[3], match[3])

    return ESCAPE.sub(replace, text).encode("latin-1", "replace").decode("utf-8", "surrogateescape")


def program_name(started: tuple[str, ...]) -> str:
    """Return the name by which a program was started."""
    return basename(started[0]) if started else ""
