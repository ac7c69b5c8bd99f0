"""A primary and a streaming replica for all tests of reads and writes, and a shop that uses both."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from time import monotonic
from typing import Any, TypeAlias

import pytest
from flask import Flask
from sqlalchemy import ForeignKey, Integer, func, select
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column, relationship

from flask_prod import ProdKit
from flask_prod.components.database import AppDatabase
from flask_prod.components.database.replicas.engine import Replica as KnownReplica
from flask_prod.components.database.replicas.replication import Replication
from tests.apps import MakeApp
from tests.postgres import Replica, ask, streaming
from tests.servers import HOST, FaultProxy, Postgres, wait_for

ADDRESS = f"postgresql+psycopg://postgres@{HOST}:{{}}/postgres"
PORT = func.inet_server_port(type_=Integer)
"""Tells which server answers."""


class Base(DeclarativeBase):
    """What the tests store."""


class Shelf(Base):
    """A place for products."""

    __tablename__ = "shelves"
    id: Mapped[int] = mapped_column(primary_key=True)
    products: Mapped[list[Product]] = relationship(order_by="Product.id")


class Product(Base):
    """Something to sell."""

    __tablename__ = "products"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str]
    stock: Mapped[int]
    shelf_id: Mapped[int] = mapped_column(ForeignKey(Shelf.id))
    shelf: Mapped[Shelf] = relationship(overlaps="products")


TABLES = """
DROP TABLE IF EXISTS products, shelves, numbers;
CREATE TABLE shelves (id serial PRIMARY KEY);
CREATE TABLE products (id serial PRIMARY KEY, name text, stock int, shelf_id int REFERENCES shelves);
CREATE TABLE numbers (number int);
INSERT INTO shelves DEFAULT VALUES;
INSERT INTO products (name, stock, shelf_id) SELECT 'product ' || i, 10, 1 FROM generate_series(1, 3) i
"""


@dataclass(frozen=True)
class Pair:
    """The two servers, and the lines by which an application reaches them: `refuse` is what kill -9 looks like."""

    primary: Postgres
    replica: Replica
    to_primary: FaultProxy
    to_replica: FaultProxy

    @property
    def config(self) -> dict[str, Any]:
        """The settings of an application that uses both."""
        return {
            "DATABASE_URL": ADDRESS.format(self.to_primary.port),
            "DATABASE_REPLICA_URLS": [ADDRESS.format(self.to_replica.port)],
            "SECRET_KEY": "a key of the tests",
        }


@dataclass(frozen=True)
class Shop:
    """An application with both."""

    app: Flask
    prod: ProdKit
    pair: Pair

    @property
    def database(self) -> AppDatabase:
        """The database room's handle."""
        handle: AppDatabase = self.app.extensions["prod"].contributions["database"].handle
        return handle

    @property
    def replication(self) -> Replication:
        """What knows the replicas."""
        found = self.database.replication
        if found is None:
            raise RuntimeError("no replicas")
        return found

    @property
    def known(self) -> KnownReplica:
        """The replica as this process sees it."""
        return self.replication.replicas[0]

    def ready(self) -> Shop:
        """Return once the replica takes reads and is known to have all that was written."""
        self.pair.replica.catch_up()
        self.replication.start()
        wanted = int(ask(self.pair.replica, "SELECT pg_wal_lsn_diff(pg_last_wal_replay_lsn(), '0/0')"))
        wait_for(
            lambda: (self.known.position or 0) >= wanted and self.known.is_in(monotonic()),
            5,
            "the replica's return",
        )
        return self

    def server(self, session: Session | None = None, **options: Any) -> str:
        """Return who answers a query of the current session."""
        session = self.prod.db.session if session is None else session
        found = session.scalar(select(PORT).execution_options(**options))
        return {self.pair.primary.port: "primary", self.pair.replica.port: "replica"}[found or 0]


MakeReplicated: TypeAlias = Callable[..., Shop]


@pytest.fixture(scope="session", autouse=True)
def both_servers() -> Iterator[Pair]:
    """Run both for all tests of this folder."""
    with (
        streaming() as (primary, replica),
        FaultProxy(primary.port) as to_primary,
        FaultProxy(replica.port) as to_replica,
    ):
        yield Pair(primary, replica, to_primary, to_replica)


@pytest.fixture
def pair(both_servers: Pair) -> Iterator[Pair]:
    """Give both with fresh tables, in step."""
    both_servers.primary.execute(TABLES)
    yield both_servers
    both_servers.to_primary.set("pass")
    both_servers.to_replica.set("pass")
    both_servers.replica.go_on()
    both_servers.replica.delay(0)


@pytest.fixture
def make_shop(make_app: MakeApp, pair: Pair) -> MakeReplicated:
    """Give a factory of shops whose replica is in the rotation."""

    def make(*rooms: str, **config: Any) -> Shop:
        prod = ProdKit(only=["database", *rooms])
        app = make_app(kit=prod, **{**pair.config, **config})
        return Shop(app, prod, pair).ready()

    return make


@pytest.fixture
def shop(make_shop: MakeReplicated) -> Iterator[Shop]:
    """Give a shop, within an application context."""
    made = make_shop()
    with made.app.app_context():
        yield made
