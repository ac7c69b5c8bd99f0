"""Folders of migrations in the layouts that people have, and applications that use them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeAlias

import alembic
import pytest
from flask import Flask
from sqlalchemy import create_engine, inspect, text

from flask_prod.components.migrations.engine import Migrations
from tests.apps import MakeApp
from tests.mariadb import MariaDB, running
from tests.servers import Postgres

Build: TypeAlias = Callable[..., Migrations]

GENERIC_ENV = Path(alembic.__file__).parent / "templates" / "generic" / "env.py"
"""What `alembic init` writes."""

FIRST = "op.create_table('items', sa.Column('id', sa.Integer, primary_key=True), sa.Column('name', sa.String(20)))"


class Scripts:
    """A folder to which a test adds revisions, one after the other."""

    def __init__(self, folder: Path, versions: Path) -> None:
        self.folder = folder
        self.versions = versions
        self._last: str | None = None
        versions.mkdir(parents=True)

    def add(self, name: str, upgrade: str, downgrade: str = "pass", **changed: Any) -> None:
        """Write one revision; it follows the one before."""
        values = {"revision": name, "down_revision": self._last, **changed}
        head = "\n".join(f"{key} = {value!r}" for key, value in values.items())
        body = f"def upgrade():\n    {upgrade}\n\n\ndef downgrade():\n    {downgrade}\n"
        source = f'"""What {name} does."""\nimport sqlalchemy as sa\nfrom alembic import op\n\n{head}\n\n\n{body}'
        (self.versions / f"{name}.py").write_text(source)
        self._last = name


@pytest.fixture
def scripts(tmp_path: Path) -> Scripts:
    """Give a folder as `alembic init` makes it, with one revision that makes the table items."""
    made = Scripts(tmp_path / "migrations", tmp_path / "migrations" / "versions")
    (made.folder / "env.py").write_text(GENERIC_ENV.read_text())
    made.add("one", FIRST, "op.drop_table('items')")
    return made


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path: Path, shared_postgres: Postgres) -> str:
    """Give the address of an empty database of each kind."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'items.db'}"
    address: str = request.getfixturevalue("postgres_url")
    return address


@pytest.fixture(scope="session")
def mariadb(pytestconfig: pytest.Config) -> Iterator[MariaDB]:
    """Run one MariaDB for all tests that ask for it."""
    with running(pytestconfig) as server:
        yield server


@pytest.fixture
def mariadb_url(mariadb: MariaDB) -> Iterator[str]:
    """Give the address of an empty database on MariaDB."""
    with mariadb.database() as url:
        yield url


@pytest.fixture
def build(make_app: MakeApp) -> Build:
    """Give a factory of `prod.migrations` of an application on a database."""

    def make(url: str, **config: Any) -> Migrations:
        app: Flask = make_app(only=("migrations", "health"), DATABASE_URL=url, **config)
        handle = app.extensions["prod"].contributions["migrations"].handle
        migrations: Migrations = handle.build()
        return migrations

    return make


def query(url: str, statement: str) -> list[Any]:
    """Return the rows of a statement, committed."""
    engine = create_engine(url)
    with engine.begin() as connection:
        result = connection.execute(text(statement))
        rows = [tuple(row) for row in result] if result.returns_rows else []
    engine.dispose()
    return rows


def tables(url: str) -> set[str]:
    """Return the names of all tables."""
    engine = create_engine(url)
    names = set(inspect(engine).get_table_names())
    engine.dispose()
    return names
