"""What can be set about traces."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Annotated, ClassVar, Final, Literal
from urllib.parse import unquote, urlsplit

from msgspec import Meta

from flask_prod.core.settings import Section
from flask_prod.core.values import Secret, SecretUrl

HTTP: Final = "http/protobuf"
GRPC: Final = "grpc"

_PATH = "/v1/traces"
_SECURE = {"http": False, "https": True, "grpc": False, "grpcs": True}
_DEFAULT = "http://localhost:4318"
_OLD_JAEGER = (14268, 14250, 6831, 6832)
"""Ports of Jaeger's own protocols, which its version 2 no longer speaks."""


class TracingSettings(Section, frozen=True, kw_only=True):
    """Which requests are traced, and where their spans go."""

    prefix: ClassVar[str] = "TRACING_"
    keys: ClassVar[Mapping[str, tuple[str, ...]]] = {
        "otlp_endpoint": ("OTLP_ENDPOINT",),
        "otlp_protocol": ("OTLP_PROTOCOL",),
        "otlp_headers": ("OTLP_HEADERS",),
        "jaeger_endpoint": ("JAEGER_ENDPOINT",),
    }
    library_keys: ClassVar[tuple[str, ...]] = ("OTEL_*",)
    live: ClassVar[tuple[str, ...]] = ("sampling_rate",)

    enabled: bool | None = None
    """Whether requests are traced; empty means: when OTLP_ENDPOINT or JAEGER_ENDPOINT is set."""

    exporter: Literal["otlp", "jaeger", "console"] = "otlp"
    """Where spans go: a collector, Jaeger, or the error output, a line of JSON each."""

    sampling_rate: Annotated[float, Meta(ge=0, le=1)] = 0.1
    """The share of requests whose spans are kept, from 0 to 1; those that go on with a trace follow its parent."""

    trust_parent: Literal["never", "ids", "private", "always"] = "private"
    """Whose `traceparent` counts: `ids` takes ids from anybody and no decision, `private` also the decision of
    clients on loopback and private networks, `always` that of anybody, `never` begins a trace of its own."""

    outgoing: bool = True
    """Whether requests, httpx and urllib3 send the trace's ids along, and are measured."""

    outgoing_hosts: tuple[str, ...] = ()
    """The hosts that are sent the ids, `*.example.com` for subdomains; empty sends them to every host called."""

    otlp_endpoint: SecretUrl = SecretUrl("")
    """The collector: `http://collector:4318`, or for gRPC `http://collector:4317` or `grpc://collector:4317`."""

    otlp_protocol: Literal["http/protobuf", "grpc"] | None = None
    """How the collector is spoken to; empty goes by the address: gRPC at port 4317, else HTTP."""

    otlp_headers: Secret = Secret("")
    """Headers for the collector, such as its key: `name=value,name=value`, percent-encoded where needed."""

    jaeger_endpoint: SecretUrl = SecretUrl("")
    """Jaeger's OTLP address: `http://jaeger:4318`, or `http://jaeger:4317` for gRPC."""

    @property
    def on(self) -> bool:
        """True when requests are traced; OpenTelemetry's own switch wins."""
        if os.environ.get("OTEL_SDK_DISABLED", "").strip().lower() == "true":
            return False
        return bool(self.otlp_endpoint or self.jaeger_endpoint) if self.enabled is None else self.enabled

    def problems(self) -> Iterator[str]:
        """Yield what is wrong with addresses and headers, without repeating them."""
        for key, url in (("OTLP_ENDPOINT", self.otlp_endpoint), ("JAEGER_ENDPOINT", self.jaeger_endpoint)):
            if url and _split(url.reveal()) is None:
                yield f"{key} must be an address such as http://collector:4318, or http://collector:4317 for gRPC."
        old = _split(self.jaeger_endpoint.reveal())
        if old is not None and (old.port in _OLD_JAEGER or old.path == "/api/traces"):
            yield "JAEGER_ENDPOINT is that of Jaeger's old protocol; Jaeger takes OTLP: write http://jaeger:4318."
        if parse_headers(self.otlp_headers.reveal()) is None:
            yield "OTLP_HEADERS must be name=value pairs, separated by commas."


@dataclass(frozen=True, slots=True)
class Destination:
    """Where spans are sent; an empty address is for the library's own variables to fill."""

    protocol: str
    address: str


def destination(settings: TracingSettings) -> Destination:
    """Return protocol and address of the collector, from our settings or else the library's variables."""
    theirs = os.environ.get("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT") or os.environ.get("OTEL_EXPORTER_OTLP_ENDPOINT")
    jaeger = settings.jaeger_endpoint.reveal() if settings.exporter == "jaeger" else ""
    ours = jaeger or settings.otlp_endpoint.reveal() or settings.jaeger_endpoint.reveal()
    parts = _split(ours or theirs or _DEFAULT)
    protocol = settings.otlp_protocol or _protocol(parts)
    if not ours or parts is None:
        return Destination(protocol, "" if theirs else _DEFAULT + _PATH)
    scheme = "https" if _SECURE[parts.scheme] else "http"
    if protocol == GRPC:
        return Destination(GRPC, f"{scheme}://{parts.host}:{parts.port or 4317}")
    path = parts.path if parts.path.endswith(_PATH) else parts.path + _PATH
    return Destination(HTTP, f"{scheme}://{parts.netloc}{path}")


def parse_headers(text: str) -> dict[str, str] | None:
    """Return headers by name, None when *text* is no list of them."""
    headers = {}
    for pair in filter(None, (part.strip() for part in text.split(","))):
        name, equals, value = pair.partition("=")
        if not equals or not name.strip() or not name.isascii():
            return None
        headers[name.strip().lower()] = unquote(value.strip())
    return headers


@dataclass(frozen=True, slots=True)
class _Parts:
    scheme: str
    netloc: str
    host: str
    port: int | None
    path: str


def _split(text: str) -> _Parts | None:
    """Take an address apart; one without a scheme, as gRPC's are written, is not encrypted."""
    try:
        url = urlsplit(text if "://" in text else f"http://{text}")
        port = url.port
    except ValueError:
        return None
    if url.scheme not in _SECURE or not url.hostname:
        return None
    host = f"[{url.hostname}]" if ":" in url.hostname else url.hostname
    return _Parts(url.scheme, url.netloc, host, port, url.path.rstrip("/"))


def _protocol(parts: _Parts | None) -> str:
    given = os.environ.get("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL") or os.environ.get("OTEL_EXPORTER_OTLP_PROTOCOL")
    if parts is not None and (parts.scheme.startswith("grpc") or parts.port == 4317):
        return GRPC
    return GRPC if given == GRPC and (parts is None or parts.port != 4318) else HTTP
