"""One pair of listeners on each engine, for metrics, spans, slow queries and the queries of a request together."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from time import perf_counter
from typing import Any

from sqlalchemy import Engine, event, exc

from flask_prod.core.ports import NoTracer
from flask_prod.core.record import current

from .. import mysql
from .labels import Labeller
from .slow import Query
from .spans import Statements, describe
from .telemetry import Telemetry

_BEGAN = "_flask_prod_began"
_CONFLICTS = frozenset({"40001", "40P01"})
"""SQLSTATEs: a transaction that could not be serialised, and a deadlock."""

_QUERY_CANCELED = "57014"
_SQLITE_BUSY = frozenset({5, 6})


def measure(engine: Engine, role: str, telemetry: Telemetry) -> None:
    """Tell *telemetry* of every query of *engine*, which goes by *role* in metrics."""
    queries = _Queries(engine, role, telemetry)
    # retval: SQLAlchemy would put a function of its own around one that returns nothing.
    event.listen(engine, "before_cursor_execute", queries.before, retval=True)
    event.listen(engine, "after_cursor_execute", queries.after)
    event.listen(engine, "handle_error", queries.failed)


class _Queries:
    """What is done about each query of one engine; every line of `before` and `after` is paid by every query."""

    def __init__(self, engine: Engine, role: str, telemetry: Telemetry) -> None:
        self._role = role
        self._label = Labeller().label
        self._observe: Callable[..., None] | None = telemetry.seconds.observe if telemetry.counts else None
        self._errors = telemetry.errors
        tracer = telemetry.tracer
        self._spans = None if isinstance(tracer, NoTracer) else Statements(engine.url, tracer)
        self._slow = telemetry.slow
        self._repeats = telemetry.repeats
        self._texts_in_double_quotes = engine.url.get_backend_name() in ("mysql", "mariadb")

    def before(  # what SQLAlchemy calls
        self, _connection: object, _cursor: object, statement: str, parameters: Any, context: Any, _many: bool
    ) -> tuple[str, Any]:
        """Begin to measure."""
        if context is not None:
            if self._spans is not None:
                self._spans.begin(statement, context)
            context._flask_prod_began = perf_counter()
        return statement, parameters

    def after(  # what SQLAlchemy calls
        self, _connection: object, cursor: Any, statement: str, _parameters: object, context: Any, _many: bool
    ) -> None:
        """Count the query where it belongs."""
        if context is None:
            return
        seconds = perf_counter() - context._flask_prod_began
        if self._observe is not None:
            operation, table = self._label(context.compiled, statement)
            self._observe(seconds, operation, table, self._role)
        record = current.get()
        if record is not None:
            record.db_queries += 1
            record.db_seconds += seconds
            if self._repeats is not None:
                self._repeats.count(record, statement, partial(self._shown, statement))
        if seconds >= self._slow.limit:
            self._tell_slow(seconds, statement, context, cursor.rowcount)
        if self._spans is not None:
            self._spans.end(context, None)

    def failed(self, found: Any) -> None:
        """Count the error by its kind; a query that failed slowly is slow."""
        if found.is_pre_ping:
            return  # a connection that lay dead is replaced, and nobody notices
        self._errors.inc(kind_of(found), self._role)
        context, error = found.execution_context, found.original_exception
        if context is None:
            return
        if self._spans is not None:
            self._spans.end(context, error)
        seconds = perf_counter() - getattr(context, _BEGAN, perf_counter())
        record = current.get()
        if record is not None:
            record.db_queries += 1
            record.db_seconds += seconds
        if seconds >= self._slow.limit:
            self._tell_slow(seconds, str(found.statement or ""), context, -1, type(error).__name__)

    def _tell_slow(self, seconds: float, statement: str, context: Any, rows: int, error: str = "") -> None:
        compiled = context.compiled
        operation, table = self._label(compiled, statement)
        shown = self._shown(statement)
        query = Query(seconds, operation, table, self._role, shown, rows, error)
        # As compiled: with each number of values after IN the statement that is sent is another one.
        self._slow.tell(query, shown or operation if compiled is None else str(compiled.string))

    def _shown(self, statement: str) -> str:
        told = describe(statement, self._texts_in_double_quotes)
        return str(told["attributes"].get("db.query.text", ""))


def kind_of(found: Any) -> str:
    """Return what kind of error a statement, or opening a connection, ended with; a word for metrics."""
    error, raised = found.original_exception, found.sqlalchemy_exception
    state = getattr(error, "sqlstate", None)
    number = mysql.number_of(error)
    if state == _QUERY_CANCELED or number in mysql.TOO_LONG:
        return "timeout"
    if state in _CONFLICTS or number in mysql.CONFLICT:
        return "conflict"
    if found.is_disconnect or found.connection is None:
        return "connection"
    if isinstance(raised, exc.IntegrityError):
        return "integrity"
    locked = number in mysql.LOCKED or getattr(error, "sqlite_errorcode", 0) & 0xFF in _SQLITE_BUSY
    return "locked" if locked else "other"
