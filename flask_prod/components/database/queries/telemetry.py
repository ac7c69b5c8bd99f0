"""What is told of an application's queries, and to whom: made while the room is installed, without SQLAlchemy."""

from __future__ import annotations

from flask_prod.core.component import Installed
from flask_prod.core.ports import NoMeter

from .repeats import Repeats
from .slow import SlowQueries

SECONDS = "flask_prod_database_query_seconds"
ERRORS = "flask_prod_database_query_errors_total"
BUCKETS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
"""Seconds: from a row by its key on the same host to DATABASE_STATEMENT_TIMEOUT."""

_SECONDS = "Seconds of queries, by operation, table (`other` for unknown ones) and the role of the engine"
_ERRORS = (
    "Failed queries by kind: timeout, conflict, integrity, locked, connection or other, and role of the engine"
)


class Telemetry:
    """Where all engines of one application tell of their queries."""

    def __init__(self, kit: Installed, slow: float) -> None:
        meter = kit.meter
        self.seconds = meter.histogram(SECONDS, _SECONDS, ("operation", "table", "role"), BUCKETS)
        self.errors = meter.counter(ERRORS, _ERRORS, ("kind", "role"))
        self.counts = not isinstance(meter, NoMeter)
        self.tracer = kit.tracer
        self.slow = SlowQueries(kit.emit, slow)
        self.repeats = Repeats(kit.emit) if kit.service.environment == "development" else None

    def after_fork(self) -> None:
        """Renew what another thread of the parent may have held."""
        self.slow.after_fork()
