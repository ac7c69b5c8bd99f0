"""Build an engine with the defaults that production needs; knows nothing of Flask."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from sqlalchemy import URL, Engine, create_engine, exc, make_url
from sqlalchemy.pool import StaticPool

from flask_prod.core.errors import ConfigError, MissingExtra

from . import dialects, sqlite
from .dialects import connect_args
from .pools.adaptive import AdaptivePool
from .settings import DatabaseSettings

POOL_TIMEOUT = 1.5
"""Seconds that a request waits for a connection; TRUST: refused within 2 s rather than queued."""

_ALIASES = {"postgres": "postgresql", "mysql": "mysql+pymysql", "mariadb": "mariadb+pymysql"}
"""What people write, and what SQLAlchemy or our extras call it."""

_EXTRAS = {"psycopg": "postgres", "pymysql": "mysql"}


def parse_url(text: str, key: str = "DATABASE_URL") -> URL:
    """Return *text* as an address; ConfigError when it is none, without showing it: it may hold a password."""
    try:
        url = make_url(text.strip())
    except (exc.ArgumentError, ValueError):
        raise ConfigError(
            [f"{key} must be an address such as postgresql://user:password@host:5432/name or sqlite:////path."]
        ) from None
    return url.set(drivername=_ALIASES.get(url.drivername, url.drivername))


def default_url(folder: str, service: str) -> URL:
    """Return the address of the SQLite file that is used where no DATABASE_URL is set."""
    return URL.create("sqlite", database=str(Path(folder) / f"{service}.db"))


def build_engine(url: URL, settings: DatabaseSettings, name: str, **given: Any) -> Engine:
    """Return an engine that has not connected yet; *name* is what the server shows as the client's name.

    What is *given* goes to `create_engine` and wins over the settings; `connect_args` are added to ours.
    MissingExtra when the driver of PostgreSQL or MySQL is not installed, ConfigError when another one is not.
    """
    dialects.refuse_unknown_tls(url, settings)
    options = _dialect_options(url, settings, name)
    if options.get("poolclass") is not StaticPool:
        options |= pool_options(settings)
    arguments = {**options.pop("connect_args", {}), **given.pop("connect_args", {})}
    options |= {"pool_pre_ping": True, "hide_parameters": True, "connect_args": arguments, **given}
    try:
        engine = create_engine(url, **options)
    except exc.NoSuchModuleError:
        raise ConfigError([f"DATABASE_URL names {url.drivername}, which SQLAlchemy does not know."]) from None
    except ImportError as error:
        raise _missing(url, error) from error

    if url.get_backend_name() == "sqlite":
        sqlite.prepare(engine)
    dialects.prepare(engine, settings)
    return engine


def create_folder(url: URL) -> None:
    """Make the folder of an SQLite file; ConfigError when the file could not be written there."""
    if url.get_backend_name() != "sqlite" or not sqlite.is_file(url):
        return
    path = sqlite.path_of(url)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError([_unwritable(path, error.strerror or "no folder")]) from error

    target = path if path.exists() else path.parent
    if not os.access(target, os.W_OK):
        raise ConfigError([_unwritable(path, f"{target} is read-only")])


def _unwritable(path: Path, why: str) -> str:
    return f"The SQLite file {path} cannot be written ({why}): set DATABASE_URL to a place that can."


def pool_options(settings: DatabaseSettings) -> dict[str, Any]:
    """Return what `create_engine` is told of the pool."""
    kept = min(settings.max_idle_conns, settings.max_open_conns)
    return {
        "poolclass": AdaptivePool,
        "pool_size": kept,
        "max_overflow": settings.max_open_conns - kept,
        "pool_timeout": POOL_TIMEOUT,
        "pool_recycle": int(settings.conn_max_lifetime) or -1,
        "idle_time": settings.conn_max_idle_time,
    }


def _dialect_options(url: URL, settings: DatabaseSettings, name: str) -> dict[str, Any]:
    if url.get_backend_name() == "sqlite":
        return sqlite.options(url)
    return {"connect_args": connect_args(url, settings, name)}


def _missing(url: URL, error: ImportError) -> ConfigError:
    driver = url.get_driver_name()
    extra = _EXTRAS.get(driver)
    if extra is None:
        return ConfigError([f"DATABASE_URL names {url.drivername}, but its driver is not installed: {error}."])
    return MissingExtra("database", driver, extra)
