"""Shows when Redis is away and when it is back: in a gauge at once, in events with care for the log."""

from __future__ import annotations

import time
from collections.abc import Callable

from flask_prod.core.component import Event
from flask_prod.core.ports import GaugePort, Meter

_SILENCE = 60.0
"""At most one degraded and one recovered event per so many seconds: a flapping server must not flood the log."""


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
        self._began = 0.0
        self._told_at = -_SILENCE
        self.reset()

    def reset(self) -> None:
        """Begin anew, in a child."""
        self._told = False

    def none(self) -> None:
        """Show that all is well; says nothing."""
        self._gauge.set(0.0, "redis")

    def begin(self) -> None:
        """Show and tell that Redis is left alone."""
        self._gauge.set(1.0, "redis")
        self._began = time.monotonic()
        self.tell()

    def end(self) -> None:
        """Show that it works again, and tell if its outage was told of."""
        self._gauge.set(0.0, "redis")
        if self._told:
            self._told = False
            seconds = round(time.monotonic() - self._began, 1)
            message = f"Redis answers again after {seconds} s."
            self._emit(Event("prod.redis.recovered", message, "info", {"seconds": seconds}))

    def tell(self) -> None:
        """Tell of an outage, unless this one was told of or another in the last minute; then a probe tells."""
        now = time.monotonic()
        if self._told or now - self._told_at < _SILENCE:
            return
        self._told, self._told_at = True, now
        message = (
            f"Redis does not answer ({self.cause}): the service goes on without it and asks again every second."
        )
        fields = {"cause": self.cause, "address": self._address}
        self._emit(Event("prod.redis.degraded", message, "error", fields))
