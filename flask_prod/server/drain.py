"""The drain: between SIGTERM and the stop, requests are still taken while load balancers look elsewhere.

On SIGTERM the master raises a flag in memory that all its workers share, so readiness is 503 in each of them at
once. For DRAIN_SECONDS they go on accepting, and tell clients to close their connections; then comes the ordinary
graceful stop. A second SIGTERM ends the drain, a third one the stop.
"""

from __future__ import annotations

import mmap
import signal
from collections.abc import Callable
from typing import Any


class Flag:
    """One bit that a process and all that it forks later share."""

    def __init__(self) -> None:
        self._memory = mmap.mmap(-1, 1)

    def __call__(self) -> bool:
        """Tell whether it is raised."""
        return self._memory[0] != 0

    def raise_(self) -> None:
        """Raise it, for good."""
        self._memory[0] = 1


class Drain:
    """Puts DRAIN_SECONDS between the first SIGTERM to gunicorn's master and the stop."""

    def __init__(self, server: Any, seconds: float) -> None:
        self.flag = Flag()
        self.seconds = seconds
        self._server = server
        self._stop: Callable[[], None] = server.handle_term
        self._begun = False

    def on_term(self) -> None:
        """Begin the drain; once it has begun, or when there is to be none, stop."""
        self.flag.raise_()
        if self._begun or self.seconds <= 0:
            self._end()
            return
        self._begun = True
        self._server.log.info("Draining for %g s: not ready any more, requests are still taken", self.seconds)
        # Not a thread, since workers may be forked meanwhile.
        queue = self._server.SIG_QUEUE
        signal.signal(signal.SIGALRM, lambda *_: queue.put_nowait(signal.SIGTERM))
        signal.setitimer(signal.ITIMER_REAL, self.seconds)

    def _end(self) -> None:
        signal.setitimer(signal.ITIMER_REAL, 0)
        # While gunicorn waits for its workers it hears of SIGINT and SIGQUIT only.
        queue = self._server.SIG_QUEUE
        signal.signal(signal.SIGTERM, lambda *_: queue.put_nowait(signal.SIGQUIT))
        self._stop()
