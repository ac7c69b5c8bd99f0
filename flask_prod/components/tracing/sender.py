"""Between spans that have ended and the collector: a bounded queue, one thread, and no word to requests.

In place of the SDK's BatchSpanProcessor, which waits up to 30 s at the end of a process, counts nothing, logs a
line per failed batch, and starts its thread again in every forked child.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING

from opentelemetry import context as contexts
from opentelemetry.context import _SUPPRESS_INSTRUMENTATION_KEY
from opentelemetry.sdk.trace import Event, ReadableSpan, SpanProcessor
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult
from opentelemetry.trace import Status

from flask_prod.core.component import Event as KitEvent
from flask_prod.core.record import current_record

from .clean import Cleaner

if TYPE_CHECKING:
    from flask_prod.core.ports import CounterPort, GaugePort

OWN_SCOPE = "flask_prod"

_MOST_SPANS = 1000
_MOST_BYTES = 5 * 1024**2
_BATCH = 100
"""Spans of one message: encoding them holds the interpreter for some milliseconds, which requests may wait for."""

_PAUSE = 1000
"""Milliseconds between messages where spans come slowly; the library has 5,000, and outages were seen late."""

_SPAN_SIZE = 2000
"""Bytes of a span without the texts in its attributes, as tracemalloc shows them."""

_FAREWELL = 1.0
"""Seconds that the end of a process waits for spans to leave. Error reports may take two: both together must end
within the three that the kit promises."""

_SILENCE = 60.0
"""At most one line about an outage, and one about its end, per so many seconds."""

_NOISY = (
    "opentelemetry.exporter.otlp.proto.http.trace_exporter",
    "opentelemetry.exporter.otlp.proto.grpc.exporter",
    "opentelemetry.exporter.otlp.common.http",
)


class Sender(SpanProcessor):
    """Takes ended spans and sends them by the library's exporter; what does not fit or arrive is counted."""

    def __init__(
        self, cleaner: Cleaner, counted: CounterPort, gauge: GaugePort, emit: Callable[[KitEvent], None]
    ) -> None:
        self.cleaner = cleaner
        self._counted = counted
        self._gauge = gauge
        self._emit = emit
        self._lock = threading.Lock()
        self._wake = threading.Event()
        self._pause = _chosen("OTEL_BSP_SCHEDULE_DELAY", _PAUSE, 60_000) / 1000
        self._batch = _chosen("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", _BATCH, _MOST_SPANS)
        self._waiting: deque[tuple[ReadableSpan, int]] = deque()
        self._size = 0
        self._sending = 0
        self._closing = False
        self._failing_since: float | None = None
        self._told_at = -_SILENCE
        self._told = False
        self.cause = ""

    def begin(self, exporter: SpanExporter) -> None:
        """Start the thread."""
        self._exporter = exporter
        self._gauge.set(0.0, "tracing")
        self._hush = _Hush()
        self._thread = threading.Thread(target=self._run, name="flask-prod-spans", daemon=True)
        self._thread.start()

    @property
    def failing(self) -> bool:
        """True while the collector does not take spans."""
        return self._failing_since is not None

    def on_end(self, span: ReadableSpan) -> None:
        """Queue a span, or count it as dropped; called by the thread that ends it."""
        if span.instrumentation_scope is None or span.instrumentation_scope.name != OWN_SCOPE:
            span = self._clean(span)
        size = _SPAN_SIZE + sum(len(value) for value in (span.attributes or {}).values() if isinstance(value, str))
        with self._lock:
            many = len(self._waiting) + self._sending
            fits = not self._closing and many < _MOST_SPANS and self._size + size <= _MOST_BYTES
            if fits:
                self._waiting.append((span, size))
                self._size += size
        if not fits:
            self._counted.inc("dropped")
        elif len(self._waiting) >= self._batch:
            self._wake.set()

    def shutdown(self) -> None:
        """Send what waits for a second at most, then let go; the thread ends with the process."""
        with self._lock:
            self._closing = True
        self._wake.set()
        self._thread.join(_FAREWELL)
        with self._lock:
            left = len(self._waiting)
            self._waiting.clear()
        for _ in range(left):
            self._counted.inc("dropped")
        # Ends its pauses between tries; its words about that are nobody's business either.
        stopper = threading.Thread(target=self._exporter.shutdown, daemon=True)
        stopper.start()
        stopper.join(0.2)
        if not self._thread.is_alive():
            self._hush.end()

    def force_flush(self, timeout_millis: int = 30000) -> bool:
        """Wait until all that was queued has been sent, for so long at most."""
        end = time.monotonic() + timeout_millis / 1000
        self._wake.set()
        while (self._waiting or self._sending) and time.monotonic() < end:
            time.sleep(0.01)
        return not (self._waiting or self._sending)

    def _run(self) -> None:
        contexts.attach(contexts.set_value(_SUPPRESS_INSTRUMENTATION_KEY, True))
        self._hush.thread = threading.get_ident()
        while True:
            self._wake.wait(self._pause)
            self._wake.clear()
            closing = self._closing
            while batch := self._take():
                self._send(batch)
                self._sending = 0
            if closing:
                return

    def _take(self) -> list[ReadableSpan] | None:
        """Return the oldest spans, None when there are none."""
        with self._lock:
            count = self._sending = min(self._batch, len(self._waiting))
            batch = [self._waiting.popleft() for _ in range(count)]
            self._size -= sum(size for _, size in batch)
        return [span for span, _ in batch] or None

    def _send(self, spans: list[ReadableSpan]) -> None:
        self._hush.heard = ""
        try:
            sent = self._exporter.export(spans) is SpanExportResult.SUCCESS
            # The library says a thing once in 20 s.
            cause = self._hush.heard or self.cause or "it refused them"
        except Exception as error:
            sent, cause = False, type(error).__name__
        for _ in spans:
            self._counted.inc("exported" if sent else "failed")
        self._note(sent, cause)

    def _note(self, sent: bool, cause: str) -> None:
        """Tell of a change: at once in the gauge, at most once a minute in the log."""
        now = time.monotonic()
        if sent and self._failing_since is not None:
            since, self._failing_since, self.cause = self._failing_since, None, ""
            self._gauge.set(0.0, "tracing")
            if self._told:
                self._told = False
                words = f"The collector takes spans again after {now - since:.1f} s."
                self._emit(KitEvent("prod.tracing.recovered", words, "info", {"seconds": round(now - since, 1)}))
        elif not sent:
            self.cause = self.cleaner.text(cause, self.cleaner.forms(None), 200)
            if self._failing_since is None:
                self._failing_since = now
                self._gauge.set(1.0, "tracing")
            if not self._told and now - self._told_at >= _SILENCE:
                self._told, self._told_at = True, now
                words = (
                    f"The collector does not take spans: {self.cause}. They are dropped and counted until it does."
                )
                self._emit(KitEvent("prod.tracing.degraded", words, "warning", {"cause": self.cause}))

    def _clean(self, span: ReadableSpan) -> ReadableSpan:
        """Return a span of somebody else's code as it may be shown: the SDK writes down messages and stacks."""
        cleaner = self.cleaner
        forms = cleaner.forms(current_record())
        description = span.status.description
        return ReadableSpan(
            name=cleaner.text(span.name, forms, 200),
            context=span.get_span_context(),
            parent=span.parent,
            resource=span.resource,
            attributes=cleaner.attributes(span.attributes, forms),
            events=tuple(
                Event(event.name, cleaner.attributes(event.attributes, forms), event.timestamp)
                for event in span.events
            ),
            links=span.links,
            kind=span.kind,
            status=Status(span.status.status_code, cleaner.text(description, forms) if description else None),
            start_time=span.start_time,
            end_time=span.end_time,
            instrumentation_scope=span.instrumentation_scope,
        )


def _chosen(name: str, default: int, most: int) -> int:
    """Return what one of the library's variables says, within reason."""
    given = os.environ.get(name, "")
    return min(max(int(given), 1), most) if given.isascii() and given.isdigit() else default


class _Hush(logging.Filter):
    """Keeps what the exporter logs in our thread out of the log, and remembers it: the cause stands only there."""

    def __init__(self) -> None:
        super().__init__()
        self.thread = 0
        self.heard = ""
        for name in _NOISY:
            logging.getLogger(name).addFilter(self)

    def end(self) -> None:
        """Let the loggers go."""
        for name in _NOISY:
            logging.getLogger(name).removeFilter(self)

    def filter(self, record: logging.LogRecord) -> bool:
        """Drop the record if it is about our batches."""
        if record.thread != self.thread:
            return True
        self.heard = self.heard or record.getMessage()
        return False
