"""Requests as Sentry transactions; which ones is decided before anything of this is built."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from flask_prod.core.record import RequestRecord

from .story import transaction_name

if TYPE_CHECKING:
    from sentry_sdk import Client

_TRANSACTION = "flask_prod.sentry_transaction"


def begin_transaction(record: RequestRecord, client: Client) -> None:
    """Start a transaction in scopes of its own; spans and profile of the library's own join it."""
    import sentry_sdk
    from sentry_sdk.tracing import Transaction

    record.sampled = True
    isolation = sentry_sdk.get_isolation_scope().fork()
    isolation.set_client(client)
    sentry_sdk.Scope.set_isolation_scope(isolation)
    scope = sentry_sdk.get_current_scope().fork()
    scope.set_client(client)
    sentry_sdk.Scope.set_current_scope(scope)
    transaction = Transaction.continue_from_headers(
        _trace_headers(record), op="http.server", name="unmatched", source="route", sampled=True,
        origin="auto.http.flask_prod", scope=scope,
    )  # fmt: skip
    scope.start_transaction(transaction).__enter__()
    record.environ[_TRANSACTION] = transaction


def end_transaction(record: RequestRecord) -> None:
    """Send the transaction that `begin_transaction` started, if it did."""
    transaction: Any = record.environ.pop(_TRANSACTION, None)
    if transaction is None:
        return
    transaction.name = transaction_name(record)
    transaction.set_http_status(record.status)
    transaction.set_tag("request_id", record.request_id)
    transaction.set_data("http.request.method", record.method)
    transaction.__exit__(None, None, None)


def _trace_headers(record: RequestRecord) -> dict[str, str]:
    found = {"sentry-trace": "HTTP_SENTRY_TRACE", "baggage": "HTTP_BAGGAGE"}
    return {name: record.environ[key] for name, key in found.items() if key in record.environ}
