"""Install the database room."""

from __future__ import annotations

import sys
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar

from flask import Flask

from flask_prod.core.component import Check, Component, Contribution, Finding, Installed, Periodic, Stage, Step
from flask_prod.core.gate import Gate
from flask_prod.core.later import Later
from flask_prod.core.settings import Section

from .parts import Parts
from .pools.instruments import Instruments
from .pools.views import EVERY, PATH, PoolPage
from .queries.telemetry import Telemetry
from .settings import DatabaseSettings
from .tenants.names import TenantRules

if TYPE_CHECKING:
    from .handle import AppDatabase, DatabaseFace

_TENANT_POOLS = "Tenants whose pool is open in one process; DATABASE_TENANT_POOLS is the most"
_REFUSED = "Requests answered 503 or 504 because of the database: pool, statement, server, locked or readonly."


class Database(Component[DatabaseSettings, "AppDatabase | Later"]):
    """Give the application a pool of connections and each of its contexts a session.

    SQLAlchemy is a third of all that a kit could import: an application that neither names a database nor imports
    the library is spared it.
    """

    name: ClassVar[str] = "database"
    settings: ClassVar[type[Section]] = DatabaseSettings

    def __init__(self) -> None:
        self._rules = TenantRules()

    def face(self) -> DatabaseFace:
        """Build `prod.db`."""
        from .handle import DatabaseFace

        return DatabaseFace(self._rules)

    def install(self, app: Flask, settings: DatabaseSettings, kit: Installed) -> Contribution[AppDatabase | Later]:
        """Build the engine now if there is a use for it, else with the first use."""
        refused = kit.meter.counter("flask_prod_database_refused_total", _REFUSED, ("reason",))
        telemetry = Telemetry(kit, settings.slow_query)
        parts = Parts(refused, telemetry, Instruments.of(kit.meter), self._rules)
        if settings.tenants == "database":
            gauge = kit.meter.gauge("flask_prod_database_tenant_pools", _TENANT_POOLS)
            parts = parts._replace(tenant_pools=gauge)
        observe = telemetry.repeats.observe if telemetry.repeats is not None else None

        def build() -> AppDatabase:
            from .build import build_database

            return build_database(app, settings, kit, parts)

        later = Later(build)
        if settings.url or "sqlalchemy" in sys.modules:
            later.build()
        else:
            _build_at_first_error(app, later)
        gate = Gate("OPS_TOKEN", kit.service.ops_token, kit.emit)
        page = PoolPage(gate, lambda: later.page() if later.built is not None else {"pools": []})
        replicas = later.built.replication if later.built is not None else None
        return Contribution(
            handle=later.built or later,
            headers=replicas.stickiness.tell if replicas is not None else None,
            steps=(Step(Stage.IDENTITY, page.ask, PATH),) if kit.service.ops_token else (),
            operational=(PATH,) if kit.service.ops_token else (),
            checks=(Check("database", lambda: _look(later)), *(replicas.checks() if replicas is not None else ())),
            observe=observe,
            reload=lambda changed: partial(telemetry.slow.adopt, changed.slow_query),
            start=lambda: _begin(later),
            periodic=(Periodic("database pools", EVERY, lambda: _tend(later)),),
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


def _begin(later: Later) -> None:
    """Spare the first request the work, where the application has imported the library by now."""
    if "sqlalchemy" in sys.modules:
        later.build().start()


def _tend(later: Later) -> None:
    if later.built is not None:
        later.tend()


def _build_at_first_error(app: Flask, later: Later) -> None:
    """Answer errors of an application's own engine too, whose library comes with the first request."""
    handle = app.handle_user_exception

    def build_and_handle(error: Exception) -> Any:
        if later.built is None and "sqlalchemy" in sys.modules:
            later.build().start()
        return handle(error)

    app.handle_user_exception = build_and_handle  # type: ignore
