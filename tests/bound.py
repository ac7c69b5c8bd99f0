"""Run a command that cannot outlive the process that started it: `python -IS bound.py PARENT USER COMMAND...`.

A server must be gone when a test run is killed with -9. The kernel sees to it (PR_SET_PDEATHSIG, Linux only); a
preexec_fn would do the same, but forks a process that has threads, which Python warns about.
USER is a numeric user id to become first, or `-`.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys

PR_SET_PDEATHSIG = 1


def main() -> None:
    """Become the user, bind to the parent's life, become the command."""
    parent, user, *command = sys.argv[1:]
    if user != "-":
        os.setgroups([])
        os.setgid(int(user))
        os.setuid(int(user))
    if sys.platform == "linux":
        # After the change of user, which would clear it.
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != int(parent):
            sys.exit("the parent is gone already")
    os.execvp(command[0], command)


if __name__ == "__main__":
    main()
