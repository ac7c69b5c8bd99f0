"""Install the database room."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, ClassVar

from flask import Flask

from flask_prod.core.component import Check, Component, Contribution, Finding, Installed
from flask_prod.core.later import Later
from flask_prod.core.settings import Section

from .queries.telemetry import Telemetry
from .settings import DatabaseSettings

if TYPE_CHECKING:
    from .handle import AppDatabase, DatabaseFace

_REFUSED = "Requests answered 503 or 504 because of the database, by reason: pool, statement, server or locked."


class Database(Component[DatabaseSettings, "AppDatabase | Later"]):
    """Give the application a pool of connections and each of its contexts a session.

    SQLAlchemy is a third of all that a kit could import: an application that neither names a database nor imports
    the library is spared it.
    """

    name: ClassVar[str] = "database"
    settings: ClassVar[type[Section]] = DatabaseSettings

    def face(self) -> DatabaseFace:
        """Build `prod.db`."""
        from .handle import DatabaseFace

        return DatabaseFace()

    def install(self, app: Flask, settings: DatabaseSettings, kit: Installed) -> Contribution[AppDatabase | Later]:
        """Build the engine now if there is a use for it, else with the first use."""
        refused = kit.meter.counter("flask_prod_database_refused_total", _REFUSED, ("reason",))
        telemetry = Telemetry(kit, settings.slow_query)
        observe = telemetry.repeats.observe if telemetry.repeats is not None else None

        def build() -> AppDatabase:
            from .build import build_database

            return build_database(app, settings, kit, refused, telemetry)

        if settings.url or "sqlalchemy" in sys.modules:
            database = build()
            return Contribution(
                handle=database,
                checks=(Check("database", database.ping),),
                observe=observe,
                after_fork=lambda: _after_fork(telemetry, database),
                close=database.close,
            )
        later = Later(build)
        return Contribution(
            handle=later,
            checks=(Check("database", lambda: _look(later)),),
            observe=observe,
            start=lambda: _build_if_used(later),
            after_fork=lambda: _after_fork(telemetry, later),
            close=later.close,
        )


def _after_fork(telemetry: Telemetry, database: AppDatabase | Later) -> None:
    telemetry.after_fork()
    database.after_fork()


def _look(later: Later) -> Finding | None:
    if later.built is None:
        return Finding(detail="not used: DATABASE_URL is not set and nothing was stored")
    finding: Finding | None = later.ping()
    return finding


def _build_if_used(later: Later) -> None:
    """Spare the first request the work, where the application has imported the library by now."""
    if "sqlalchemy" in sys.modules:
        later.build()
