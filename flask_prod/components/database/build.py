"""Build the database of one application: engine, sessions, and answers to its errors."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from flask import Flask
from sqlalchemy import Engine, event
from sqlalchemy.orm import Session, sessionmaker

from flask_prod.core.component import Installed
from flask_prod.core.errors import ConfigError, ProdKitError
from flask_prod.core.ports import CounterPort

from .answers import translate_errors
from .engine import create_folder, default_url, parse_url
from .engines import PRIMARY, Engines, Equip
from .handle import AppDatabase
from .queries.measure import measure
from .queries.telemetry import Telemetry
from .settings import DatabaseSettings


def build_database(
    app: Flask, settings: DatabaseSettings, kit: Installed, refused: CounterPort, telemetry: Telemetry
) -> AppDatabase:
    """Build the engine without connecting: a database that is down now does not prevent the start."""
    chosen = bool(settings.url)
    service = kit.service.service_name
    url = parse_url(settings.url.reveal()) if chosen else default_url(app.instance_path, service)
    if chosen:
        create_folder(url)

    sessions: sessionmaker[Session] = sessionmaker()
    engines = Engines(settings, service, list(_equipment(kit, sessions, telemetry)))
    engine = engines.open(url, PRIMARY)
    if not chosen:
        _create_folder_at_first_use(engine)
    sessions.configure(bind=engine)
    translate_errors(app, refused)
    return AppDatabase(engine, engines, sessions, chosen=chosen)


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
