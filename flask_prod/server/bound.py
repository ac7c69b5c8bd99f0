"""Run a command that ends with the process that started it: `python -IS bound.py PARENT SIGNAL COMMAND...`.

A supervisor that is killed with -9 cannot stop its children any more; the kernel does it then (Linux only;
elsewhere the command just runs). The kernel watches the *thread* that started this: start it from one that stays.
"""

from __future__ import annotations

import ctypes
import os
import sys
from pathlib import Path

_PR_SET_PDEATHSIG = 1


def bound_to_this_process(command: list[str], number: int) -> list[str]:
    """Return *command* so that it gets signal *number* when this process is gone; the process id stays."""
    return [sys.executable, "-IS", str(Path(__file__)), str(os.getpid()), str(int(number)), *command]


def main() -> None:
    """Bind to the parent's life, then become the command."""
    parent, number, *command = sys.argv[1:]
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, int(number))
        if os.getppid() != int(parent):
            sys.exit("the parent is gone already")
    os.execvp(command[0], command)  # noqa: S606  # the caller's own command, never a shell


if __name__ == "__main__":
    main()
