"""Build the database of one application: engine, sessions, and answers to its errors."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from flask import Flask
from sqlalchemy import URL, Engine, event
from sqlalchemy.orm import Session, sessionmaker

from flask_prod.core.component import Installed
from flask_prod.core.errors import ConfigError, ProdKitError

from .answers import translate_errors
from .engine import create_folder, default_url, parse_url
from .engines import PRIMARY, Engines, Equip
from .foreign import engines_of, give_address
from .handle import AppDatabase
from .parts import Parts
from .pools.opening import opening
from .pools.watch import Pools
from .queries.measure import measure
from .queries.telemetry import Telemetry
from .settings import DatabaseSettings
from .tenants.build import build_tenants


def build_database(app: Flask, settings: DatabaseSettings, kit: Installed, parts: Parts) -> AppDatabase:
    """Build the engine without connecting: a database that is down now does not prevent the start."""
    chosen = bool(settings.url)
    service = kit.service.service_name
    url = parse_url(settings.url.reveal()) if chosen else default_url(app.instance_path, service)
    if chosen:
        create_folder(url)

    sessions = _sessions(settings)
    pools = Pools(parts.pools, kit.emit)
    equipment = [pools.equip, *_equipment(kit, sessions, parts.telemetry)]
    engines = Engines(settings, service, equipment, lambda: engines_of(app))
    theirs = _shared(app, url if chosen else None)
    engine = engines.open(url, PRIMARY) if theirs is None else engines.adopt(theirs, PRIMARY)
    if theirs is None and chosen:
        give_address(app, url)
    chosen = chosen or theirs is not None
    if not chosen:
        _create_folder_at_first_use(engine)
    sessions.configure(bind=engine)
    translate_errors(app, parts.refused)
    database = AppDatabase(engine, engines, sessions, chosen=chosen)
    if settings.replica_urls:
        from .replicas.replication import Replication

        database.replication = Replication(app, settings, kit, database)
    database.pools = pools
    database.opening = opening(app, settings, kit, engine)
    if database.opening is not None and database.replication is not None:
        database.opening.replicas = [one.engine for one in database.replication.replicas]
    database.tenants = build_tenants(kit, settings, parts, database)
    return database


def _shared(app: Flask, url: URL | None) -> Engine | None:
    """Return the default engine of a Flask-SQLAlchemy or its Lite that was there first: one database, one pool."""
    found = engines_of(app)
    theirs = found.get(None) or found.get("default")
    return theirs if theirs is not None and url in (None, theirs.url) else None


def _sessions(settings: DatabaseSettings) -> sessionmaker[Session]:
    """Return what makes sessions; an application without replicas does not even read what they need."""
    if not settings.replica_urls:
        return sessionmaker()
    from .replicas.session import RoutingSession

    return sessionmaker(class_=RoutingSession)


def _equipment(kit: Installed, sessions: sessionmaker[Session], telemetry: Telemetry) -> Iterator[Equip]:
    """Yield what every engine of the application gets, whoever made it."""
    yield lambda engine, role: measure(engine, role, telemetry)
    cache = kit.handle("cache")
    if cache is not None:
        yield lambda engine, role: cache.follow(engine, sessions)


def _create_folder_at_first_use(engine: Engine) -> None:
    """Leave no trace of a database in applications that do not use one."""

    def connect(_dialect: object, _record: object, _args: object, _kwargs: dict[str, Any]) -> None:
        try:
            create_folder(engine.url)
        except ConfigError as error:
            raise ProdKitError(error.problems[0]) from error

    event.listen(engine, "do_connect", connect)
