"""Install the database room."""

from __future__ import annotations

from typing import Any, ClassVar

from flask import Flask
from sqlalchemy import Engine, event

from flask_prod.core.component import Check, Component, Contribution, Installed
from flask_prod.core.errors import ConfigError, ProdKitError
from flask_prod.core.settings import Section

from .answers import translate_errors
from .engine import build_engine, create_folder, default_url, parse_url
from .handle import AppDatabase, DatabaseFace
from .settings import DatabaseSettings
from .spans import trace_statements


class Database(Component[DatabaseSettings, AppDatabase]):
    """Give the application a pool of connections and each of its contexts a session."""

    name: ClassVar[str] = "database"
    settings: ClassVar[type[Section]] = DatabaseSettings

    def face(self) -> DatabaseFace:
        """Build `prod.db`."""
        return DatabaseFace()

    def install(self, app: Flask, settings: DatabaseSettings, kit: Installed) -> Contribution[AppDatabase]:
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
        translate_errors(app, kit.meter.counter("flask_prod_database_refused_total", _REFUSED, ("reason",)))
        return Contribution(
            handle=database,
            checks=(Check("database", database.ping),),
            after_fork=database.after_fork,
            close=database.close,
        )


_REFUSED = "Requests answered 503 or 504 because of the database, by reason: pool, statement, server or locked."


def _create_folder_at_first_use(engine: Engine) -> None:
    """Leave no trace of a database in applications that do not use one."""

    def connect(_dialect: object, _record: object, _args: object, _kwargs: dict[str, Any]) -> None:
        try:
            create_folder(engine.url)
        except ConfigError as error:
            raise ProdKitError(error.problems[0]) from error

    event.listen(engine, "do_connect", connect)
