"""Run a command that ends with its parent: `parent_death.py PID COMMAND...`.

The process becomes the command. On Linux it gets SIGTERM when its parent PID ends in any way.
"""

import ctypes
import os
import signal
import sys

PR_SET_PDEATHSIG = 1
"""The constant of prctl(2)."""


def main(parent: str, *command: str) -> None:
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
    if os.getppid() == int(parent):  # else the parent ended before the signal was set
        os.execvp(command[0], command)  # noqa: S606


if __name__ == "__main__":
    main(*sys.argv[1:])
