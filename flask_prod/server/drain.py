"""The drain: between SIGTERM and the stop, requests are still taken while load balancers look elsewhere.

On SIGTERM the master raises a flag in memory that all its workers share, so readiness is 503 in each of them at
once. For DRAIN_SECONDS they go on accepting, and tell clients to close their connections; then comes the ordinary
graceful stop. A second SIGTERM ends the drain, a third one the stop.
"""

from __future__ import annotations

import mmap
import signal
import threading
from collections.abc import Callable
from typing import Any

_PARTS = ("handle_term", "SIG_QUEUE", "log")
"""What is asked of gunicorn's master; they are not documented, so their absence must not do harm."""


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
        self._timer: threading.Timer | None = None

    def on_term(self) -> None:
        """Begin the drain; once it has begun, or when there is to be none, stop."""
        self.flag.raise_()
        if self._timer is not None or self.seconds <= 0:
            self._end()
            return
        self._server.log.info("Draining for %g s: not ready any more, requests are still taken", self.seconds)
        self._timer = threading.Timer(self.seconds, self._server.SIG_QUEUE.put_nowait, (signal.SIGTERM,))
        self._timer.daemon = True
        self._timer.start()

    def _end(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        # While gunicorn waits for its workers it hears of SIGINT and SIGQUIT only.
        queue = self._server.SIG_QUEUE
        signal.signal(signal.SIGTERM, lambda *_: queue.put_nowait(signal.SIGQUIT))
        self._stop()


def install(server: Any, seconds: float) -> Drain | None:
    """Let *server*, gunicorn's master, drain before it stops; None where this gunicorn cannot be taught to."""
    if not all(hasattr(server, part) for part in _PARTS):
        return None
    drain = Drain(server, seconds)
    server.handle_term = drain.on_term  # looked up by name when a signal is handled
    return drain
