"""Processes that end with their parent, whatever ended it."""

from __future__ import annotations

import ctypes
import os
import signal
import sys

_PR_SET_PDEATHSIG = 1


def die_with_parent(number: signal.Signals, parent: int) -> None:
    """Ask the kernel to send *number* to this process when *parent* dies; Linux only, elsewhere nothing.

    Compared by id, since the parent of a process in a container may well be number 1.
    """
    if sys.platform != "linux":
        return
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, int(number))
    if os.getppid() != parent:
        os.kill(os.getpid(), number)
