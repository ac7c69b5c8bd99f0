"""What one application reports: errors once, outages once, chosen requests, and what its code asks for."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Collection, Mapping
from contextvars import ContextVar
from random import random
from typing import TYPE_CHECKING, Any

from werkzeug.exceptions import ServiceUnavailable

from flask_prod.core.component import Event
from flask_prod.core.errors import Unavailable
from flask_prod.core.ports import CounterPort
from flask_prod.core.record import RequestRecord, current_record
from flask_prod.core.redaction import secrets_sent

from .client import SECRETS, close_client
from .storm import Storm
from .story import describe
from .traces import begin_transaction, end_transaction

if TYPE_CHECKING:
    from sentry_sdk import Client

logger = logging.getLogger("flask_prod.errors")

_REPORTED = "__flask_prod_reported__"
_SEVERE = frozenset({"error", "critical"})


class Expected:
    """Tells errors that are no news: by class name, and those that say a dependency is away."""

    def __init__(self, names: Collection[str]) -> None:
        self._names = frozenset(names)
        self._known: dict[type[BaseException], bool] = {}

    def __call__(self, error: BaseException) -> bool:
        """Tell whether *error* is expected.

        An outage is reported when its breaker opens, not by each of the requests that it costs.
        """
        kind = type(error)
        known = self._known.get(kind)
        if known is None:
            known = self._known[kind] = issubclass(kind, Unavailable | ServiceUnavailable) or any(
                {base.__name__, f"{base.__module__}.{base.__qualname__}"} & self._names for base in kind.__mro__
            )
        return known


class AppErrors:
    """Reports to one Sentry project; without one it only logs."""

    def __init__(
        self, build: Callable[[], Client] | None, expected: Expected, rate: float, counted: CounterPort
    ) -> None:
        self._build = build
        self._counted = counted
        self._storm = Storm()
        self._client: Client | None = None
        self._expected = expected
        self._rate = rate
        if build is not None:
            self._remember_base()
            self.client()

    @property
    def active(self) -> bool:
        """True when there is a Sentry to report to."""
        return self._build is not None

    def client(self) -> Client | None:
        """Return this process's client, made on first use; plain `sentry_sdk` calls use it unless one is set."""
        if self._client is None and self._build is not None:
            import sentry_sdk

            self._client = self._build()
            everywhere = sentry_sdk.get_global_scope()
            if not everywhere.client.is_active():
                everywhere.set_client(self._client)
        return self._client

    def begin(self, record: RequestRecord) -> None:
        """Start a transaction if this request is among the sampled; a preflight never is."""
        if (record.sampled or random() < self._rate) and record.method != "OPTIONS":  # noqa: S311  # a sample, not a secret
            client = self.client()
            if client is not None:
                begin_transaction(record, client)

    def observe(self, record: RequestRecord) -> None:
        """Report how the request ended, if that is worth it, and leave no scope behind."""
        try:
            if record.error is not None and (record.status >= 500 or record.outcome == "crashed"):
                self.report(record.error, record)
            if record.sampled:
                end_transaction(record)
        finally:
            if self._isolation.get() is not None or self._current.get() is not None:
                self._reset_scopes()

    def report(self, error: BaseException, record: RequestRecord | None, **context: object) -> str | None:
        """Send *error* unless it is expected or was sent for this request; return the event's id."""
        client = self.client()
        if client is None or self._expected(error) or _seen(error, record):
            return None
        if client.transport is None or not client.transport.is_healthy():
            self._counted.inc("dropped")  # the queue is full, or Sentry said 429: it would be built for nothing
            return None
        withheld = self._storm.admit(error)
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
        return self._send(dict(event), hint, record, context)

    def capture_error(self, error: BaseException | None = None, **context: object) -> str | None:
        """Report *error*, or the one being handled, with *context*; log it either way. Return the event's id."""
        error = error or sys.exc_info()[1]
        if error is None:
            raise ValueError("There is no error to capture: pass one, or call this in an except block.")
        logger.error("%s", error, exc_info=error, extra={"fields": context})
        return self.report(error, current_record(), **context)

    def capture_message(self, message: str, level: str = "info", **context: object) -> str | None:
        """Report *message* with *context*; log it either way. Return the event's id."""
        logger.log(getattr(logging, level.upper(), logging.INFO), "%s", message, extra={"fields": context})
        if self.client() is None:
            return None
        return self._send({"message": message, "level": level}, {}, current_record(), context)

    def on_event(self, event: Event) -> None:
        """Report a change of state that is an error; whoever emits it does so once per change."""
        if event.severity not in _SEVERE or self.client() is None:
            return
        report = {
            "message": event.message,
            "level": "fatal" if event.severity == "critical" else "error",
            "logger": event.name,
            "fingerprint": [event.name],
            "tags": {"event": event.name},
        }
        self._send(report, {}, None, event.fields)

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
        client, self._client = self._client, None
        self._withdraw(client)

    def close(self) -> None:
        """Send what waits, for two seconds at most."""
        client, self._client, self._build = self._client, None, None
        if client is not None:
            self._withdraw(client)
            close_client(client)

    def _send(
        self, event: dict[str, Any], hint: dict[str, Any], record: RequestRecord | None, more: Mapping[str, object]
    ) -> str | None:
        import sentry_sdk

        if record is not None:
            described = describe(record)
            described["tags"].update(event.get("tags", {}))
            event = {**event, **described}
            hint[SECRETS] = secrets_sent(record.environ)
        if more:
            event["extra"] = {**event.get("extra", {}), **more}
        with sentry_sdk.new_scope() as scope:
            scope.set_client(self.client())
            return scope.capture_event(event, hint)  # type: ignore[arg-type]  # a dict made at run time

    def _withdraw(self, client: Client | None) -> None:
        import sentry_sdk

        everywhere = sentry_sdk.get_global_scope()
        if client is not None and everywhere.client is client:
            everywhere.set_client(None)

    def _remember_base(self) -> None:
        from sentry_sdk import scope

        self._isolation: ContextVar[Any] = scope._isolation_scope
        self._current: ContextVar[Any] = scope._current_scope
        # Importing the library makes two scopes; unless the start-up put something in, requests do without.
        # Forked, so that what a request adds to a scope of the start-up stays out of the copy.
        scopes = (self._isolation.get(), self._current.get())
        self._base = [found.fork() if _filled(found) else None for found in scopes]
        self._reset_scopes()

    def _reset_scopes(self) -> None:
        """End tags and breadcrumbs with the request that set them, as the library's middleware does by forking."""
        for variable, base in zip((self._isolation, self._current), self._base, strict=True):
            variable.set(base and base.fork())


def _filled(scope: Any) -> bool:
    """Tell whether somebody has put anything into *scope*."""
    parts = ("_tags", "_extras", "_contexts", "_user", "_breadcrumbs")
    return any(getattr(scope, part, None) for part in parts)


def _seen(error: BaseException, record: RequestRecord | None) -> bool:
    """Tell whether *error* was reported for this request already, and remember that it is now."""
    if record is None:
        return False
    if getattr(error, _REPORTED, None) == record.request_id:
        return True
    setattr(error, _REPORTED, record.request_id)
    return False
