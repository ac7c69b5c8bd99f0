"""The end of a serving process: its requests, then its components, before whoever waits for it loses patience."""

from __future__ import annotations

import signal
from collections.abc import Mapping
from time import monotonic
from typing import Any

from flask_prod.core.closing import closing_seconds
from flask_prod.core.lifecycle import alive

from . import classes


class Ending:
    """What one of gunicorn's workers does from SIGTERM to its exit.

    gunicorn kills it when SHUTDOWN_SECONDS are over, whatever it does then. So a part of them is kept for closing:
    a request that would use up all of it does not cost the traces and reports of those before it.
    """

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._began = 0.0

    def watch(self) -> None:
        """Begin when this process is told to end, before gunicorn's own handler."""
        before: Any = signal.getsignal(signal.SIGTERM)

        def on_term(number: int, frame: Any) -> None:
            self._begin()
            if callable(before):
                before(number, frame)

        signal.signal(signal.SIGTERM, on_term)
        signal.siginterrupt(signal.SIGTERM, False)

    def finish(self) -> None:
        """Close everything that this process opened, once."""
        close_all(self._seconds, {"requests": monotonic() - self._began} if self._began else {})

    def _begin(self) -> None:
        if self._began:
            return
        self._began = monotonic()
        classes.later(self._seconds - closing_seconds(self._seconds), self.finish)


def close_all(shutdown: float, spent: Mapping[str, float]) -> None:
    """Close all applications of this process, within the part of *shutdown* seconds that is kept for it."""
    for lifecycle in alive():
        lifecycle.close(closing_seconds(shutdown), spent)
