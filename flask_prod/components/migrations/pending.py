"""The check `migrations`: whether the database has what this version of the code needs."""

from __future__ import annotations

import threading
from collections.abc import Callable
from time import monotonic
from typing import TYPE_CHECKING, Any

from flask_prod.core.component import Finding

from .folder import Revisions

if TYPE_CHECKING:
    from sqlalchemy import Engine

ASK_AGAIN = 10.0
"""Seconds between two questions while a migration is pending; somebody is waiting for it to be done."""

Ask = Callable[[], "frozenset[str] | None"]


class Pending:
    """Asks the database until it is up to date, and then never again: code does not change while it runs."""

    def __init__(self, scripts: Callable[[], Revisions], ask: Ask, status: str) -> None:
        self._scripts = scripts
        self._ask = ask
        self._status = status
        self._lock = threading.Lock()
        self._said: Finding | None = None
        self._asked = float("-inf")
        self._done = False

    def probe(self) -> Finding | None:
        """Return a finding while a migration is pending; raises when the database does not answer."""
        if self._done:
            return None
        with self._lock:
            if monotonic() - self._asked >= ASK_AGAIN:
                self._said = self._look()
                self._asked = monotonic()
            return self._said

    def _look(self) -> Finding | None:
        try:
            scripts = self._scripts()
        except ValueError as error:
            return Finding("warn", str(error))
        current = self._ask()
        if current is None:
            return Finding(detail="not used: DATABASE_URL is not set and nothing was stored")
        missing = sorted(scripts.heads - current)
        if not missing:
            self._done = True
            return None
        unknown = sorted(current - scripts.all)
        what = f"the database is at {', '.join(sorted(current)) or 'no revision'}"
        if unknown:  # ahead of this code, or of another branch of it: an upgrade could not go on from there
            return Finding(self._status, f"{what}, which no migration here is called: is this an older version?")
        return Finding(self._status, f"{what}, the code at {', '.join(missing)}: run `flask prod db upgrade`")


def revisions_in(engine: Engine, table: str) -> frozenset[str]:
    """Return the revisions that a database is at; none when it has no table of them."""
    from sqlalchemy import column, exc, inspect, select
    from sqlalchemy import table as table_clause

    schema, _, name = table.rpartition(".")
    query: Any = select(column("version_num")).select_from(table_clause(name, schema=schema or None))
    with engine.connect() as connection:
        try:
            return frozenset(connection.scalars(query))
        except (exc.ProgrammingError, exc.OperationalError):
            connection.rollback()
            if inspect(connection).has_table(name, schema=schema or None):
                raise
            return frozenset()
