"""What a request was about, in Sentry's words."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl, quote

from flask_prod.core.record import RequestRecord
from flask_prod.core.redaction import is_sensitive, redact_query

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIEnvironment

_LEFT_OUT = frozenset({"Cookie", "X-Forwarded-For", "X-Real-Ip", "Forwarded"})

_COOKIE = 8
"""Shorter cookie values (`theme=dark`) are words, not secrets."""


def transaction_name(record: RequestRecord) -> str:
    """Return the name under which Sentry groups the request: its route, never its path."""
    return record.route or "unmatched"


def describe(record: RequestRecord) -> dict[str, Any]:
    """Return the parts of an event that come from the request."""
    described: dict[str, Any] = {
        "transaction": transaction_name(record),
        "transaction_info": {"source": "route"},
        "request": {
            "method": record.method,
            "url": f"{record.scheme}://{record.host}{quote(record.path.encode('latin-1', 'replace'))}",
            "query_string": redact_query(record.environ.get("QUERY_STRING", "")),
            "headers": dict(_headers(record.environ)),
        },
        "tags": {"request_id": record.request_id, "status": str(record.status), "outcome": record.outcome},
    }
    if record.user_id is not None:
        described["user"] = {"id": record.user_id}
    if record.extra:
        described["extra"] = dict(record.extra)
    return described


def secrets_of(environ: WSGIEnvironment) -> set[str]:
    """Return what the request sent that is secret: credentials, cookies, sensitive query values."""
    scheme, _, credentials = environ.get("HTTP_AUTHORIZATION", "").partition(" ")
    found = {credentials.strip() or scheme}
    found.update(value for name, value in _headers(environ, everything=True) if is_sensitive(name))
    found.update(value for name, value in parse_qsl(environ.get("QUERY_STRING", "")[:8192]) if is_sensitive(name))
    cookies = (pair.partition("=")[2].strip() for pair in environ.get("HTTP_COOKIE", "").split(";"))
    found.update(value for value in cookies if len(value) >= _COOKIE)
    return found


def _headers(environ: WSGIEnvironment, everything: bool = False) -> list[tuple[str, str]]:
    named = ((key[5:].replace("_", "-").title(), value) for key, value in environ.items() if key[:5] == "HTTP_")
    return [(name, str(value)) for name, value in named if everything or name not in _LEFT_OUT]
