"""The same query again and again in one request, in development: what a missing `selectinload` looks like."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from flask_prod.core.component import Event
from flask_prod.core.record import RequestRecord

from .caller import calling_line

REPEATED = "prod.database.repeated_query"

MOST = 10
"""So often a request may ask the same; once more is told."""

_REMEDY = (
    "Load them with the query that finds the parents: select(Parent).options(selectinload(Parent.children)), or "
    "ask once with .where(Child.id.in_(ids))."
)


@dataclass(slots=True)
class Repeat:
    """A statement of one request: how often it was asked, its text without values, and the line that asked."""

    count: int = 0
    shown: str = ""
    place: str = ""


class Repeats:
    """Counts the queries of each request by statement, and tells of those that came too often when it ends."""

    def __init__(self, emit: Callable[[Event], None], most: int = MOST) -> None:
        self._emit = emit
        self._most = most

    def count(self, record: RequestRecord, statement: str, show: Callable[[], str]) -> None:
        """Count one query; *show* gives its text without values."""
        seen: dict[str, Repeat] | None = record.db_statements
        if seen is None:
            seen = record.db_statements = {}
        repeat = seen.get(statement)
        if repeat is None:
            repeat = seen[statement] = Repeat()
        repeat.count += 1
        if repeat.count == self._most + 1:
            repeat.shown, repeat.place = show(), calling_line()

    def observe(self, record: RequestRecord) -> None:
        """Tell of the statements that the request repeated, one line for each."""
        seen: dict[str, Repeat] | None = record.db_statements
        if not seen:
            return
        for repeat in seen.values():
            if repeat.count > self._most:
                self._tell(record, repeat)

    def _tell(self, record: RequestRecord, repeat: Repeat) -> None:
        where = f" at {repeat.place}" if repeat.place else ""
        asked = f"{record.method[:32]} {record.route or 'a request without a route'}"
        message = f"{asked} asked the same {repeat.count} times{where}. {_REMEDY}"
        fields = {"statement": repeat.shown, "count": repeat.count, "at": repeat.place, "route": record.route}
        self._emit(Event(REPEATED, message, "warning", fields))
