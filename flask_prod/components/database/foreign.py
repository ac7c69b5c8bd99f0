"""Engines that somebody else made: Flask-SQLAlchemy, Flask-SQLAlchemy-Lite, or an application's own create_engine.

What stands at SQLAlchemy's own default counts as not set, and gets the kit's; all other values are kept.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from flask import Flask
from sqlalchemy import URL, Engine, event
from sqlalchemy.pool import QueuePool

from . import dialects, sqlite
from .dialects import connect_args
from .engine import pool_options
from .pools.adaptive import AdaptivePool
from .settings import DatabaseSettings

_SIZE, _OVERFLOW, _TIMEOUT, _RECYCLE = 5, 10, 30.0, -1
"""What create_engine takes where nothing is said."""


def give_address(app: Flask, url: URL) -> None:
    """Let Flask-SQLAlchemy and its Lite, initialised later, find DATABASE_URL where the user set no address."""
    if sqlite.is_file_of(url):
        url = url.set(database=str(Path(url.database or "").absolute()))  # theirs would lie in the instance folder
    if "flask_sqlalchemy" in sys.modules and not app.config.get("SQLALCHEMY_BINDS"):
        app.config["SQLALCHEMY_DATABASE_URI"] = app.config.get("SQLALCHEMY_DATABASE_URI") or url
    if "flask_sqlalchemy_lite" in sys.modules and not app.config.get("SQLALCHEMY_ASYNC_ENGINES"):
        app.config["SQLALCHEMY_ENGINES"] = app.config.get("SQLALCHEMY_ENGINES") or {"default": url}


def engines_of(app: Flask) -> dict[str | None, Engine]:
    """Return the engines of the Flask-SQLAlchemy or Flask-SQLAlchemy-Lite of *app* by their names there.

    Their own `engines` needs a context of the application, at the end of which its functions are called:
    in a forked child one of these may wait for ever, for a thread of the parent.
    """
    extension = app.extensions.get("sqlalchemy")
    engines: dict[Flask, dict[str | None, Engine]] = getattr(extension, "_app_engines", {})
    states: dict[Flask, Any] = getattr(extension, "_app_state", {})
    found = engines.get(app) or getattr(states.get(app), "engines", {})
    return {name: engine for name, engine in found.items() if isinstance(engine, Engine)}


def take_over(engine: Engine, settings: DatabaseSettings, name: str) -> None:
    """Give an engine the pool, the time limits and the name that one of ours has, where its owner set none."""
    engine.hide_parameters = True
    pool = engine.pool
    if type(pool) is QueuePool:
        engine.pool = _adaptive(pool, pool_options(settings))
        pool.dispose()
    arguments = connect_args(engine.url, settings, name)

    def connect(_dialect: object, _record: object, _args: object, given: dict[str, Any]) -> None:
        for key, value in arguments.items():
            given.setdefault(key, value)

    if engine.dialect.name != "sqlite":
        event.listen(engine, "do_connect", connect)
        dialects.prepare(engine, settings)


def _adaptive(pool: QueuePool, ours: dict[str, Any]) -> AdaptivePool:
    size, overflow = pool.size(), pool._max_overflow
    if (size, overflow) == (_SIZE, _OVERFLOW):
        size, overflow = ours["pool_size"], ours["max_overflow"]
    return AdaptivePool(
        pool._creator,
        pool_size=size,
        max_overflow=overflow,
        idle_time=ours["idle_time"],
        timeout=ours["pool_timeout"] if pool.timeout() == _TIMEOUT else pool.timeout(),
        recycle=ours["pool_recycle"] if pool._recycle == _RECYCLE else pool._recycle,
        pre_ping=True,
        echo=pool.echo,
        logging_name=pool._orig_logging_name,
        reset_on_return=pool._reset_on_return,
        _dispatch=pool.dispatch,
        dialect=pool._dialect,
    )
