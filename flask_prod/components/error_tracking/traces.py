"""Sampled requests as Sentry transactions: decided by one random number, before anything is built."""

from __future__ import annotations

from random import random
from typing import TYPE_CHECKING, Any

from flask_prod.core.record import RequestRecord

from .story import transaction_name

if TYPE_CHECKING:
    from sentry_sdk import Client

_TRANSACTION = "flask_prod.sentry_transaction"


class Transactions:
    """Begins a transaction for a share of the requests; spans and profile of the library's own join it."""

    def __init__(self, rate: float) -> None:
        self._rate = rate

    def begin(self, record: RequestRecord, client: Client) -> None:
        """Start a transaction if this request is among the sampled; a preflight never is."""
        if record.method == "OPTIONS" or (not record.sampled and random() >= self._rate):  # noqa: S311  # a sample, not a secret
            return
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

    def end(self, record: RequestRecord) -> None:
        """Send the transaction that `begin` started."""
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
