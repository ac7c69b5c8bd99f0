"""What tests of tenants need: applications whose tenants live on a real PostgreSQL."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any, TypeAlias

import pytest
from flask import Flask, request
from sqlalchemy import Engine, create_engine, make_url, text
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


@pytest.fixture
def with_schemas(make_app: MakeApp, postgres_url: str) -> Open:
    """Give a factory of applications whose tenants have schemas."""
    owner = create_engine(postgres_url, isolation_level="AUTOCOMMIT")
    with owner.connect() as connection:
        for name in NAMES:
            connection.execute(text(f'CREATE SCHEMA "tenant_{name}"'))
        connection.execute(text("CREATE TABLE item (id serial PRIMARY KEY, owner text)"))
        connection.execute(text("INSERT INTO item (owner) VALUES ('public')"))
    owner.dispose()

    def make(**config: Any) -> Shop:
        prod = ProdKit(only=["database"])
        settings = {"DATABASE_URL": postgres_url, "DATABASE_TENANTS": "schema", **config}
        return Shop(make_app(kit=prod, **settings), prod)

    return make


@pytest.fixture
def with_databases(make_app: MakeApp, shared_postgres: Postgres) -> Iterator[Open]:
    """Give a factory of applications whose tenants have databases."""
    with ExitStack() as stack:
        urls = {name: stack.enter_context(shared_postgres.database()) for name in NAMES}

        def make(**config: Any) -> Shop:
            prod = ProdKit(only=config.pop("only", ["database"]))
            prod.db.tenant_url(lambda name: urls.get(name))
            settings = {"DATABASE_URL": "sqlite://", "DATABASE_TENANTS": "database", **config}
            return Shop(make_app(kit=prod, **settings), prod)

        yield make


def backend_of(engine: Engine) -> str:
    """Return the name of an engine's database."""
    return str(make_url(engine.url).database)
