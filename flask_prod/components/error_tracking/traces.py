"""Requests as Sentry transactions; which ones is decided before anything of this is built.

Most requests leave nothing in their transaction but their name, times and status: such a one is written as the
few words it is. One with spans, tags or a profile goes through the library and the scrubber.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from flask_prod.core.record import RequestRecord

from .notes import notes_taken
from .scopes import Scopes
from .story import trace_of, transaction_name

if TYPE_CHECKING:
    from sentry_sdk import Client
    from sentry_sdk.envelope import Envelope

TRANSACTION = "flask_prod.sentry_transaction"
"""Where the WSGI environment of a sampled request has its transaction."""

_MOST_SPANS = 1000
_SDK = {"name": "sentry.python", "packages": [{"name": "pypi:sentry-sdk"}]}


def begin_transaction(record: RequestRecord, client: Client, scopes: Scopes, rate: float) -> None:
    """Start a transaction in scopes of its own; spans and profile of the library's own join it."""
    from sentry_sdk.tracing import Transaction

    scope = scopes.begin(client)
    named: Any = {
        "op": "http.server", "name": "unmatched", "source": "route", "sampled": True,
        "origin": "auto.http.flask_prod", "scope": scope,
    }  # fmt: skip
    if "HTTP_SENTRY_TRACE" in record.environ and not record.trace_id:
        named.update(_continued(record))
    transaction = Transaction(trace_id=trace_of(record), **named)
    transaction.sample_rate = rate
    record.environ[TRANSACTION] = transaction
    if client.options["profiles_sample_rate"]:
        scope.start_transaction(transaction)
    else:
        transaction.init_span_recorder(_MOST_SPANS)
    transaction.__enter__()


def end_transaction(record: RequestRecord, client: Client, scopes: Scopes) -> None:
    """Send the transaction that `begin_transaction` started."""
    transaction: Any = record.environ.pop(TRANSACTION)
    transaction.name = transaction_name(record)
    if _is_plain(record, transaction) and scopes.are_plain():
        if client.transport is not None:
            client.transport.capture_envelope(_plain_envelope(record, transaction, client))
    else:
        _tell(record, transaction)
        transaction.__exit__(None, None, None)


def _is_plain(record: RequestRecord, transaction: Any) -> bool:
    """Tell whether *transaction* holds nothing but what the record knows; none of that is secret."""
    notes = notes_taken(record)
    more = transaction._profile or transaction._baggage or transaction._span_recorder.spans
    own = transaction._tags or transaction._contexts or transaction._measurements or transaction._flags
    return not more and not own and (notes is None or not notes.tell)


def _tell(record: RequestRecord, transaction: Any) -> None:
    notes = notes_taken(record)
    transaction.set_http_status(record.status)
    transaction.set_tag("request_id", record.request_id)
    transaction.set_tag("trace_id", transaction.trace_id)
    transaction.set_data("http.request.method", record.method)
    if notes is not None:
        for name, value in notes.tags.items():
            transaction.set_tag(name, value)
        for name, value in notes.contexts.items():
            transaction.set_context(name, value)


def _plain_envelope(record: RequestRecord, transaction: Any, client: Client) -> Envelope:
    """Return what the library would send, without its walk through every value."""
    from sentry_sdk.envelope import Envelope

    event_id, now = uuid4().hex, _stamp(datetime.now(UTC))
    options: Any = client.options
    about = {name: options[name] for name in ("release", "environment")}
    event: Any = {
        "type": "transaction",
        "event_id": event_id,
        "platform": "python",
        "transaction": transaction.name,
        "transaction_info": {"source": "route"},
        "start_timestamp": _stamp(transaction.start_timestamp),
        "timestamp": now,
        "server_name": options["server_name"],
        "tags": {"request_id": record.request_id, "trace_id": transaction.trace_id, "status": str(record.status)},
        "contexts": {"trace": _trace_context(record, transaction)},
        "spans": [],
        "sdk": _SDK,
        **about,
    }
    if record.user_id is not None:
        event["user"] = {"id": record.user_id}
    dsn = client.parsed_dsn
    trace = {
        "trace_id": transaction.trace_id,
        "public_key": dsn.public_key if dsn else "",
        "transaction": transaction.name,
        "sample_rate": str(transaction.sample_rate),
        "sampled": "true",
        **about,
    }
    envelope = Envelope(headers={"event_id": event_id, "sent_at": now, "trace": trace})
    envelope.add_transaction(event)
    return envelope


def _trace_context(record: RequestRecord, transaction: Any) -> dict[str, Any]:
    from sentry_sdk.tracing import get_span_status_from_http_code

    answer = {"http.response.status_code": record.status, "http.request.method": record.method}
    return {
        "trace_id": transaction.trace_id,
        "span_id": transaction.span_id,
        "op": transaction.op,
        "origin": transaction.origin,
        "status": get_span_status_from_http_code(record.status),
        "data": {**transaction._data, **answer},
    }


def _stamp(moment: datetime) -> str:
    return moment.strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def _continued(record: RequestRecord) -> dict[str, Any]:
    """Return what makes a transaction the child of the caller's, whose trace it goes on with."""
    from sentry_sdk.tracing_utils import Baggage, extract_sentrytrace_data

    caller = extract_sentrytrace_data(record.environ["HTTP_SENTRY_TRACE"]) or {}
    baggage = Baggage.from_incoming_header(record.environ.get("HTTP_BAGGAGE"))
    baggage.freeze()
    return {"parent_span_id": caller.get("parent_span_id"), "baggage": baggage}
