"""How reports travel: the library's transport, which knows when nobody takes them, and says so once.

While Sentry is away a report would be built, at the cost of milliseconds, only to be thrown away.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from io import BytesIO
from time import monotonic
from typing import TYPE_CHECKING, Any

from sentry_sdk.transport import HttpTransport

if TYPE_CHECKING:
    from sentry_sdk.envelope import Envelope

logger = logging.getLogger("flask_prod.errors")

_AWAY_SECONDS = 10.0
"""After a failure nothing is built for so long; then one report tries again."""

_SLOW_SECONDS = 1.0
"""A Sentry that takes longer to answer counts as away until it does."""

_SMALL = 1200
"""Bytes that gzip would only cost time: with its head a report goes in one packet of Ethernet (1,460)."""

_TALKATIVE = ("urllib3.connectionpool", "sentry_sdk.errors")
_ours = threading.local()


class Courier(HttpTransport):
    """Sends from the library's thread; `is_healthy` is asked before a report is built."""

    TIMEOUT = 5  # seconds; the library's 30 would keep a thread and its queue waiting for a Sentry that hangs

    def __init__(self, options: dict[str, Any]) -> None:
        super().__init__(options)
        self._away_until = 0.0
        self._began = 0.0
        self._failed = ""
        self._was_away = False

    def is_healthy(self) -> bool:
        """Tell whether a report is likely to arrive."""
        now = monotonic()
        if now < self._away_until or (self._began and now - self._began > _SLOW_SECONDS):
            return False
        return super().is_healthy()

    def _serialize_envelope(self, envelope: Envelope) -> tuple[str | None, BytesIO]:
        """Write a report down; a small one as it is, since it goes in one packet either way."""
        body = BytesIO()
        envelope.serialize_into(body)
        return (None, body) if body.tell() <= _SMALL else super()._serialize_envelope(envelope)

    def on_dropped_event(self, reason: str) -> None:
        """Note that a report was not taken."""
        if reason == "network" or reason.startswith("status_5"):
            self._failed = reason
            self._away_until = monotonic() + _AWAY_SECONDS

    def _send_request(self, *args: Any, **named: Any) -> None:
        _ours.sending = True  # for good: the thread is the transport's own
        self._began, self._failed = monotonic(), ""
        try:
            super()._send_request(*args, **named)
        finally:
            self._began = 0.0
            self._tell()

    def _tell(self) -> None:
        """Log the first failure of a row, and the end of it."""
        if self._failed and not self._was_away:
            logger.warning("Error reports do not arrive at Sentry (%s).", self._failed)
        elif not self._failed and self._was_away:
            logger.warning("Error reports arrive at Sentry again.")
        self._was_away = bool(self._failed)


class _Quiet(logging.Filter):
    """Keeps the libraries' lines about each attempt out of the log: an outage is worth one."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Tell whether *record* comes from somewhere else."""
        return not getattr(_ours, "sending", False)


def hush() -> Callable[[], None]:
    """Put the filter in place; return what takes it away."""
    quiet = _Quiet()
    for name in _TALKATIVE:
        logging.getLogger(name).addFilter(quiet)

    def speak() -> None:
        for name in _TALKATIVE:
            logging.getLogger(name).removeFilter(quiet)

    return speak
