"""The default metrics of prometheus_flask_exporter, recorded once, when the answer's body is closed."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from time import time
from typing import TypeAlias

from prometheus_client import Counter, Gauge, Histogram
from prometheus_client.samples import Exemplar

from flask_prod.core.record import RequestRecord

from .instruments import Instruments
from .page import Numbers

METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "CONNECT"})
OTHER = "OTHER"
UNMATCHED = "unmatched"
UNTRACKED = "flask_prod.untracked"
"""Set in the WSGI environment by `do_not_track`: Flask's request is gone when the body is closed."""

Child: TypeAlias = tuple[
    Sequence[float], Sequence[tuple[Numbers, int]], Numbers, int, Numbers, int, Numbers, int, Numbers, int
]
"""The numbers behind one combination of labels: bounds and buckets, seconds, requests, bytes sent and received."""

_IN_FLIGHT = "flask_prod.in_flight"


class HttpMetrics:
    """Counts and times requests by method, route template and status.

    Numbers are added to where they lie, under one lock for all of a request: prometheus_client's own way costs
    four times as much.
    """

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
        self._sent = instruments.series(
            Counter, "flask_prod_http_response_bytes_total", "Bytes of response bodies sent", labels
        )
        self._received = instruments.series(
            Counter, "flask_prod_http_request_bytes_total", "Bytes of request bodies announced by Content-Length",
            labels,
        )  # fmt: skip
        self._in_flight = instruments.series(
            Gauge, "flask_prod_http_requests_in_flight", "HTTP requests being served", (),
            {"multiprocess_mode": "livesum"},
        ).metric._value  # fmt: skip
        self._store = instruments.store
        self._store.on_release.append(self._forget)
        self._forget()
        # There from the start: what a scanner of random paths and methods would otherwise add later.
        for method, status in (("GET", 404), (OTHER, 404), (OTHER, 405)):
            self._child((method, None, status))

    def _forget(self) -> None:
        """Look numbers up anew: they lie elsewhere after a fork."""
        self._children: dict[tuple[str, str | None, int], Child] = {}
        self._running: tuple[Numbers, int] | None = None

    def enter(self, record: RequestRecord) -> None:
        """Count a request that is about to be served; probes and scrapes never come here."""
        record.environ[_IN_FLIGHT] = True
        lock = self._store.lock
        lock.acquire()  # without `with`, which costs twice as much; here and below, on every request
        try:
            running, at = self._running or self._find_running()
            running[at] += 1.0
        finally:
            lock.release()

    def observe(self, record: RequestRecord) -> None:
        """Record a request that has ended; one that crashed on its way out counts as a 500."""
        environ = record.environ
        entered = _IN_FLIGHT in environ
        counts = not record.operational and UNTRACKED not in environ
        crashed = record.outcome == "crashed"
        alike = None if crashed else record.alike
        known = None if alike is None else alike.get("metrics")
        lock = self._store.lock
        lock.acquire()
        try:
            if entered:
                running, at = self._running or self._find_running()
                running[at] -= 1.0
            if counts:
                if known is not None and known[0] is self._children:
                    _, key, child = known
                else:
                    method = record.method if record.method in METHODS else OTHER
                    key = (method, record.route, 500 if crashed else record.status)
                    child = self._children.get(key) or self._child(key)
                    if alike is not None:
                        alike["metrics"] = (self._children, key, child)
                bounds, buckets, seconds, s, requests, r, sent, b, received, c = child
                bucket, at = buckets[bisect_left(bounds, record.duration)]
                bucket[at] += 1.0
                seconds[s] += record.duration
                requests[r] += 1.0
                sent[b] += record.bytes_sent
                if environ.get("CONTENT_LENGTH"):
                    received[c] += _length(environ["CONTENT_LENGTH"])
        finally:
            lock.release()
        if counts and (crashed or record.error is not None):
            self._exceptions.child((key[0], str(key[2]))).inc()
        if counts and record.sampled:
            self._remember(key, record)

    def _find_running(self) -> tuple[Numbers, int]:
        found: tuple[Numbers, int] = self._in_flight.place()
        self._running = found
        return found

    def _child(self, key: tuple[str, str | None, int]) -> Child:
        labels = (key[0], key[1] or UNMATCHED, str(key[2]))
        duration = self._duration.child(labels)
        self._children[key] = child = (
            duration._upper_bounds,
            [bucket.place() for bucket in duration._buckets],
            *duration._sum.place(),
            *self._total.child((labels[0], labels[2]))._value.place(),
            *self._sent.child(labels)._value.place(),
            *self._received.child(labels)._value.place(),
        )
        return child

    def _remember(self, key: tuple[str, str | None, int], record: RequestRecord) -> None:
        """Let a bucket point at the trace of the request that it counted last."""
        duration = self._duration.child((key[0], key[1] or UNMATCHED, str(key[2])))
        bucket = duration._buckets[bisect_left(duration._upper_bounds, record.duration)]
        bucket.set_exemplar(Exemplar({"trace_id": record.trace_id}, record.duration, time()))


def _length(announced: str) -> int:
    return int(announced) if announced.isascii() and announced.isdigit() and len(announced) < 16 else 0
