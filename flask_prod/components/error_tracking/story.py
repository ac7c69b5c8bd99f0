"""What a request was about, in Sentry's words, and what of it must not be told."""

from __future__ import annotations

import hashlib
import re
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from flask_prod.core.record import RequestRecord
from flask_prod.core.redaction import redact_query, secrets_read, secrets_sent, shown_path

from .notes import notes_of, notes_taken

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIEnvironment

_LEFT_OUT = frozenset({"Cookie", "X-Forwarded-For", "X-Real-Ip", "Forwarded"})
_TRACE_ID = re.compile(r"[0-9a-f]{32}")


def transaction_name(record: RequestRecord) -> str:
    """Return the name under which Sentry groups the request: its route, never its path."""
    return record.route or "unmatched"


def trace_of(record: RequestRecord) -> str:
    """Return the id of the trace that the request belongs to, by which its reports are found from its trace.

    It is the tracing room's, else the one that the caller's Sentry goes by, else the request's own id.
    """
    if record.trace_id:
        return record.trace_id
    caller = str(record.environ.get("HTTP_SENTRY_TRACE", "")).strip()[:32]
    if _TRACE_ID.fullmatch(caller):
        return caller
    plain = record.request_id.replace("-", "").lower()
    return plain if _TRACE_ID.fullmatch(plain) else hashlib.sha256(record.request_id.encode()).hexdigest()[:32]


def describe(record: RequestRecord, span_id: str = "") -> dict[str, Any]:
    """Return the parts of an event that come from the request, or from the job that runs in its name."""
    trace_id = trace_of(record)
    described: dict[str, Any] = {
        "tags": {"request_id": record.request_id, "trace_id": trace_id},
        "contexts": {"trace": {"trace_id": trace_id, "span_id": span_id or record.span_id or trace_id[:16]}},
        "extra": dict(record.extra or ()),
    }
    if record.method != "JOB":
        described.update(_request(record))
    elif record.extra and "job" in record.extra:
        described["transaction"] = str(record.extra["job"])
    if record.status or record.outcome == "crashed":
        described["tags"].update(status=str(record.status), outcome=record.outcome)
    if record.user_id is not None:
        described["user"] = {"id": record.user_id}
    notes = notes_taken(record)
    if notes is not None:
        if notes.user:
            described["user"] = {**notes.user, **described.get("user", {})}
        described["tags"].update(notes.tags)
        described["contexts"].update(notes.contexts)
        described["extra"].update(notes.extra)
        described["breadcrumbs"] = {"values": list(notes.crumbs)}
    return described


def secrets_of_request(record: RequestRecord) -> set[str]:
    """Return what the request sent that is secret, whether or not Flask still has it."""
    notes = notes_taken(record)
    return secrets_sent(record.environ) | (notes.secrets if notes is not None else set())


def keep_secrets(record: RequestRecord) -> None:
    """Note what in path and body of a failed request is secret, while Flask still has them."""
    notes_of(record).secrets.update(secrets_read(record.environ.get("werkzeug.request")))


def _request(record: RequestRecord) -> dict[str, Any]:
    path = quote(shown_path(record.path, record.route).encode("latin-1", "replace"), safe="/<:>")
    return {
        "transaction": transaction_name(record),
        "transaction_info": {"source": "route"},
        "request": {
            "method": record.method,
            "url": f"{record.scheme}://{record.host}{path}",
            "query_string": redact_query(record.environ.get("QUERY_STRING", "")),
            "headers": dict(_headers(record.environ)),
        },
    }


def _headers(environ: WSGIEnvironment) -> list[tuple[str, str]]:
    named = ((key[5:].replace("_", "-").title(), value) for key, value in environ.items() if key[:5] == "HTTP_")
    return [(name, str(value)) for name, value in named if name not in _LEFT_OUT]
