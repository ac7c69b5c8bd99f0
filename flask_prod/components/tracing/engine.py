"""The traces of one application: the decision per request, its span, and the spans below it.

Nothing here imports OpenTelemetry before `start`, and nothing of it is touched for a request that is not sampled.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from flask_prod.core.component import Finding, Installed
from flask_prod.core.kit import state_of
from flask_prod.core.peers import is_near
from flask_prod.core.ports import NO_SPAN, SpanPort
from flask_prod.core.record import RequestRecord, current_record
from flask_prod.core.secrets import secrets_of

from .clean import Cleaner
from .context import (
    TRACEPARENT,
    TRACESTATE,
    Ids,
    Parent,
    bound_of,
    parse,
    trace_id_of,
    tracestate_of,
    write,
)
from .settings import TracingSettings

if TYPE_CHECKING:
    from .sdk import Running
    from .spans import OpenSpan

logger = logging.getLogger(__name__)

_SPANS = "Spans by what became of them: exported, failed (the collector did not take them) or dropped (no room)."
_DEGRADED = "1 while a room goes on without what it depends on."

STATE_KEY = "flask_prod.tracestate"
"""Where the `tracestate` of a request that goes on with a trace lies in the WSGI environment."""


class Trace:
    """What `record.span` is: the way from a request to its application's traces, and to its span if it has one."""

    __slots__ = ("open", "tracing")

    def __init__(self, tracing: AppTracing, opened: OpenSpan | None = None) -> None:
        self.tracing = tracing
        self.open = opened


def is_open(record: RequestRecord | None) -> bool:
    """Tell whether the spans of *record* are kept."""
    return record is not None and record.span.__class__ is Trace and record.span.open is not None


