"""Spans that are open: a request's, a job's, and those below them; imported for the first sampled request."""

from __future__ import annotations

import time
from collections.abc import Mapping
from types import TracebackType
from typing import Any

from opentelemetry import context as contexts
from opentelemetry import trace
from opentelemetry.trace import Span, SpanKind, StatusCode

from flask_prod.core.ports import SpanPort
from flask_prod.core.record import RequestRecord
from flask_prod.core.redaction import shown_path

from .clean import Cleaner, attribute, error_type, plain
from .context import Parent
from .engine import STATE_KEY
from .sdk import KINDS, Running, restore

_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "CONNECT", "TRACE", "QUERY"})


class OpenSpan:
    """A span that is current from its making to its end."""

    def __init__(self, running: Running, span: Span, record: RequestRecord) -> None:
        self._running = running
        self._record = record
        self._cleaner = running.sender.cleaner
        self.span = span
        self._before = contexts.get_current()
        self.context = trace.set_span_in_context(span, self._before)

    def enter(self) -> None:
        """Make it the current span, for the application's own spans too."""
        contexts.attach(self.context)

    def below(self, name: str, kind: str, attributes: Mapping[str, Any] | None) -> Below:
        """Return a child that is not open yet."""
        return Below(self, name, KINDS[kind], attributes)

    def start_below(self, below: Below) -> OpenSpan:
        """Open a child of what is current in this trace; a thread with a context of its own has the first span."""
        context = contexts.get_current()
        if trace.get_current_span(context).get_span_context().trace_id != self.span.get_span_context().trace_id:
            context = self.context
        span = self._running.child(below.name, below.kind, below.attributes, context)
        opened = OpenSpan(self._running, span, self._record)
        opened.enter()
        return opened

    def current_id(self) -> str:
        """Return the id of the innermost span of this trace that is open here."""
        own = self.span.get_span_context()
        current = trace.get_current_span().get_span_context()
        return f"{current.span_id if current.trace_id == own.trace_id else own.span_id:016x}"

    def set(self, name: str, value: str | int | float | bool) -> None:
        """Set an attribute; `error.type` says that the work failed."""
        self.span.set_attribute(name, value)
        if name == "error.type":
            self.span.set_status(StatusCode.ERROR)

    def fail(self, error: BaseException) -> None:
        """Say that the work failed."""
        self.set("error.type", error_type(error))
        self.span.add_event("exception", self._cleaner.exception(error, self._record))

    def end(self) -> None:
        """End it, and make current what was before."""
        self.span.end()
        restore(self.span, self._before)

    def end_request(self, record: RequestRecord) -> None:
        """End a request's span with what its record says: the same duration as in metrics and access line."""
        span = self.span
        method = record.method if record.method in _METHODS else "_OTHER"
        name = "HTTP" if method == "_OTHER" else method
        span.update_name(f"{name} {record.route}" if record.route else name)
        span.set_attributes(_story(record, method, self._cleaner))
        end = self._start + int(record.duration * 1e9)
        if record.error is not None:
            span.add_event("exception", self._cleaner.exception(record.error, record), end)
        if record.status >= 500 or record.outcome == "crashed":
            self.set("error.type", error_type(record.error) if record.error is not None else str(record.status))
        span.end(end)
        restore(span, self._before)

    @property
    def _start(self) -> int:
        return int(getattr(self.span, "start_time", 0) or time.time_ns())

    def __enter__(self) -> SpanPort:
        self.enter()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None
    ) -> None:
        if error is not None and isinstance(error, Exception):
            self.fail(error)
        self.end()


class Below:
    """A child span as a block; costs its making only when the request is sampled."""

    __slots__ = ("_above", "_opened", "attributes", "kind", "name")

    def __init__(self, above: OpenSpan, name: str, kind: SpanKind, attributes: Mapping[str, Any] | None) -> None:
        self._above = above
        self.name = name
        self.kind = kind
        self.attributes = attributes

    def __enter__(self) -> SpanPort:
        self._opened = self._above.start_below(self)
        return self._opened

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, stack: TracebackType | None
    ) -> None:
        self._opened.__exit__(kind, error, stack)


def open_request(running: Running, record: RequestRecord, parent: Parent | None) -> OpenSpan:
    """Open the span of a request and make it current."""
    began = time.time_ns() - int((time.perf_counter() - record.started) * 1e9)
    opened = _open(running, record.method, SpanKind.SERVER, record, parent, began)
    opened.enter()
    return opened


def open_work(running: Running, record: RequestRecord, parent: Parent | None, name: str) -> OpenSpan:
    """Open the span of a job; it becomes current when its block is entered."""
    return _open(running, name, SpanKind.CONSUMER, record, parent, None)


def _open(
    running: Running, name: str, kind: SpanKind, record: RequestRecord, parent: Parent | None, start: int | None
) -> OpenSpan:
    ids = (record.trace_id, record.span_id)
    span = running.open(name, kind, ids, parent, record.environ.get(STATE_KEY, ""), start)
    return OpenSpan(running, span, record)


def _story(record: RequestRecord, method: str, cleaner: Cleaner) -> dict[str, Any]:
    """Return what OpenTelemetry's conventions say of an HTTP request, without query and headers."""
    path = shown_path(record.path, record.route).encode("latin-1", "replace").decode("utf-8", "replace")
    told: dict[str, Any] = {
        "http.request.method": method,
        "url.scheme": record.scheme,
        "url.path": cleaner.text(path),
        "http.response.status_code": record.status,
        "http.response.body.size": record.bytes_sent,
        "server.address": _host(record.host),
        "client.address": record.client,
        "request_id": record.request_id,
    }
    if method == "_OTHER":
        told["http.request.method_original"] = cleaner.text(record.method, (), 40)
    if record.route is not None:
        told["http.route"] = record.route
    if record.user_id is not None:
        told["user.id"] = attribute("user.id", record.user_id)
    if record.outcome != "ok":
        told["flask_prod.outcome"] = record.outcome
    return told


def _host(host: str) -> str:
    name, _, port = host.rpartition(":")
    return plain(name if name and port.isdigit() else host, 261)
