"""Shows when Redis is away or refuses, and when it is well: in a gauge at once, in events seldom."""

from __future__ import annotations

import time
from collections.abc import Callable

from flask_prod.core.component import Event
from flask_prod.core.ports import GaugePort, Meter

_SILENCE = 60.0
"""At most one degraded and one recovered event per so many seconds: a flapping server must not flood the log."""

_MANY = 10
_WINDOW = 10.0
"""So many answers that are errors within so many seconds are no accident of one key; as long without is calm."""


def degraded_gauge(meter: Meter) -> GaugePort:
    """Return the gauge that every room with something to depend on shares."""
    return meter.gauge("flask_prod_degraded", "1 while a room goes on without what it depends on.", ("component",))


class Outage:
    """What is known about the outage of one server, and told of it; `cause` is the name of the last error."""

    def __init__(self, gauge: GaugePort, emit: Callable[[Event], None], address: str) -> None:
        self.cause = ""
        self._gauge = gauge
        self._emit = emit
        self._address = address
        self._told_at = -_SILENCE
        self.reset()

    def reset(self) -> None:
        """Begin anew, in a child."""
        self._away = False
        self._limping = False
        self._told = False
        self._began = 0.0
        self._errors = 0
        self._errors_since = 0.0
        self._error_at = 0.0

    def none(self) -> None:
        """Show that all is well; says nothing."""
        self._gauge.set(0.0, "redis")

    def begin(self) -> None:
        """Show and tell that Redis is left alone."""
        self._away = True
        self._show()

    def end(self) -> None:
        """Show that Redis is used again, and tell if its outage was told of."""
        self._away = False
        self._recover()

    def error(self) -> None:
        """Note an answer that is an error, as for a key of the wrong type; many of them are shown and told of.

        Redis goes on being used for what works.
        """
        now = time.monotonic()
        if now - self._errors_since > _WINDOW:
            self._errors_since, self._errors = now, 0
        self._errors += 1
        self._error_at = now
        if self._errors >= _MANY and not self._limping:
            self._limping = True
            if not self._away:
                self._show()

    def calm(self) -> None:
        """Look whether errors have ended; every few seconds."""
        if self._limping and time.monotonic() - self._error_at > _WINDOW:
            self._limping = False
            self._recover()

    def tell(self) -> None:
        """Tell of an outage, unless this one was told of or another in the last minute; then a probe tells."""
        now = time.monotonic()
        if self._told or now - self._told_at < _SILENCE:
            return
        self._told, self._told_at = True, now
        what = "does not answer" if self._away else "answers with errors"
        goes_on = " and asks again every second" if self._away else " where it does"
        message = f"Redis {what} ({self.cause}): the service goes on without it{goes_on}."
        fields = {"cause": self.cause, "address": self._address}
        self._emit(Event("prod.redis.degraded", message, "error", fields))

    def _show(self) -> None:
        self._gauge.set(1.0, "redis")
        self._began = time.monotonic()
        self.tell()

    def _recover(self) -> None:
        if self._away or self._limping:
            return
        self._gauge.set(0.0, "redis")
        if self._told:
            self._told = False
            seconds = round(time.monotonic() - self._began, 1)
            message = f"Redis answers again after {seconds} s."
            self._emit(Event("prod.redis.recovered", message, "info", {"seconds": seconds}))