class AppTracing:
    """Traces of one application; fulfils `core.ports.Tracer`."""

    def __init__(self, settings: TracingSettings, kit: Installed) -> None:
        self.settings = settings
        self._service = kit.service
        self._app = kit.app
        self._emit = kit.emit
        self._counted = kit.meter.counter("flask_prod_spans_total", _SPANS, ("result",))
        self._gauge = kit.meter.gauge("flask_prod_degraded", _DEGRADED, ("component",))
        self.cleaner = Cleaner(lru_cache(maxsize=1)(lambda: frozenset(secrets_of(kit.app))))
        self._bound = bound_of(settings.sampling_rate)
        self._adopts = kit.service.trusted_proxies > 0
        self._unsampled = Trace(self)
        self._is_operational: Callable[[str], bool] | None = None
        self._inherited: list[object] = []
        self.running: Running | None = None
        self.after_fork()

    def adopt(self, settings: TracingSettings) -> None:
        """Keep another share of the requests from now on."""
        self.settings = settings
        self._bound = bound_of(settings.sampling_rate)

    def after_fork(self) -> None:
        """Begin anew: what a parent runs is the parent's, and is kept, since its end would close connections."""
        if self.running is not None:
            from .users import forget

            forget(self.running)
            self._inherited.append(self.running)
        self.running = None
        self._ids = Ids()
        self._lock = threading.Lock()

    # The life of a process

    def load(self) -> None:
        """Import the SDK now: what a parent has imported its children share."""
        from . import sdk, spans  # noqa: F401

    def start(self) -> None:
        """Build provider, thread and exporter, once per process; a failure is logged and leaves traces off."""
        with self._lock:
            if self.running is not None or not self.settings.on:
                return
            try:
                self.running = self._build()
            except Exception:
                logger.exception("Traces could not be started; requests are served without")

    def close(self) -> None:
        """Send what waits, for a second at most."""
        running, self.running = self.running, None
        if running is not None:
            from .users import forget

            forget(running)
            running.sender.shutdown()

    def _build(self) -> Running:
        from .outgoing import watch
        from .sdk import build
        from .sender import Sender
        from .users import share

        self._is_operational = state_of(self._app).pipeline.is_operational
        running = build(self.settings, self._service, Sender(self.cleaner, self._counted, self._gauge, self._emit))
        share(running)
        if self.settings.outgoing:
            watch()
        return running

    def look(self) -> Finding:
        """Say whether the collector takes spans; requests go on without."""
        running = self.running
        if running is not None and running.sender.failing:
            return Finding("warn", f"Spans are dropped, the collector does not take them: {running.sender.cause}.")
        return Finding()

    # A request

    def begin(self, record: RequestRecord) -> None:
        """Give the request its place in a trace, and decide whether its spans are kept."""
        environ = record.environ
        parent = None
        if "HTTP_TRACEPARENT" in environ:
            parent = self._parent_of(record)
        if parent is not None:
            record.trace_id = parent.trace_id
            record.span_id = self._ids.span_id()
            sampled = parent.sampled
        else:
            record.trace_id = trace_id = record.request_id
            if self._adopts and "HTTP_X_REQUEST_ID" in environ:
                record.trace_id = trace_id = trace_id_of(trace_id) or self._ids.trace_id()
                record.span_id = self._ids.span_id()
            else:
                # The first half of a random id is as good as another, and costs nothing.
                record.span_id = trace_id[:16]
            sampled = trace_id[16:] < self._bound
        if sampled and self.running is not None:
            self._open(record, self.running, parent)
        else:
            record.span = self._unsampled

    def observe(self, record: RequestRecord) -> None:
        """End the request's span."""
        trace: Trace | None = record.span
        if record.sampled and trace is not None and trace.open is not None:
            trace.open.end_request(record)

    def _parent_of(self, record: RequestRecord) -> Parent | None:
        """Return what a request goes on with; who is not trusted gives ids, and no decision."""
        trust = self.settings.trust_parent
        parent = None if trust == "never" else parse(record.environ["HTTP_TRACEPARENT"])
        if parent is None:
            return None
        if trust == "ids" or (trust == "private" and not is_near(record.client)):
            # By an id that nobody outside can choose: a chosen one could always be among those that are kept.
            parent.sampled = self._draws(record)
        state = tracestate_of(record.environ.get("HTTP_TRACESTATE"))
        if state:
            record.environ[STATE_KEY] = state
        return parent

    def _draws(self, record: RequestRecord) -> bool:
        own = self._ids.trace_id() if self._adopts else record.request_id
        return own[16:] < self._bound

    def _open(self, record: RequestRecord, running: Running, parent: Parent | None) -> None:
        """Open the span of a sampled request; probes, scrapes and preflights have none."""
        from .spans import open_request

        environ = record.environ
        record.span = self._unsampled
        preflight = record.method == "OPTIONS" and "HTTP_ACCESS_CONTROL_REQUEST_METHOD" in environ
        if preflight or (self._is_operational is not None and self._is_operational(record.path)):
            return
        try:
            record.span = Trace(self, open_request(running, record, parent))
            record.sampled = True
        except Exception:
            logger.exception("The span of a request could not be opened")

    # Below a request: core.ports.Tracer

    def span(
        self, name: str, kind: str = "internal", attributes: Mapping[str, Any] | None = None
    ) -> AbstractContextManager[SpanPort]:
        """Measure a block as a child of what is being measured now."""
        record = current_record()
        if record is None or not record.sampled:
            return NO_SPAN
        trace = record.span
        if trace.__class__ is not Trace or trace.open is None:
            return NO_SPAN
        below: AbstractContextManager[SpanPort] = trace.open.below(name, kind, attributes)
        return below

    def carrier(self) -> dict[str, str]:
        """Return the headers by which other services and jobs go on with this trace."""
        record = current_record()
        if record is None or not record.trace_id:
            return {}
        opened = record.span.open if record.span.__class__ is Trace else None
        span_id = record.span_id if opened is None else opened.current_id()
        headers = {TRACEPARENT: write(record.trace_id, span_id, opened is not None)}
        state = record.environ.get(STATE_KEY)
        if state:
            headers[TRACESTATE] = state
        return headers

    def continued(
        self, name: str, carrier: Mapping[str, str], attributes: Mapping[str, Any] | None = None
    ) -> AbstractContextManager[SpanPort]:
        """Measure a block that goes on with the trace of *carrier*: a job in its worker.

        Without a carrier it begins a trace, kept by the same ratio as a request's.
        """
        record = current_record()
        if record is None or record.sampled:
            return NO_SPAN
        parent = parse(str(carrier.get(TRACEPARENT, "")))
        state = tracestate_of(str(carrier.get(TRACESTATE, "")))
        if state:
            record.environ[STATE_KEY] = state
        if parent is None:
            record.trace_id = trace_id_of(record.request_id) or self._ids.trace_id()
        else:
            record.trace_id = parent.trace_id
        record.span_id = self._ids.span_id()
        record.span = self._unsampled
        if not (parent.sampled if parent is not None else record.trace_id[16:] < self._bound):
            return NO_SPAN
        self.start()
        return self._continue(name, record, parent, attributes)

    def _continue(
        self, name: str, record: RequestRecord, parent: Parent | None, attributes: Mapping[str, Any] | None
    ) -> AbstractContextManager[SpanPort]:
        if self.running is None:
            return NO_SPAN
        from .spans import open_work

        try:
            opened = open_work(self.running, record, parent, name)
        except Exception:
            logger.exception("The span of a job could not be opened")
            return NO_SPAN
        for key, value in (attributes or {}).items():
            opened.set(key, value)
        record.span = Trace(self, opened)
        record.sampled = True
        return opened
