"""The application's own spans, by `opentelemetry.trace`: they join the request that is being served.

OpenTelemetry has one provider per process, set once and for all. Applications come and go, and a forked child has
a provider of its own; so what is set is one that asks at each span whose request this is.
"""

from __future__ import annotations

import weakref
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from opentelemetry import trace
from opentelemetry.trace import NonRecordingSpan, NoOpTracer, Span, SpanContext, Tracer, TracerProvider
from opentelemetry.util._decorator import _agnosticcontextmanager

from flask_prod.core.record import current_record

from .engine import Trace

if TYPE_CHECKING:
    from .sdk import Running


class SharedProvider(TracerProvider):
    """Gives tracers that work for whichever application serves."""

    def __init__(self) -> None:
        self._running: list[weakref.ref[Running]] = []

    def join(self, running: Running) -> None:
        """Take an application's traces in."""
        self._running = [*self._running, weakref.ref(running)]

    def leave(self, running: Running) -> None:
        """Let them go."""
        self._running = [ref for ref in self._running if ref() not in (None, running)]

    @property
    def latest(self) -> Running | None:
        """The application that was started last: whose spans are those outside of any request."""
        return next((one for ref in reversed(self._running) if (one := ref()) is not None), None)

    def get_tracer(self, *args: Any, **kwargs: Any) -> Tracer:
        """Return a tracer under this name."""
        return _SharedTracer(self, args, kwargs)


class _SharedTracer(Tracer):
    def __init__(self, provider: SharedProvider, args: Any, kwargs: Any) -> None:
        self._provider = provider
        self._named = (args, kwargs)

    def start_span(self, *args: Any, **kwargs: Any) -> Span:
        record = current_record()
        owner = record.span if record is not None else None
        if record is None or owner.__class__ is not Trace:
            running = self._provider.latest
        elif owner.open is not None:
            running = owner.tracing.running
        else:
            # With the request's ids, so that what the application passes on names the same trace.
            return NonRecordingSpan(
                SpanContext(int(record.trace_id, 16), int(record.span_id, 16), is_remote=False)
            )
        return self._tracer_of(running).start_span(*args, **kwargs)

    @_agnosticcontextmanager
    def start_as_current_span(self, *args: Any, **kwargs: Any) -> Iterator[Span]:
        ends = kwargs.pop("end_on_exit", True)
        options = {key: kwargs.get(key, True) for key in ("record_exception", "set_status_on_exception")}
        span = self.start_span(*args, **kwargs)
        with trace.use_span(span, end_on_exit=ends, **options) as current:
            yield current

    def _tracer_of(self, running: Running | None) -> Tracer:
        if running is None:
            return NoOpTracer()
        args, kwargs = self._named
        return running.provider.get_tracer(*args, **kwargs)


def share(running: Running) -> None:
    """Let the application's own spans join, unless it has set a provider of its own."""
    provider = trace.get_tracer_provider()
    if isinstance(provider, trace.ProxyTracerProvider):
        provider = SharedProvider()
        trace.set_tracer_provider(provider)
    if isinstance(provider, SharedProvider):
        provider.join(running)


def forget(running: Running) -> None:
    """Let them go again."""
    provider = trace.get_tracer_provider()
    if isinstance(provider, SharedProvider):
        provider.leave(running)
