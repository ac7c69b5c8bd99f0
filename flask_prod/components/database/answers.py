"""From a database's error to the answer that helps the client: 503 to try again soon, 504 for a slow query."""

from __future__ import annotations

from typing import Any

from flask import Flask
from sqlalchemy.exc import DBAPIError, InterfaceError, InternalError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from werkzeug.exceptions import GatewayTimeout, HTTPException, ServiceUnavailable

from flask_prod.core.handlers import own_handler
from flask_prod.core.observation import observed
from flask_prod.core.ports import CounterPort

from . import mysql

RETRY_AFTER = 1
"""Seconds; a pool frees a connection, and a restarted server answers, within about this time."""

REASONS = ("pool", "statement", "server", "locked", "readonly")

_TRANSLATED = (PoolTimeout, OperationalError, InterfaceError, InternalError)
_OBSERVED = {"server": "requests cannot reach it"}
"""What counts as a failure of the health check `database`; of the other reasons it is only asked."""

_QUERY_CANCELED = "57014"
"""The SQLSTATE of PostgreSQL for a statement that ran into statement_timeout."""

_READ_ONLY = "25006"
"""The SQLSTATE of a server that takes no changes: one that was the primary until a moment ago."""

_SQLITE_BUSY = 5


def translate_errors(app: Flask, counter: CounterPort) -> None:
    """Answer 503 and 504 where the application has no error handler of its own for these exceptions."""
    handlers = app.error_handler_spec[None][None]
    for reason in REASONS:
        counter.show(reason)

    def answer(error: Exception) -> Any:
        own = own_handler(app, error, answer)
        # Who has a handler for SQLAlchemy's errors has thought of them; one for Exception has not.
        found = None if own is not None and own[1].__module__.startswith("sqlalchemy") else explain(error)
        if found is not None:
            counter.inc(found[0])
            observed(app, "database", _OBSERVED.get(found[0], ""))
            return found[1]
        if own is not None:
            return app.ensure_sync(own[0])(error)
        raise error

    for kind in _TRANSLATED:
        handlers.setdefault(kind, answer)


def explain(error: Exception) -> tuple[str, HTTPException] | None:
    """Return the reason in one word and the answer, None for an error that is the application's own."""
    if isinstance(error, PoolTimeout):
        return "pool", ServiceUnavailable("All database connections are in use.", retry_after=RETRY_AFTER)
    if not isinstance(error, DBAPIError):
        return None
    number = mysql.number_of(error.orig)
    if getattr(error.orig, "sqlstate", None) == _QUERY_CANCELED or number in mysql.TOO_LONG:
        return "statement", GatewayTimeout("A database query took too long.")
    if getattr(error.orig, "sqlstate", None) == _READ_ONLY or mysql.is_read_only(error.orig):
        return "readonly", ServiceUnavailable("The database takes no changes now.", retry_after=RETRY_AFTER)
    if _is_outage(error):
        return "server", ServiceUnavailable("The database cannot be reached.", retry_after=RETRY_AFTER)
    if getattr(error.orig, "sqlite_errorcode", 0) & 0xFF == _SQLITE_BUSY or number in mysql.LOCKED:
        return "locked", ServiceUnavailable("The database is busy.", retry_after=RETRY_AFTER)
    return None


def _is_outage(error: DBAPIError) -> bool:
    if error.connection_invalidated:
        return True
    # An error without a statement comes from opening a connection, unless it is one of COMMIT with a code.
    if error.statement is not None or hasattr(error.orig, "sqlite_errorcode"):
        return False
    return getattr(error.orig, "sqlstate", None) is None or mysql.number_of(error.orig) in mysql.REFUSED
