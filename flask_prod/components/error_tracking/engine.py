"""What one application reports: errors once, outages once, chosen requests, and what its code asks for."""

from __future__ import annotations

import logging
import sys
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from random import random
from typing import TYPE_CHECKING, Any

from flask_prod.core.component import Event, HeaderList
from flask_prod.core.ports import CounterPort
from flask_prod.core.record import RequestRecord, current_record
from flask_prod.core.redaction import secrets_held

from .client import SECRETS, close_client
from .expected import Expected
from .notes import CrumbHandler, join_crumbs, leave_crumbs
from .scopes import Scopes
from .storm import OncePerHost, Storm, kind_of
from .story import describe, keep_secrets, secrets_of_request
from .traces import TRANSACTION, begin_transaction, end_transaction

if TYPE_CHECKING:
    from sentry_sdk import Client

logger = logging.getLogger("flask_prod.errors")

_REPORTED = "__flask_prod_reported__"
_SEVERE = frozenset({"error", "critical"})
_LIBRARY = "sentry_sdk"


@dataclass(frozen=True, slots=True)
class Counters:
    """What is counted, whether or not there is a Sentry."""

    reports: CounterPort
    fallbacks: CounterPort


class AppErrors:
    """Reports to one Sentry project; without one it only logs.

    The library is imported by whoever needs it first: the application itself, a worker at its start, an error.
    """

    def __init__(
        self,
        build: Callable[[], Client] | None,
        expected: Expected,
        rate: float,
        counters: Counters,
        once: OncePerHost,
    ) -> None:
        self._build = build
        self._counted = counters.reports
        self._fallbacks = counters.fallbacks
        self._storm = Storm()
        self._logged = Storm()
        self._once = once
        self._client: Client | None = None
        self._scopes: Scopes | None = None
        self._crumbs: CrumbHandler | None = None
        self._speak: Callable[[], None] | None = None
        self._building = threading.Lock()
        self._expected = expected
        self._rate = rate
        self._samples = rate > 0
        if build is not None:
            self._crumbs = join_crumbs()
            if _LIBRARY in sys.modules:  # then its plain functions are meant to work from here on
                self._scopes = Scopes(with_base=True)
                self.client()

    @property
    def active(self) -> bool:
        """True when there is a Sentry to report to."""
        return self._build is not None

    def start(self) -> None:
        """Import the library in a process that is about to serve: no request should wait for that."""
        self.client()

    def client(self) -> Client | None:
        """Return this process's client, made on first use; plain `sentry_sdk` calls use it unless one is set."""
        if self._client is not None or self._build is None:
            return self._client
        with self._building:
            if self._client is None and self._build is not None:
                self._client = self._make(self._build)
        return self._client

    def _make(self, build: Callable[[], Client]) -> Client:
        import sentry_sdk

        if self._scopes is None:
            self._scopes = Scopes(with_base=False)
        from .courier import hush

        client = build()
        if self._speak is None:
            self._speak = hush()
        everywhere = sentry_sdk.get_global_scope()
        if not everywhere.client.is_active():
            everywhere.set_client(client)
        return client

    def sample(self, rate: float) -> None:
        """Send another share of the requests as transactions from now on."""
        self._rate = rate

    def begin(self, record: RequestRecord) -> None:
        """Start a transaction if this request is among the sampled; a preflight never is."""
        if random() < self._rate and record.method != "OPTIONS":  # noqa: S311  # a sample, not a secret
            client = self.client()
            if client is not None and self._scopes is not None and _takes_reports(client):
                begin_transaction(record, client, self._scopes, self._rate)

    def look(self, record: RequestRecord, _headers: HeaderList) -> None:
        """Take from a failed request what its report needs and Flask is about to let go."""
        if record.status >= 500 and record.error is not None:
            keep_secrets(record)

    def observe(self, record: RequestRecord) -> None:
        """Report how the request ended, if that is worth it, and leave no scope behind."""
        if record.error is not None and (record.status >= 500 or record.outcome == "crashed"):
            try:
                self.report(record.error, record)
            finally:
                self._end(record)
        elif self._scopes is None:
            if _LIBRARY in sys.modules and self._build is not None:
                self.client()  # the application imported it meanwhile
        elif self._scopes.used or (self._samples and TRANSACTION in record.environ):
            self._end(record)

    def _end(self, record: RequestRecord) -> None:
        if self._scopes is None:
            return
        try:
            if TRANSACTION in record.environ and self._client is not None:
                end_transaction(record, self._client, self._scopes)
        finally:
            self._scopes.reset()

    def report(self, error: BaseException, record: RequestRecord | None, **context: object) -> str | None:
        """Send *error* unless it is expected or was sent for this request; return the event's id."""
        if self._build is None or self._expected(error) or _seen(error, record):
            return None
        return self._report(error, record, {}, context)

    def _report(
        self,
        error: BaseException,
        record: RequestRecord | None,
        more: Mapping[str, Any],
        context: dict[str, object],
    ) -> str | None:
        client = self.client()
        if client is None:
            return None
        if not _takes_reports(client):
            self._counted.inc("dropped")
            return None
        withheld = self._storm.admit(kind_of(error))
        if withheld is None:
            self._counted.inc("withheld")
            return None
        self._counted.inc("sent")
        if withheld:
            context["equal_errors_withheld"] = withheld

        from sentry_sdk.utils import event_from_exception

        handled = record is None or record.duration == 0.0
        event, hint = event_from_exception(
            (type(error), error, error.__traceback__),
            client_options=client.options,
            mechanism={"type": "flask_prod", "handled": handled},
        )
        hint[SECRETS] = secrets_held(error)
        return self._send({**event, **more}, hint, record, context)

    def capture_error(self, error: BaseException | None = None, **context: object) -> str | None:
        """Report *error*, or the one being handled, with *context*; log it either way. Return the event's id."""
        error = error or sys.exc_info()[1]
        if error is None:
            raise ValueError("There is no error to capture: pass one, or call this in an except block.")
        logger.error("%s", error, exc_info=error, extra={"fields": context})
        return self.report(error, current_record(), **context)

    def fell_back(self, error: BaseException, name: str) -> None:
        """Count that *name* was answered by its fallback, and report why; of equal errors a few are logged."""
        self._fallbacks.inc(name)
        if self._build is not None:
            self.report(error, current_record(), fallback=name)
        if self._logged.admit((name, *kind_of(error))) is not None:
            logger.warning("%s failed, its fallback answers: %s", name, error, exc_info=error)

    def capture_message(self, message: str, level: str = "info", **context: object) -> str | None:
        """Report *message* with *context*; log it either way. Return the event's id."""
        logger.log(getattr(logging, level.upper(), logging.INFO), "%s", message, extra={"fields": context})
        if self.client() is None:
            return None
        return self._send({"message": message, "level": level}, {}, current_record(), context)

    def on_event(self, event: Event) -> None:
        """Report a change of state that is an error: with its exception grouped by that, else once per host."""
        if event.severity not in _SEVERE or self._build is None or self._expected.named(event.error):
            return
        report: dict[str, Any] = {
            "message": event.message,
            "level": "fatal" if event.severity == "critical" else "error",
            "logger": event.name,
            "fingerprint": [event.name],
            "tags": {"event": event.name},
        }
        record, fields = current_record(), dict(event.fields)
        if event.error is not None:
            if not _seen(event.error, record):
                report["fingerprint"].append(type(event.error).__qualname__)
                self._report(event.error, record, report, fields)
        elif self._once.is_first(event.name, event.message):
            self._counted.inc("sent")
            self._send(report, {}, record, fields)
        else:
            self._counted.inc("withheld")

    def bind(self) -> None:
        """Let plain `sentry_sdk` calls in this request use this application's client."""
        import sentry_sdk

        client = self.client()
        scope = sentry_sdk.get_isolation_scope()
        if client is not None and scope.client is not client:
            scope.set_client(client)

    def flush(self, seconds: float = 2.0) -> None:
        """Wait until what was reported has left, for *seconds* at most."""
        if self._client is not None:
            self._client.flush(timeout=seconds)

    def after_fork(self) -> None:
        """Forget the parent's client: its queue, its lock and its thread are not ours."""
        self._building = threading.Lock()
        client, self._client = self._client, None
        self._withdraw(client)

    def close(self) -> None:
        """Send what waits, for a second and a half at most."""
        client, self._client, self._build = self._client, None, None
        if self._crumbs is not None:
            leave_crumbs(self._crumbs)
            self._crumbs = None
        if client is not None:
            self._withdraw(client)
            close_client(client)
        if self._speak is not None:
            self._speak()
            self._speak = None

    def _send(
        self, event: dict[str, Any], hint: dict[str, Any], record: RequestRecord | None, more: Mapping[str, object]
    ) -> str | None:
        import sentry_sdk

        if record is not None:
            transaction = record.environ.get(TRANSACTION)
            described = describe(record, "" if transaction is None else transaction.span_id)
            described["tags"].update(event.get("tags", {}))
            event = {**event, **described}
            hint[SECRETS] = {*hint.get(SECRETS, ()), *secrets_of_request(record)}
        if more:
            event["extra"] = {**event.get("extra", {}), **more}
        with sentry_sdk.new_scope() as scope:
            scope.set_client(self.client())
            return scope.capture_event(event, hint)  # type: ignore[arg-type]  # a dict made at run time

    def _withdraw(self, client: Client | None) -> None:
        if client is None:
            return
        import sentry_sdk

        everywhere = sentry_sdk.get_global_scope()
        if everywhere.client is client:
            everywhere.set_client(None)


def _takes_reports(client: Client) -> bool:
    """Tell whether a report is worth building: not while Sentry is away or says 429, nor for a full queue."""
    return client.transport is not None and client.transport.is_healthy()


def _seen(error: BaseException, record: RequestRecord | None) -> bool:
    """Tell whether *error* was reported for this request already, and remember that it is now."""
    if record is None:
        return False
    if getattr(error, _REPORTED, None) == record.request_id or error is record.environ.get(_REPORTED):
        return True
    try:
        setattr(error, _REPORTED, record.request_id)
    except AttributeError:  # a frozen dataclass
        record.environ[_REPORTED] = error
    return False
