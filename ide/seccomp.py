"""Deny this process the system calls that Landlock does not cover, with a filter of the kernel: seccomp(2).

These are sockets, and changes of the mode, the owner, the times and the attributes of a file. Only the standard library
is imported, as a command starts faster then.
"""

import ctypes
import errno
import os
import sys
from typing import NamedTuple

PR_SET_NO_NEW_PRIVS, PR_GET_SECCOMP, PR_SET_SECCOMP = 38, 21, 22
MODE_FILTER = 2
"""The constants of prctl(2)."""
LOAD, JUMP_IF_EQUAL, JUMP_IF_GREATER_OR_EQUAL, RETURN = 0x20, 0x15, 0x35, 0x06
"""The instructions of the filter, as in linux/bpf_common.h."""
ALLOW, DENY = 0x7FFF0000, 0x00050000
NUMBER_OFFSET, MACHINE_OFFSET, FIRST_ARGUMENT_OFFSET = 0, 4, 16
"""Where the data of a system call has its number, its machine, and the low half of its first argument."""
AF_NETLINK = 16
"""The only sockets that are left: programs such as `ss` read the state of the kernel with them."""
FIRST_X32_CALL = 0x40000000
"""From here on are the calls of another interface of x86-64, under other numbers."""
LATER_CALLS = (*(425, 452, 463), *(466, 469))
"""io_uring_setup, which opens sockets too, fchmodat2, setxattrat, removexattrat and file_setattr, on all machines."""


class _Machine(NamedTuple):
    """The numbers of a machine."""

    audit: int
    """The number by which the filter knows it, as in linux/audit.h."""
    socket: int
    changes: tuple[int, ...]
    """The calls of the families chmod, chown, utime, setxattr and removexattr."""


GENERIC_CHANGES = (*range(52, 56), 88, *range(5, 8), *range(14, 17))
"""Of machines that came after 2010."""
X86_CHANGES = (*range(90, 95), 132, *range(188, 191), *range(197, 200), 235, 260, 261, 268, 280)
MACHINES = {
    "x86_64": _Machine(
        0xC000003E, 41, (*range(90, 95), 132, 235, 260, 261, 268, 280, *range(188, 191), *range(197, 200))
    ),
    "aarch64": _Machine(0xC00000B7, 198, GENERIC_CHANGES),
    "riscv64": _Machine(0xC00000F3, 198, GENERIC_CHANGES),
}


class _Instruction(ctypes.Structure):
    _fields_ = (
        ("code", ctypes.c_uint16),
        ("if_true", ctypes.c_uint8),
        ("if_false", ctypes.c_uint8),
        ("value", ctypes.c_uint32),
    )


class _Program(ctypes.Structure):
    _fields_ = (("length", ctypes.c_uint16), ("instructions", ctypes.POINTER(_Instruction)))


def has_seccomp() -> bool:
    """Return whether the kernel has filters, and the numbers of this machine are known."""
    return _find_machine() is not None and ctypes.CDLL(None).prctl(PR_GET_SECCOMP, 0, 0, 0, 0) >= 0


def deny_changes_and_network() -> None:
    """Deny this process and its children such system calls. Nothing is done where `has_seccomp` is false.

    Raises OSError.
    """
    machine = _find_machine()
    if machine is None or not has_seccomp():
        return
    code = _build_filter(machine)
    program = _Program(len(code), (_Instruction * len(code))(*(_Instruction(*parts) for parts in code)))
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) or libc.prctl(PR_SET_SECCOMP, MODE_FILTER, ctypes.byref(program)):
        raise OSError(ctypes.get_errno(), "the filter of system calls cannot be set")


def _find_machine() -> _Machine | None:
    is_known = sys.platform == "linux" and sys.maxsize > 1 << 32
    return MACHINES.get(os.uname().machine) if is_known else None


def _build_filter(machine: _Machine) -> list[tuple[int, int, int, int]]:
    """Return the instructions: a call of another machine has no number that means anything here."""
    denied = (*machine.changes, *LATER_CALLS)
    end = len(denied)
    return [
        (LOAD, 0, 0, MACHINE_OFFSET),
        (JUMP_IF_EQUAL, 1, 0, machine.audit),
        (RETURN, 0, 0, DENY | errno.ENOSYS),
        (LOAD, 0, 0, NUMBER_OFFSET),
        (JUMP_IF_GREATER_OR_EQUAL, end + 3, 0, FIRST_X32_CALL),
        *((JUMP_IF_EQUAL, end - position + 2, 0, number) for position, number in enumerate(denied)),
        (JUMP_IF_EQUAL, 0, 3, machine.socket),
        (LOAD, 0, 0, FIRST_ARGUMENT_OFFSET),
        (JUMP_IF_EQUAL, 1, 0, AF_NETLINK),
        (RETURN, 0, 0, DENY | errno.EPERM),
        (RETURN, 0, 0, ALLOW),
    ]
