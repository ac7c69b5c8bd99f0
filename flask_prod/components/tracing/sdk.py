"""OpenTelemetry's SDK for one application in one process; importing this imports the SDK.

Built by `start`, after the fork: its thread and its connections belong to the process that uses them.
"""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Mapping, Sequence
from typing import Any

from opentelemetry import context as contexts
from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.sdk.environment_variables import OTEL_EXPORTER_OTLP_TIMEOUT, OTEL_EXPORTER_OTLP_TRACES_TIMEOUT
from opentelemetry.sdk.resources import OTELResourceDetector, Resource
from opentelemetry.sdk.trace import SpanLimits, TracerProvider
from opentelemetry.sdk.trace.export import ConsoleSpanExporter, SpanExporter
from opentelemetry.sdk.trace.id_generator import RandomIdGenerator
from opentelemetry.sdk.trace.sampling import Decision, Sampler, SamplingResult, TraceIdRatioBased
from opentelemetry.trace import Link, NonRecordingSpan, Span, SpanContext, SpanKind, TraceFlags, TraceState

from flask_prod.core.errors import MissingExtra
from flask_prod.core.settings import ServiceSettings

from .context import Parent
from .sender import Sender
from .settings import GRPC, TracingSettings, destination, parse_headers

SCOPE = "flask_prod"
"""The instrumentation scope of the kit's own spans."""

KINDS: Mapping[str, SpanKind] = {kind.name.lower(): kind for kind in SpanKind}

_TIMEOUT = 3.0
"""Seconds that sending a batch may take, tries included, where OTEL_EXPORTER_OTLP_TIMEOUT says nothing else.

The library's ten would leave an outage unseen for as long, and the queue full."""

_SAMPLED = TraceFlags(TraceFlags.SAMPLED)
_NOTHING = Context()


class Running:
    """A provider, what sends its spans, and the tracer of the kit's own."""

    def __init__(self, provider: TracerProvider, sender: Sender, given: _GivenIds) -> None:
        self.provider = provider
        self.sender = sender
        self._given = given
        self._tracer = provider.get_tracer(SCOPE)

    def open(
        self, name: str, kind: SpanKind, ids: tuple[str, str], parent: Parent | None, state: str, start: int | None
    ) -> Span:
        """Start the first span of this process in a trace, under ids that were chosen before."""
        context = _NOTHING
        if parent is not None:
            above = SpanContext(
                int(parent.trace_id, 16), int(parent.span_id, 16), True, _SAMPLED,
                TraceState.from_header([state]) if state else None,
            )  # fmt: skip
            context = trace.set_span_in_context(NonRecordingSpan(above), _NOTHING)
        with self._given.using(int(ids[0], 16), int(ids[1], 16)):
            return self._tracer.start_span(name, context, kind, start_time=start)

    def child(self, name: str, kind: SpanKind, attributes: Mapping[str, Any] | None, context: Context) -> Span:
        """Start a span below the one of *context*."""
        return self._tracer.start_span(name, context, kind, attributes)


class _GivenIds(RandomIdGenerator):
    """Random ids, except for the span that is being opened: its trace id stands in the request's log lines."""

    def __init__(self) -> None:
        self._local = threading.local()

    def using(self, trace_id: int, span_id: int) -> _GivenIds:
        self._local.ids = (trace_id, span_id)
        return self

    def __enter__(self) -> None:
        return

    def __exit__(self, *_: object) -> None:
        self._local.ids = None

    @property
    def given(self) -> tuple[int, int] | None:
        ids: tuple[int, int] | None = getattr(self._local, "ids", None)
        return ids

    def generate_trace_id(self) -> int:
        given = self.given
        return given[0] if given is not None else super().generate_trace_id()

    def generate_span_id(self) -> int:
        given = self.given
        return given[1] if given is not None else super().generate_span_id()


class _Decided(Sampler):
    """Follows the request's decision, which fell before anything of this was touched.

    Beside requests, a trace that somebody begins is kept by the same ratio.
    """

    def __init__(self, given: _GivenIds, rate: float) -> None:
        self._given = given
        self._ratio = TraceIdRatioBased(rate)

    def should_sample(  # noqa: PLR0913  # the library's own signature
        self,
        parent_context: Context | None,
        trace_id: int,
        name: str,
        kind: SpanKind | None = None,
        attributes: Any = None,
        links: Sequence[Link] | None = None,
        trace_state: TraceState | None = None,
    ) -> SamplingResult:
        parent = trace.get_current_span(parent_context).get_span_context()
        if self._given.given is not None:
            keep = True
        elif parent.is_valid:
            keep = parent.trace_flags.sampled
        else:
            return self._ratio.should_sample(parent_context, trace_id, name, kind, attributes, links)
        decision = Decision.RECORD_AND_SAMPLE if keep else Decision.DROP
        return SamplingResult(decision, attributes if keep else None, parent.trace_state)

    def get_description(self) -> str:
        return "as flask-prod decided for the request"


def build(settings: TracingSettings, service: ServiceSettings, sender: Sender) -> Running:
    """Build provider and exporter, and let *sender* begin; MissingExtra without the exporter's package."""
    given = _GivenIds()
    sender.begin(build_exporter(settings))
    provider = TracerProvider(
        sampler=_Decided(given, settings.sampling_rate),
        resource=resource_of(service),
        shutdown_on_exit=False,  # the kit's life cycle does, with a time limit
        id_generator=given,
        span_limits=SpanLimits(),
    )
    provider.add_span_processor(sender)
    return Running(provider, sender, given)


def resource_of(service: ServiceSettings) -> Resource:
    """Return who this service is; OTEL_SERVICE_NAME and OTEL_RESOURCE_ATTRIBUTES win."""
    ours = {
        "service.name": service.service_name,
        "service.version": service.service_version,
        "deployment.environment.name": service.environment,
    }
    return Resource.create(ours).merge(OTELResourceDetector().detect())


def build_exporter(settings: TracingSettings) -> SpanExporter:
    """Return the library's exporter; it reads OTEL_EXPORTER_OTLP_* for what our settings leave open."""
    if settings.exporter == "console":
        return ConsoleSpanExporter(out=sys.stderr, formatter=lambda span: span.to_json(indent=None) + os.linesep)
    place = destination(settings)
    headers = parse_headers(settings.otlp_headers.reveal()) or None
    theirs = OTEL_EXPORTER_OTLP_TRACES_TIMEOUT in os.environ or OTEL_EXPORTER_OTLP_TIMEOUT in os.environ
    options: dict[str, Any] = {"endpoint": place.address or None, "timeout": None if theirs else _TIMEOUT}
    if place.protocol == GRPC:
        return _grpc(options, headers)
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    except ImportError as error:
        raise MissingExtra("tracing", "opentelemetry-exporter-otlp-proto-http", "tracing") from error
    return OTLPSpanExporter(headers=headers, **options)


def _grpc(options: dict[str, Any], headers: dict[str, str] | None) -> SpanExporter:
    try:
        from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
    except ImportError as error:
        raise MissingExtra("tracing", "opentelemetry-exporter-otlp-proto-grpc", "tracing-grpc") from error
    return OTLPSpanExporter(headers=headers, **options)


def restore(own: Span, before: Context) -> None:
    """Leave the context of *own* and of all below it; one that is not current is left alone."""
    current = trace.get_current_span().get_span_context()
    if current.trace_id == own.get_span_context().trace_id:
        contexts.attach(before)
