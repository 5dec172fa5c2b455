"""Confine this process before it becomes a command: files, network, changes, privileges, limits.

Only the standard library and its neighbours are imported, as a command starts faster then.
"""

import ctypes
import resource
import sys
from typing import TypedDict

from ide.landlock import restrict_self
from ide.seccomp import deny_changes_and_network

READ_CAPABILITIES = 1 << 1 | 1 << 2
"""CAP_DAC_OVERRIDE and CAP_DAC_READ_SEARCH: with them, root reads files of other users. Landlock denies the writes."""
CAPABILITY_VERSION = 0x20080522
"""The version of the structure of capset(2)."""


class ConfinementOptions(TypedDict):
    """The files that a command can reach, and the limits of each of its processes."""

    readable: list[str]
    executable: list[str]
    writable: list[str]
    """The files that Landlock leaves to the command. It is not confined if there are none."""
    cpu_seconds: int
    """The time of the processor that each process may take."""
    memory: int
    """Bytes of data of each process."""
    address_space: int
    """Bytes of address space of each process, or 0 for no limit."""
    file_size: int
    """Bytes of each file that is written."""


def confine_self(options: ConfinementOptions) -> None:
    """Confine this process and its children, for good. Raises OSError."""
    if options["readable"]:
        restrict_self(options["readable"], options["executable"], options["writable"])
        deny_changes_and_network()
        _drop_privileges()
    _set_limits(options)


def _drop_privileges() -> None:
    """Drop the capabilities of root, so that it cannot look into other processes. Raises OSError.

    A program that is started does not get them back, because Landlock needs `no_new_privs`.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    header, sets = (ctypes.c_uint32 * 2)(CAPABILITY_VERSION, 0), (ctypes.c_uint32 * 6)()
    if libc.capget(header, sets) == 0:
        kept = sets[1] & READ_CAPABILITIES
        if libc.capset(header, (ctypes.c_uint32 * 6)(kept, kept, 0, 0, 0, 0)) == 0:
            return
    raise OSError(ctypes.get_errno(), "the privileges cannot be dropped")


def _set_limits(options: ConfinementOptions) -> None:
    """Lower the limits of this process. A limit that is lower already stays."""
    limits = [
        (resource.RLIMIT_CPU, options["cpu_seconds"]),
        (resource.RLIMIT_DATA, options["memory"]),
        (resource.RLIMIT_FSIZE, options["file_size"]),
        (resource.RLIMIT_CORE, 0),
    ]
    if options["address_space"]:
        limits.append((resource.RLIMIT_AS, options["address_space"]))
    for kind, value in limits:
        old = [limit for limit in resource.getrlimit(kind) if limit != resource.RLIM_INFINITY]
        try:
            resource.setrlimit(kind, (min([value, *old]),) * 2)
        except (OSError, ValueError):
            if sys.platform == "linux":  # macOS has no limits of memory
                raise
