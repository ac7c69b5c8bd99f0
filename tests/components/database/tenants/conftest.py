"""What tests of tenants need: applications whose tenants live on a real PostgreSQL."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any, TypeAlias

import pytest
from flask import Flask, request
from sqlalchemy import create_engine, text
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from flask_prod import ProdKit
from tests.apps import MakeApp
from tests.servers import Postgres

NAMES = ("acme", "globex", "in-itech")


class Base(DeclarativeBase):
    """The tables of each tenant."""


class Item(Base):
    """A row that says whose it is."""

    __tablename__ = "item"
    id: Mapped[int] = mapped_column(primary_key=True)
    owner: Mapped[str]


@dataclass
class Shop:
    """An application with tenants."""

    app: Flask
    prod: ProdKit

    def stock(self, *names: str, rows: int = 3) -> Shop:
        """Make the table of each tenant, with rows that say whose they are."""
        with self.app.app_context():
            for name in names:
                Base.metadata.create_all(self.prod.db.tenant(name).engine)
                session = self.prod.db.tenant(name).session
                session.add_all(Item(owner=name) for _ in range(rows))
                session.commit()
        return self


Open: TypeAlias = Callable[..., Shop]


def by_header(prod: ProdKit) -> None:
    """Let the header X-Tenant name the tenant of a request."""

    @prod.db.tenant_of_request
    def name_of() -> str | None:
        return request.headers.get("X-Tenant")


@pytest.fixture(scope="session")
def schemas_url(shared_postgres: Postgres) -> Iterator[str]:
    """Give the address of a database with a schema for each tenant, and a table in `public`."""
    made = [f'CREATE SCHEMA "tenant_{name}"' for name in NAMES]
    made += ["CREATE TABLE item (id serial PRIMARY KEY, owner text)", "INSERT INTO item (owner) VALUES ('public')"]
    with shared_postgres.database() as url:
        run(url, *made)
        yield url


@pytest.fixture(scope="session")
def databases(shared_postgres: Postgres) -> Iterator[Mapping[str, str]]:
    """Give the address of each tenant's database."""
    with ExitStack() as stack:
        yield {name: stack.enter_context(shared_postgres.database()) for name in NAMES}


@pytest.fixture
def with_schemas(make_app: MakeApp, schemas_url: str) -> Open:
    """Give a factory of applications whose tenants have schemas."""
    run(schemas_url, *(f'DROP TABLE IF EXISTS "tenant_{name}".item' for name in NAMES))

    def make(**config: Any) -> Shop:
        prod = ProdKit(only=config.pop("only", ["database"]))
        settings = {"DATABASE_URL": schemas_url, "DATABASE_TENANTS": "schema", **config}
        return Shop(make_app(kit=prod, **settings), prod)

    return make


@pytest.fixture
def with_databases(make_app: MakeApp, databases: Mapping[str, str]) -> Open:
    """Give a factory of applications whose tenants have databases."""
    for url in databases.values():
        run(url, "DROP TABLE IF EXISTS item")

    def make(**config: Any) -> Shop:
        prod = ProdKit(only=config.pop("only", ["database"]))
        prod.db.tenant_url(databases.get)
        settings = {"DATABASE_URL": "sqlite://", "DATABASE_TENANTS": "database", **config}
        return Shop(make_app(kit=prod, **settings), prod)

    return make


def run(url: str, *statements: str) -> None:
    """Run statements, each in a transaction of its own."""
    engine = create_engine(url, isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        for statement in statements:
            connection.execute(text(statement))
    engine.dispose()
