"""The default metrics of prometheus_flask_exporter, recorded once, when the answer's body is closed."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from typing import Any, TypeAlias

from prometheus_client import Counter, Gauge, Histogram

from flask_prod.core.record import RequestRecord

from .instruments import Instruments

METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "CONNECT"})
OTHER = "OTHER"
UNMATCHED = "unmatched"
UNTRACKED = "flask_prod.untracked"
"""Set in the WSGI environment by `do_not_track`: Flask's request is gone when the body is closed."""

Child: TypeAlias = tuple[Sequence[float], Sequence[Any], Any, Any, Any]
"""The values behind one combination of labels: bounds and buckets, seconds, requests, bytes."""

_IN_FLIGHT = "flask_prod.in_flight"


class HttpMetrics:
    """Counts and times requests by method, route template and status."""

    def __init__(self, instruments: Instruments, buckets: Sequence[float]) -> None:
        labels = ("method", "url_rule", "status")
        self._duration = instruments.series(
            Histogram, "flask_http_request_duration_seconds", "Flask HTTP request duration in seconds", labels,
            {"buckets": tuple(buckets)},
        )  # fmt: skip
        self._total = instruments.series(
            Counter, "flask_http_request_total", "Total number of HTTP requests", ("method", "status")
        )
        self._exceptions = instruments.series(
            Counter, "flask_http_request_exceptions_total",
            "Total number of HTTP requests which resulted in an exception", ("method", "status"),
        )  # fmt: skip
        self._bytes = instruments.series(
            Counter, "flask_prod_http_response_bytes_total", "Bytes of response bodies sent", labels
        )
        in_flight = instruments.series(
            Gauge, "flask_prod_http_requests_in_flight", "HTTP requests being served", (),
            {"multiprocess_mode": "livesum"},
        )  # fmt: skip
        self._in_flight = in_flight.metric._value
        self._children: dict[tuple[str, str | None, int], Child] = {}
        # There from the start: what a scanner of random paths and methods would otherwise add later.
        for method, status in (("GET", 404), (OTHER, 404), (OTHER, 405)):
            self._child((method, None, status))

    def enter(self, record: RequestRecord) -> None:
        """Count a request that is about to be served; probes and scrapes never come here."""
        record.environ[_IN_FLIGHT] = True
        self._in_flight.inc(1)

    def observe(self, record: RequestRecord) -> None:
        """Record a request that has ended; one that crashed on its way out counts as a 500."""
        environ = record.environ
        if environ.pop(_IN_FLIGHT, False):
            self._in_flight.inc(-1)
        if record.operational or UNTRACKED in environ:
            return
        method = record.method if record.method in METHODS else OTHER
        status = 500 if record.outcome == "crashed" else record.status
        key = (method, record.route, status)
        bounds, buckets, total_seconds, total, sent = self._children.get(key) or self._child(key)
        # What Histogram.observe does by a loop over its buckets, and Counter.inc after several checks.
        buckets[bisect_left(bounds, record.duration)].inc(1)
        total_seconds.inc(record.duration)
        total.inc(1)
        sent.inc(record.bytes_sent)
        if record.error is not None or record.outcome == "crashed":
            self._exceptions.child((method, str(status))).inc()

    def _child(self, key: tuple[str, str | None, int]) -> Child:
        method, route, code = key
        status = str(code)
        labels = (method, route or UNMATCHED, status)
        duration = self._duration.child(labels)
        self._children[key] = child = (
            duration._upper_bounds,
            duration._buckets,
            duration._sum,
            self._total.child((method, status))._value,
            self._bytes.child(labels)._value,
        )
        return child
