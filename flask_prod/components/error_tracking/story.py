"""What a request was about, in Sentry's words."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from flask_prod.core.record import RequestRecord
from flask_prod.core.redaction import redact_query

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIEnvironment

_LEFT_OUT = frozenset({"Cookie", "X-Forwarded-For", "X-Real-Ip", "Forwarded"})


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


def _headers(environ: WSGIEnvironment) -> list[tuple[str, str]]:
    named = ((key[5:].replace("_", "-").title(), value) for key, value in environ.items() if key[:5] == "HTTP_")
    return [(name, str(value)) for name, value in named if name not in _LEFT_OUT]
