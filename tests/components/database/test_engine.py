"""Addresses, drivers, pools and pragmas."""

from __future__ import annotations

import builtins
import os
from pathlib import Path
from typing import Any, cast

import pytest
from sqlalchemy import make_url, text
from sqlalchemy.pool import QueuePool

from flask_prod import ConfigError, MissingExtra
from flask_prod.components.database import DatabaseSettings, build_engine
from flask_prod.components.database.engine import create_folder, parse_url
from flask_prod.core.values import SecretUrl


def settings(**values: Any) -> DatabaseSettings:
    return DatabaseSettings(**values)


@pytest.mark.parametrize(
    ("typed", "driver"),
    [
        ("postgresql://shop@db/shop", "psycopg"),
        ("postgres://shop@db/shop", "psycopg"),
        ("mysql://shop@db/shop", "pymysql"),
        ("sqlite:///shop.db", "pysqlite"),
    ],
)
def test_drivers(typed: str, driver: str) -> None:
    """The addresses that hosting companies hand out lead to the drivers of our extras."""
    assert parse_url(typed).get_driver_name() == driver


def test_nonsense_address_is_refused_without_showing_it() -> None:
    """An address that cannot be read may be a password in the wrong variable."""
    with pytest.raises(ConfigError) as caught:
        parse_url("hunter2-canary")

    assert "DATABASE_URL" in str(caught.value)
    assert "canary" not in str(caught.value)


@pytest.mark.parametrize(
    ("url", "driver", "extra"),
    [("postgresql://db/shop", "psycopg", "postgres"), ("mysql://db/shop", "pymysql", "mysql")],
)
def test_missing_driver_names_the_pip_command(
    monkeypatch: pytest.MonkeyPatch, url: str, driver: str, extra: str
) -> None:
    """Without its driver a database is refused with the command that installs it."""
    real_import = builtins.__import__

    def without_driver(name: str, *args: Any, **kwargs: Any) -> Any:
        relative = len(args) > 3 and args[3]  # SQLAlchemy has modules that are called as the drivers
        if name.split(".")[0] == driver and not relative:
            raise ImportError(f"No module named {driver!r}")
        return real_import(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without_driver)

    with pytest.raises(MissingExtra, match=rf"pip install 'flask-prod\[{extra}\]'"):
        build_engine(parse_url(url), settings(), "shop")


@pytest.mark.parametrize("url", ["nosuchdatabase://db/shop", "postgresql+psycopg2://db/shop"])
def test_unknown_database_and_driver(url: str) -> None:
    """A dialect or a driver that is not there is a problem of configuration, said as one."""
    with pytest.raises(ConfigError, match="DATABASE_URL names"):
        build_engine(parse_url(url), settings(), "shop")


def test_pool_follows_the_settings() -> None:
    """Open and idle limits become size and overflow; an idle limit above the open one means all."""
    url = parse_url("postgresql://db/shop")

    usual = cast(QueuePool, build_engine(url, settings(max_open_conns=10, max_idle_conns=4), "shop").pool)
    small = cast(QueuePool, build_engine(url, settings(max_open_conns=2, max_idle_conns=8), "shop").pool)

    assert (usual.size(), usual._max_overflow) == (4, 6)
    assert (small.size(), small._max_overflow) == (2, 0)


def test_sqlite_is_set_up_for_several_threads(tmp_path: Path) -> None:
    """Every connection has WAL, a busy time-out and foreign keys."""
    engine = build_engine(make_url(f"sqlite:///{tmp_path}/shop.db"), settings(), "shop")

    with engine.connect() as connection:
        found = {
            name: connection.execute(text(f"PRAGMA {name}")).scalar()
            for name in ("journal_mode", "busy_timeout", "foreign_keys", "synchronous")
        }
    engine.dispose()

    assert found == {"journal_mode": "wal", "busy_timeout": 5000, "foreign_keys": 1, "synchronous": 1}


def test_memory_database_is_one_for_all_connections() -> None:
    """Tests may use a database in memory: what one connection writes, the next one reads."""
    engine = build_engine(make_url("sqlite://"), settings(), "shop")

    with engine.begin() as connection:
        connection.execute(text("CREATE TABLE t (n INTEGER)"))
        connection.execute(text("INSERT INTO t VALUES (1)"))
    with engine.connect() as connection:
        found = connection.execute(text("SELECT n FROM t")).scalar()
    engine.dispose()

    assert found == 1


def test_connection_idle_for_too_long_is_replaced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A connection past its idle time is not used again."""
    engine = build_engine(make_url(f"sqlite:///{tmp_path}/shop.db"), settings(conn_max_idle_time=60.0), "shop")

    def used() -> Any:
        with engine.connect() as connection:
            return connection.connection.dbapi_connection

    first = used()
    kept = used()
    monkeypatch.setattr("flask_prod.components.database.pools.adaptive.monotonic", lambda: 1e12)
    replaced = used()
    engine.dispose()

    assert first is kept
    assert replaced is not first


def test_postgres_knows_the_service_and_the_limit(postgres_url: str) -> None:
    """The server sees the service's name and ends statements after the configured time."""
    url = parse_url(postgres_url)
    engine = build_engine(url, settings(url=SecretUrl(postgres_url), statement_timeout=1.5), "shop")

    with engine.connect() as connection:
        name = connection.execute(text("SHOW application_name")).scalar()
        limit = connection.execute(text("SHOW statement_timeout")).scalar()
    engine.dispose()

    assert (name, limit) == ("shop", "1500ms")


def test_what_the_address_says_wins(postgres_url: str) -> None:
    """Parameters in the address are kept, and only what is missing is added."""
    separator = "&" if "?" in postgres_url else "?"
    url = parse_url(f"{postgres_url}{separator}application_name=mine&options=-c%20work_mem%3D5MB")
    engine = build_engine(url, settings(statement_timeout=2.0), "shop")

    with engine.connect() as connection:
        found = [
            connection.execute(text(f"SHOW {name}")).scalar()
            for name in ("application_name", "work_mem", "statement_timeout")
        ]
    engine.dispose()

    assert found == ["mine", "5MB", "2s"]


def test_folder_of_the_file_is_made(tmp_path: Path) -> None:
    """The folder of an SQLite file need not exist."""
    create_folder(make_url(f"sqlite:///{tmp_path}/var/deep/shop.db"))

    assert (tmp_path / "var" / "deep").is_dir()


def test_unwritable_file_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A place that cannot be written is named, together with the setting that changes it."""
    monkeypatch.setattr(os, "access", lambda *_: False)  # root may write anywhere

    with pytest.raises(ConfigError, match=r"shop\.db cannot be written .* set DATABASE_URL"):
        create_folder(make_url(f"sqlite:///{tmp_path}/shop.db"))


def test_file_in_place_of_a_folder_is_refused(tmp_path: Path) -> None:
    """A folder that cannot be made is said at start, not at the first query."""
    (tmp_path / "var").write_text("")

    with pytest.raises(ConfigError, match="cannot be written"):
        create_folder(make_url(f"sqlite:///{tmp_path}/var/shop.db"))
