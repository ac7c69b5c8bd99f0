"""Build the database of one application: engine, sessions, and answers to its errors."""

from __future__ import annotations

from typing import Any

from flask import Flask
from sqlalchemy import Engine, event

from flask_prod.core.component import Installed
from flask_prod.core.errors import ConfigError, ProdKitError
from flask_prod.core.ports import CounterPort

from .answers import translate_errors
from .engine import build_engine, create_folder, default_url, parse_url
from .handle import AppDatabase
from .settings import DatabaseSettings
from .spans import trace_statements


def build_database(app: Flask, settings: DatabaseSettings, kit: Installed, refused: CounterPort) -> AppDatabase:
    """Build the engine without connecting: a database that is down now does not prevent the start."""
    chosen = bool(settings.url)
    service = kit.service.service_name
    url = parse_url(settings.url.reveal()) if chosen else default_url(app.instance_path, service)
    if chosen:
        create_folder(url)

    engine = build_engine(url, settings, service)
    if not chosen:
        _create_folder_at_first_use(engine)
    database = AppDatabase(engine, chosen=chosen)
    trace_statements(engine, kit.tracer)
    cache = kit.handle("cache")
    if cache is not None:
        cache.follow(engine, database.session_factory)
    translate_errors(app, refused)
    return database


def _create_folder_at_first_use(engine: Engine) -> None:
    """Leave no trace of a database in applications that do not use one."""

    def connect(_dialect: object, _record: object, _args: object, _kwargs: dict[str, Any]) -> None:
        try:
            create_folder(engine.url)
        except ConfigError as error:
            raise ProdKitError(error.problems[0]) from error

    event.listen(engine, "do_connect", connect)
