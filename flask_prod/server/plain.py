"""For servers without a life of their own: waitress, wsgiref, `flask run`, cheroot, or one you wrote.

They end a process at SIGTERM at once, or never. One line in the program that starts the server gives it the same
end as under gunicorn: not ready any more, requests still taken for DRAIN_SECONDS, the server's own end, at last
everything closed within its share of SHUTDOWN_SECONDS:

    from flask_prod.server.plain import drain_on_sigterm

    app = create_app()
    drain_on_sigterm(app)
    waitress.serve(app, port=8000)
"""

from __future__ import annotations

import atexit
import logging
import os
import signal
import threading
from collections.abc import Callable
from typing import Any

from flask import Flask

from flask_prod.core.closing import closing_seconds
from flask_prod.core.kit import KitState, state_of

logger = logging.getLogger(__name__)


def drain_on_sigterm(app: Flask, stop: Callable[[], None] | None = None) -> None:
    """Let SIGTERM begin a drain, a second one end it, and close everything when this process exits.

    *stop* ends the server, such as `server.close` or `server.shutdown`, and is called in a thread of its own;
    without it the main thread gets SystemExit, which waitress and wsgiref take as a request to end.
    RuntimeError when called from another thread than the main one, where Python handles signals.
    """
    if threading.current_thread() is not threading.main_thread():
        raise RuntimeError("drain_on_sigterm must be called by the main thread, where Python handles signals.")
    drain = _Drain(state_of(app), stop)
    signal.signal(signal.SIGTERM, drain.on_term)
    atexit.register(drain.close)


class _Drain:
    """From SIGTERM to the end of one process that serves by itself."""

    def __init__(self, state: KitState, stop: Callable[[], None] | None) -> None:
        self._state = state
        self._stop = stop
        self._owner = os.getpid()
        self._terms = 0

    def on_term(self, _number: int, _frame: Any) -> None:
        """Drain; at the second signal, or when the drain is over, end."""
        self._terms += 1
        seconds = self._state.service.drain_seconds
        if self._terms > 1 or seconds <= 0:
            signal.setitimer(signal.ITIMER_REAL, 0)
            self._end()
            return
        health = self._state.lifecycle.handle("health")
        if health is not None:
            health.drain()
        logger.info("Draining for %g s: not ready any more, requests are still taken", seconds)
        signal.signal(signal.SIGALRM, self.on_term)  # not a thread: some servers run in the only one there is
        signal.setitimer(signal.ITIMER_REAL, seconds)

    def close(self) -> None:
        """Close everything, in the process that asked for it; not in one it has forked."""
        if os.getpid() == self._owner:
            self._state.lifecycle.close(closing_seconds(self._state.service.shutdown_seconds))

    def _end(self) -> None:
        if self._stop is None:
            raise SystemExit(0)
        threading.Thread(target=self._stop, name="flask-prod-stop", daemon=True).start()
