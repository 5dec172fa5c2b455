"""Confine this process with Landlock, which needs no privileges: landlock(7).

Only the standard library is imported, as a command starts faster then.
"""

import ctypes
import os
import stat
import sys
from collections.abc import Iterable
from contextlib import suppress

CREATE_RULESET, ADD_RULE, RESTRICT_SELF = 444, 445, 446
"""The numbers of the system calls on all machines but Alpha."""
VERSION_FLAG = 1
RULE_PATH_BENEATH = 1
PR_SET_NO_NEW_PRIVS = 38

EXECUTE, WRITE_FILE, READ_FILE, READ_DIR = 1 << 0, 1 << 1, 1 << 2, 1 << 3
REFER, TRUNCATE, IOCTL_DEV = 1 << 13, 1 << 14, 1 << 15
ACCESS_OF_ABI_1 = (1 << 13) - 1
FILE_ACCESS = EXECUTE | WRITE_FILE | READ_FILE | TRUNCATE | IOCTL_DEV
"""The kinds of access that a rule for a file may have; the others are for folders."""
READ = READ_FILE | READ_DIR
TCP_BIND_AND_CONNECT = 3
ABSTRACT_SOCKETS_AND_SIGNALS = 3
NET_ABI, SCOPE_ABI = 4, 6
"""The first versions that cover TCP, and sockets and signals of other processes."""


class _RulesetAttributes(ctypes.Structure):
    _fields_ = (("access", ctypes.c_uint64), ("network", ctypes.c_uint64), ("scoped", ctypes.c_uint64))


class _PathAttributes(ctypes.Structure):
    _pack_ = 1
    _layout_ = "ms"
    _fields_ = (("access", ctypes.c_uint64), ("descriptor", ctypes.c_int32))


def find_abi() -> int:
    """Return the version of Landlock, or 0 if the kernel has none or has disabled it."""
    if sys.platform != "linux" or os.uname().machine == "alpha":
        return 0
    with suppress(OSError):
        return _call(CREATE_RULESET, None, ctypes.c_size_t(0), ctypes.c_uint32(VERSION_FLAG))
    return 0


def restrict_self(readable: Iterable[str], executable: Iterable[str], writable: Iterable[str]) -> None:
    """Deny this process and its children all access to files but that to these and what is below them.

    `executable` files can be read too, and `writable` ones read and written. TCP, signals to other processes and
    abstract sockets are denied where the kernel can do that. Raises OSError.
    """
    abi = find_abi()
    handled = _list_access(abi)
    attributes = _RulesetAttributes(
        handled,
        TCP_BIND_AND_CONNECT if abi >= NET_ABI else 0,
        ABSTRACT_SOCKETS_AND_SIGNALS if abi >= SCOPE_ABI else 0,
    )
    ruleset = _call(CREATE_RULESET, ctypes.byref(attributes), ctypes.c_size_t(_find_size(abi)), ctypes.c_uint32(0))
    try:
        for paths, access in ((readable, READ), (executable, READ | EXECUTE), (writable, handled & ~EXECUTE)):
            for path in paths:
                _allow_path(ruleset, path, access)
        _set_no_new_privileges()
        _call(RESTRICT_SELF, ctypes.c_int(ruleset), ctypes.c_uint32(0))
    finally:
        os.close(ruleset)


def _list_access(abi: int) -> int:
    """Return the kinds of access that this version can deny."""
    later = ((2, REFER), (3, TRUNCATE), (5, IOCTL_DEV))
    return ACCESS_OF_ABI_1 | sum(access for first, access in later if abi >= first)


def _find_size(abi: int) -> int:
    """Return the bytes of the ruleset's attributes that this version knows."""
    return 8 * (1 + (abi >= NET_ABI) + (abi >= SCOPE_ABI))


def _allow_path(ruleset: int, path: str, access: int) -> None:
    """Add a rule for the path, if there is such a file. Raises OSError."""
    try:
        descriptor = os.open(path, os.O_PATH | os.O_CLOEXEC)
    except OSError:
        return
    try:
        is_folder = stat.S_ISDIR(os.fstat(descriptor).st_mode)
        rule = _PathAttributes(access if is_folder else access & FILE_ACCESS, descriptor)
        arguments = ctypes.c_int(ruleset), ctypes.c_int(RULE_PATH_BENEATH), ctypes.byref(rule), ctypes.c_uint32(0)
        _call(ADD_RULE, *arguments)
    finally:
        os.close(descriptor)


def _set_no_new_privileges() -> None:
    if ctypes.CDLL(None, use_errno=True).prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0):
        raise OSError(ctypes.get_errno(), "no_new_privs cannot be set")


def _call(number: int, *arguments: object) -> int:
    """Make a system call, and return its result. Raises OSError."""
    result = int(ctypes.CDLL(None, use_errno=True).syscall(ctypes.c_long(number), *arguments))
    if result < 0:
        error = ctypes.get_errno()
        raise OSError(error, os.strerror(error))
    return result
