"""Slow queries: a line for each, with what it did, where it was asked, and none of its values."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from math import inf
from time import monotonic

from flask_prod.core.component import Event
from flask_prod.core.record import current_record

from .caller import calling_line

SLOW = "prod.database.slow_query"

_MINUTE = 60.0
_MOST_REMEMBERED = 500
"""Statements whose last lines are remembered: an application has fewer that are slow."""


@dataclass(frozen=True, slots=True)
class Query:
    """A query that has ended; `shown` is its text without values, empty where that cannot be told for sure."""

    seconds: float
    operation: str
    table: str
    role: str
    shown: str
    rows: int = -1
    """How many rows it returned or changed, -1 where the driver does not say."""

    error: str = ""
    """The class of the error that ended it."""


@dataclass(slots=True)
class _Told:
    """When the last two lines about a statement were written, and how many were held back since."""

    last: float = -inf
    before: float = -inf
    held_back: int = 0


class SlowQueries:
    """Tells of queries that take *limit* seconds or more, of each statement twice a minute at most; 0 of none."""

    def __init__(self, emit: Callable[[Event], None], limit: float) -> None:
        self.limit = limit or inf
        self._emit = emit
        self._lock = threading.Lock()
        self._told: dict[str, _Told] = {}

    def adopt(self, limit: float) -> None:
        """Take over a changed limit; from the next query on."""
        self.limit = limit or inf

    def after_fork(self) -> None:
        """Renew the lock, which another thread of the parent may have held."""
        self._lock = threading.Lock()

    def tell(self, query: Query, statement: str) -> None:
        """Write the line of a query unless there were two; *statement* is what tells it from others."""
        held_back = self._admit(statement, monotonic())
        if held_back is None:
            return
        place = calling_line()
        record = current_record()
        fields: dict[str, object] = {
            "seconds": round(query.seconds, 4),
            "operation": query.operation,
            "table": query.table,
            "role": query.role,
            "statement": query.shown,
            "at": place,
            "route": record.route if record is not None else None,
        }
        if query.rows >= 0:
            fields["rows"] = query.rows
        if query.error:
            fields["error"] = query.error
        if held_back:
            fields["held_back"] = held_back
        where = f" at {place}" if place else ""
        message = f"{query.operation} {query.table} took {query.seconds:.3f} s{where}."
        self._emit(Event(SLOW, message, "warning", {key: value for key, value in fields.items() if value != ""}))

    def _admit(self, statement: str, now: float) -> int | None:
        """Return how many lines were held back since the last one, None for another to hold back."""
        with self._lock:
            told = self._told.pop(statement, None) or _Told()
            self._told[statement] = told  # at the end: those of long ago are forgotten first
            if len(self._told) > _MOST_REMEMBERED:
                del self._told[next(iter(self._told))]
            if now - told.before < _MINUTE:
                told.held_back += 1
                return None
            held_back, told.held_back = told.held_back, 0
            told.before, told.last = told.last, now
            return held_back
