"""The spans that the kit makes, for the table in docs/tracing.md; a test holds real traces to it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

_SERVER = ("server.address", "server.port")
_MESSAGING = (
    "messaging.system", "messaging.operation.type", "messaging.operation.name", "messaging.destination.name",
    "messaging.message.id",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class SpanRow:
    """One kind of span: how it is named, for example, and what it tells."""

    what: str
    example: str
    pattern: str
    kind: str
    attributes: tuple[str, ...]

    def matches(self, name: str, kind: str) -> bool:
        """Tell whether a span is of this kind."""
        return kind == self.kind and re.fullmatch(self.pattern, name) is not None


SPANS = (
    SpanRow(
        "A request, until its body is closed", "GET /orders/<int:id>", r"[A-Z]+( /.*)?", "server",
        (
            "http.request.method", "http.request.method_original", "http.route", "url.scheme", "url.path",
            "http.response.status_code", "http.response.body.size", "server.address", "client.address", "user.id",
            "request_id", "flask_prod.outcome", "error.type",
        ),
    ),
    SpanRow(
        "An SQL statement", "SELECT orders", r"(SELECT|INSERT|UPDATE|DELETE|SET|SHOW|CREATE)( [\w.]+)?", "client",
        (
            "db.system.name", "db.namespace", "db.operation.name", "db.collection.name", "db.query.text", *_SERVER,
            "error.type",
        ),
    ),
    SpanRow(
        "A call to Redis", "EVALSHA", r"(?!SELECT|INSERT|UPDATE|DELETE)[A-Z]+", "client",
        ("db.system.name", "db.namespace", "db.operation.name", "error.type"),
    ),
    SpanRow(
        "A look into the cache", "cache get", "cache get", "internal",
        ("cache.store", "cache.hit", "cache.tier", "cache.keys", "cache.hits"),
    ),
    SpanRow("Something put into the cache", "cache set", "cache set", "internal", ("cache.store", "cache.stored")),
    SpanRow("A job that is dispatched", "send shop.jobs.receipt", r"send \S+", "producer", _MESSAGING),
    SpanRow(
        "A job in its worker, one span per attempt", "process shop.jobs.receipt", r"process \S+", "consumer",
        (*_MESSAGING, "error.type"),
    ),
    SpanRow(
        "A call to another service", "GET api.example.com", r"[A-Z]+ [^/\s]+", "client",
        ("http.request.method", "url.scheme", *_SERVER, "http.response.status_code", "error.type"),
    ),
    SpanRow("Work of your own: `prod.span(...)`", "charge card", r".+", "internal", ("yours", "error.type")),
)  # fmt: skip


def to_markdown() -> Iterator[str]:
    """Yield the lines of the table."""
    yield "| span | for example | kind | attributes |"
    yield "|---|---|---|---|"
    for row in SPANS:
        told = ", ".join(f"`{name}`" if "." in name or "_" in name else name for name in row.attributes)
        yield f"| {row.what} | `{row.example}` | {row.kind} | {told} |"
