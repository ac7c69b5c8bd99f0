"""A collector that takes OTLP over HTTP and gRPC, keeps what it is sent, and can misbehave.

`mode` may be changed at any time: "ok", "hang" (takes the message and never answers) or a status code of HTTP, 429
and 503 among them, which gRPC's clients see as RESOURCE_EXHAUSTED and UNAVAILABLE. One that refuses is one that
was stopped: its port stays its own.
"""

from __future__ import annotations

import gzip
import threading
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self

import grpc
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue

from tests.servers import HOST, free_port, wait_for

KINDS = ("unspecified", "internal", "server", "client", "producer", "consumer")
STATUS = ("unset", "ok", "error")
SERVICE = "opentelemetry.proto.collector.trace.v1.TraceService"


@dataclass(frozen=True)
class Event:
    """Something that happened during a span: an exception."""

    name: str
    attributes: Mapping[str, Any]


@dataclass(frozen=True)
class Span:
    """A span as the collector has it; ids are lower-case hex, `parent` is empty for a trace's first."""

    name: str
    kind: str
    trace_id: str
    span_id: str
    parent: str
    attributes: Mapping[str, Any]
    events: tuple[Event, ...]
    status: str
    message: str
    state: str
    scope: str
    resource: Mapping[str, Any]
    seconds: float
    began: float


@dataclass
class Collector:
    """Listens for HTTP on `port` and, if asked to, for gRPC on `grpc_port`."""

    mode: str | int = "ok"
    with_grpc: bool = False
    spans: list[Span] = field(default_factory=list)
    bodies: list[bytes] = field(default_factory=list)
    headers: list[Mapping[str, str]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.port = free_port()
        self.grpc_port = free_port()
        self._released = threading.Event()
        self._http: ThreadingHTTPServer | None = None
        self._grpc: Any = None

    @property
    def url(self) -> str:
        """The address for OTLP_ENDPOINT, without a path."""
        return f"http://{HOST}:{self.port}"

    @property
    def grpc_url(self) -> str:
        """The same for gRPC."""
        return f"grpc://{HOST}:{self.grpc_port}"

    def start(self) -> Self:
        """Listen."""
        self._released.clear()
        collector = self

        def handler(*args: Any) -> _Handler:
            return _Handler(collector, *args)

        self._http = _Server((HOST, self.port), handler)
        self._thread = threading.Thread(target=self._http.serve_forever, args=(0.02,), name="otlp", daemon=True)
        self._thread.start()
        if self.with_grpc:
            self._start_grpc()
        return self

    def stop(self) -> None:
        """Let hanging requests go and listen no longer: connections are refused."""
        self._released.set()
        if self._http is not None:
            self._http.shutdown()
            self._thread.join(5)
            self._http.server_close()
            self._http = None
        if self._grpc is not None:
            self._grpc.stop(None).wait(5)
            self._grpc = None

    def wait_for(self, count: int, seconds: float = 10.0) -> list[Span]:
        """Return the spans once there are at least *count*."""
        wait_for(lambda: len(self.spans) >= count, seconds, f"span number {count} of {len(self.spans)}")
        return list(self.spans)

    def named(self, name: str, seconds: float = 10.0) -> Span:
        """Return the first span of this name, waiting for it."""
        found: Span = wait_for(lambda: next((s for s in self.spans if s.name == name), None), seconds, name)
        return found

    def hold(self) -> None:
        """Wait until the collector is stopped."""
        self._released.wait(60)

    def take(self, body: bytes, headers: Mapping[str, str]) -> None:
        """Keep a message."""
        self.bodies.append(body)
        self.headers.append(headers)
        self.spans += read(ExportTraceServiceRequest.FromString(body))

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()

    def _start_grpc(self) -> None:
        def export(body: bytes, context: Any) -> bytes:
            if self.mode == "hang":
                self.hold()
            if isinstance(self.mode, int) and self.mode >= 400:
                full = self.mode == 429
                context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED if full else grpc.StatusCode.UNAVAILABLE, "no")
            self.take(body, dict(context.invocation_metadata()))
            return bytes(ExportTraceServiceResponse().SerializeToString())

        self._grpc = grpc.server(ThreadPoolExecutor(4))
        methods = {"Export": grpc.unary_unary_rpc_method_handler(export)}
        self._grpc.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, methods),))
        self._grpc.add_insecure_port(f"{HOST}:{self.grpc_port}")
        self._grpc.start()


def read(message: ExportTraceServiceRequest) -> Iterable[Span]:
    """Yield the spans of a message."""
    for group in message.resource_spans:
        resource = _mapping(group.resource.attributes)
        for scoped in group.scope_spans:
            for span in scoped.spans:
                yield Span(
                    name=span.name,
                    kind=KINDS[span.kind],
                    trace_id=span.trace_id.hex(),
                    span_id=span.span_id.hex(),
                    parent=span.parent_span_id.hex(),
                    attributes=_mapping(span.attributes),
                    events=tuple(Event(event.name, _mapping(event.attributes)) for event in span.events),
                    status=STATUS[span.status.code],
                    message=span.status.message,
                    state=span.trace_state,
                    scope=scoped.scope.name,
                    resource=resource,
                    seconds=(span.end_time_unix_nano - span.start_time_unix_nano) / 1e9,
                    began=span.start_time_unix_nano / 1e9,
                )


def _mapping(pairs: Iterable[KeyValue]) -> dict[str, Any]:
    return {pair.key: _value(pair.value) for pair in pairs}


def _value(value: AnyValue) -> Any:
    kind = value.WhichOneof("value")
    if kind is None:
        return None
    if kind == "array_value":
        return [_value(item) for item in value.array_value.values]
    if kind == "kvlist_value":
        return _mapping(value.kvlist_value.values)
    return getattr(value, kind)


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    allow_reuse_address = True

    def handle_error(self, *_: object) -> None:
        """Say nothing of a client that left in the middle."""


class _Handler(BaseHTTPRequestHandler):
    timeout = 10

    def __init__(self, owner: Collector, *args: Any) -> None:
        self.owner = owner
        super().__init__(*args)

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if self.headers.get("Content-Encoding") == "gzip":
            body = gzip.decompress(body)
        mode = self.owner.mode
        if mode == "hang":
            self.owner.hold()
            return
        status = mode if isinstance(mode, int) else 200
        if status == 200 and self.path == "/v1/traces":
            self.owner.take(body, {name.lower(): value for name, value in self.headers.items()})
        with suppress(OSError):
            self.send_response(status if self.path == "/v1/traces" else 404)
            self.send_header("Content-Length", "0")
            self.end_headers()

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing."""
