"""Who hears Ctrl-C: a terminal tells every process of its foreground group, also a make that waits for us."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager, suppress

TERMINAL = "/dev/tty"


@contextmanager
def foreground() -> Iterator[None]:
    """Be the only one who hears Ctrl-C, then give the terminal back to whom it belonged.

    make ends with an error when it hears Ctrl-C itself, however well its recipe ends. Nothing changes without a
    terminal, in the background, or when a shell with job control has made us a group of our own already. Ctrl-Z
    is ignored meanwhile: the shell would not notice, and nobody could wake us.
    """
    terminal = _terminal()
    group = os.getpgrp()
    if terminal is None or group == os.getpid() or os.tcgetpgrp(terminal) != group:
        yield
        return

    stopped = signal.signal(signal.SIGTSTP, signal.SIG_IGN)
    try:
        os.setpgid(0, 0)
        _give(terminal, os.getpid())
        yield
    finally:
        with suppress(OSError):  # the group has ended, or the terminal was closed
            _give(terminal, group)
        signal.signal(signal.SIGTSTP, stopped)
        os.close(terminal)


def _terminal() -> int | None:
    try:
        return os.open(TERMINAL, os.O_RDWR | os.O_CLOEXEC)
    except OSError:
        return None


def _give(terminal: int, group: int) -> None:
    """Make *group* the one in front; the kernel stops whoever does this from behind unless SIGTTOU is ignored."""
    before = signal.signal(signal.SIGTTOU, signal.SIG_IGN)
    try:
        os.tcsetpgrp(terminal, group)
    finally:
        signal.signal(signal.SIGTTOU, before)
