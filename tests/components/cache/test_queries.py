"""Results of queries: forgotten after the commit that changed a table, never before, never after a rollback."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from flask import Flask
from sqlalchemy import (
    ForeignKey,
    Numeric,
    String,
    create_engine,
    delete,
    event,
    func,
    insert,
    select,
    text,
    update,
)
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column, relationship

from flask_prod import ProdKit
from tests.apps import MakeApp
from tests.servers import Postgres

from .conftest import Counter


class Base(DeclarativeBase):
    """The tables of these tests."""


class Shelf(Base):
    __tablename__ = "shelves"

    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(String(40))


class Product(Base):
    __tablename__ = "products"

    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(String(40))
    price: Mapped[Decimal] = mapped_column(Numeric(10, 2), default=Decimal("1.50"))
    since: Mapped[date] = mapped_column(default=date(2026, 1, 2))
    shelf_id: Mapped[int | None] = mapped_column(ForeignKey("shelves.id", ondelete="CASCADE"))
    shelf: Mapped[Shelf | None] = relationship(lazy="joined")


class Note(Base):
    __tablename__ = "notes"

    id: Mapped[int] = mapped_column(primary_key=True)
    text: Mapped[str] = mapped_column(String(40))


TABLE = Base.metadata.tables["products"]
NAMES = select(Product.name).order_by(Product.id)


class Shop:
    """An application with a database, a cache, and a count of the SELECTs that reach the database."""

    def __init__(self, app: Flask, prod: ProdKit) -> None:
        self.app, self.prod = app, prod
        self.selects: list[str] = []
        with app.app_context():
            self.engine = prod.db.engine
            Base.metadata.create_all(self.engine)
        event.listen(self.engine, "before_cursor_execute", self._count)

    def _count(self, _connection: Any, _cursor: Any, statement: str, *_: Any) -> None:
        if statement.lstrip().upper().startswith("SELECT"):
            self.selects.append(statement)

    def session(self) -> Session:
        return self.prod.db.session

    def names(self, **options: Any) -> list[str]:
        rows: list[str] = self.prod.cache.query(NAMES, "5m", **options).scalars()
        return rows

    def elsewhere(self) -> list[str]:
        """Return the names as another request sees them: another context, another session."""
        with ThreadPoolExecutor(1) as pool:
            return pool.submit(self._names_there).result(20)

    def _names_there(self) -> list[str]:
        with self.app.app_context():
            return self.names()

    def add(self, name: str) -> None:
        self.session().add(Product(name=name))


@pytest.fixture(scope="session", autouse=True)
def database_first(shared_postgres: Postgres) -> None:
    """Start the shared server before a test counts its processes: fixtures here ask for it while they run."""


@pytest.fixture(params=["sqlite", "postgresql"])
def shop(request: pytest.FixtureRequest, make_app: MakeApp, tmp_path: Path) -> Iterator[Shop]:
    """Give a shop with one product, in a context of the application, on each database."""
    url = f"sqlite:///{tmp_path / 'shop.db'}"
    if request.param == "postgresql":
        url = request.getfixturevalue("postgres_url")
    prod = ProdKit(only=["redis", "cache", "database"])
    shop = Shop(make_app(kit=prod, DATABASE_URL=url), prod)
    with shop.app.app_context():
        shop.add("tea")
        shop.session().commit()
        shop.selects.clear()
        yield shop


def test_query_is_asked_once(shop: Shop) -> None:
    """The second caller has the rows without the database; types come back as they were."""
    query = select(Product.id, Product.name, Product.price, Product.since, func.now().label("at"))

    first, second = (shop.prod.cache.query(query, ttl="5m") for _ in range(2))

    assert first == second
    assert len(shop.selects) == 1
    row = second[0]
    assert (row.name, row.price, row.since) == ("tea", Decimal("1.50"), date(2026, 1, 2))
    assert second.mappings()[0]["name"] == "tea"
    assert second.one() == row == second.first()
    assert second.result().scalars().all() == [row.id]


def test_objects_come_as_columns(shop: Shop) -> None:
    """Objects belong to a session: a query for them gives their columns, without what is joined to load them."""
    for _ in range(2):
        rows = shop.prod.cache.query(select(Product))
        assert rows.names == ("id", "name", "price", "since", "shelf_id")
        assert rows[0].name == "tea"
    assert len(shop.selects) == 1


def test_parameters_tell_queries_apart(shop: Shop) -> None:
    """Equal statements with other values, of other types, or lists of other lengths are other queries."""
    query = shop.prod.cache.query
    for _ in range(2):
        assert query(select(Product.name).where(Product.name == "tea")).scalars() == ["tea"]
        assert query(select(Product.name).where(Product.name == "x")).scalars() == []
        assert query(select(Product.name).where(Product.name.in_(["tea", "x"]))).scalars() == ["tea"]
        assert query(select(Product.name).where(Product.name.in_(["x"]))).scalars() == []
        assert query(NAMES.limit(1)).scalars() == ["tea"]
        assert query(NAMES.limit(0)).scalars() == []
    assert len(shop.selects) == 6


def test_table_of_core(shop: Shop) -> None:
    """Tables without classes give rows as well, under plain names."""
    for _ in range(2):
        rows = shop.prod.cache.query(select(TABLE.c.id, TABLE.c.name))
        assert rows[0].name == "tea"
        assert [type(name) for name in rows.names] == [str, str]
    assert len(shop.selects) == 1


def test_text(shop: Shop) -> None:
    """A query written by hand is kept too; its parameters count."""
    query = text("SELECT name FROM products WHERE name = :name")
    for _ in range(2):
        assert shop.prod.cache.query(query.bindparams(name="tea"), tags=["table:products"]).scalars() == ["tea"]
        assert shop.prod.cache.query(query.bindparams(name="x"), tags=["table:products"]).scalars() == []
    assert len(shop.selects) == 2


def test_forgotten_after_the_commit(shop: Shop) -> None:
    """Others have the old rows until the commit, the new ones from then on."""
    assert shop.elsewhere() == ["tea"]

    shop.add("coffee")
    shop.session().flush()
    assert shop.elsewhere() == ["tea"]
    count = len(shop.selects)
    assert shop.elsewhere() == ["tea"]
    assert len(shop.selects) == count  # not even asked anew
    shop.session().commit()

    assert shop.elsewhere() == ["tea", "coffee"]


def test_not_told_before_the_commit(shop: Shop) -> None:
    """When the tags are invalidated, others can read what was written: the order of the two is no chance."""
    seen: list[list[str]] = []
    backend = shop.app.extensions["prod"].contributions["cache"].handle
    told = backend.invalidate

    def look(*tags: str) -> bool:
        with ThreadPoolExecutor(1) as pool:
            seen.append(pool.submit(self_names, shop).result(20))
        return bool(told(*tags))

    backend.invalidate = look
    shop.add("coffee")
    shop.session().commit()

    assert seen == [["tea", "coffee"]]


def self_names(shop: Shop) -> list[str]:
    with shop.engine.connect() as connection:
        return list(connection.scalars(NAMES))


def test_not_forgotten_after_a_rollback(shop: Shop) -> None:
    """A rollback changes nothing, and costs nobody a query."""
    assert shop.elsewhere() == ["tea"]
    count = len(shop.selects)

    shop.add("coffee")
    shop.session().flush()
    shop.session().rollback()
    shop.session().add(Note(text="x"))
    shop.session().commit()  # by the same connection: nothing of what was rolled back is told now

    assert shop.elsewhere() == ["tea"]
    assert len(shop.selects) == count


@pytest.mark.parametrize("keep", [True, False])
def test_savepoints(shop: Shop, keep: bool) -> None:
    """What a savepoint changed counts if it was kept; what was rolled back with it does not."""
    assert shop.elsewhere() == ["tea"]
    count = len(shop.selects)
    session = shop.session()
    session.add(Note(text="outer"))
    outer = session.begin_nested()
    inner = session.begin_nested()
    shop.add("coffee")
    inner.commit()
    outer.commit() if keep else outer.rollback()
    session.commit()

    assert shop.elsewhere() == (["tea", "coffee"] if keep else ["tea"])
    assert (len(shop.selects) > count) is keep


@pytest.mark.parametrize(
    "change",
    [
        lambda shop: shop.session().execute(update(Product).values(name="green")),
        lambda shop: shop.session().connection().execute(update(TABLE).values(name="green")),
        lambda shop: shop.session().execute(text("/* x */ UPDATE products SET name = 'green'")),
        lambda shop: shop.session().connection().exec_driver_sql("UPDATE products SET name = 'green'"),
        lambda shop: setattr(shop.session().scalars(select(Product)).one(), "name", "green"),
        lambda shop: shop.session().execute(update(Product), [{"id": 1, "name": "green"}]),
    ],
    ids=["orm-dml", "core", "text", "driver", "flush", "bulk"],
)
def test_every_way_to_change(shop: Shop, change: Any) -> None:
    """Whichever way a table is changed, its results are forgotten after the commit."""
    assert shop.elsewhere() == ["tea"]

    change(shop)
    shop.session().commit()

    assert shop.elsewhere() == ["green"]


def test_engine_without_a_session(shop: Shop) -> None:
    """Statements of Core that are committed by themselves, or sent with AUTOCOMMIT, count as well."""
    assert shop.elsewhere() == ["tea"]
    with shop.engine.begin() as connection:
        connection.execute(insert(Product), [{"name": "a"}, {"name": "b"}])
    assert shop.elsewhere() == ["tea", "a", "b"]
    with shop.engine.connect() as connection:
        connection.execute(insert(Product).values(name="never"))
    assert shop.elsewhere() == ["tea", "a", "b"]
    with shop.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(delete(Product).where(Product.name == "a"))
        assert shop.elsewhere() == ["tea", "b"]


def test_what_the_database_changes_itself(shop: Shop) -> None:
    """A delete that cascades in the database forgets the results of the tables it reaches."""
    shelf = Shelf(name="top")
    shop.session().add(Product(name="coffee", shelf=shelf))
    shop.session().commit()
    assert shop.elsewhere() == ["tea", "coffee"]

    shop.session().execute(delete(Shelf).where(Shelf.id == shelf.id))
    shop.session().commit()

    assert shop.elsewhere() == ["tea"]


def test_unknown_statement_forgets_all(shop: Shop) -> None:
    """After a procedure, nobody can tell what has changed."""
    assert shop.elsewhere() == ["tea"]
    count = len(shop.selects)
    backend = shop.app.extensions["prod"].contributions["cache"].handle
    backend.queries.forget({"*"})

    assert shop.elsewhere() == ["tea"]
    assert len(shop.selects) == count + 1


def test_other_tables_do_not_matter(shop: Shop) -> None:
    """A commit that changed another table costs no query."""
    assert shop.elsewhere() == ["tea"]
    count = len(shop.selects)
    shop.session().add(Note(text="x"))
    shop.session().commit()

    assert shop.elsewhere() == ["tea"]
    assert len(shop.selects) == count


def test_joins_and_subqueries(shop: Shop) -> None:
    """All tables of a statement count, also those within EXISTS, subqueries and CTEs."""
    top = select(Shelf.id).where(Shelf.name == "top").cte()
    queries = [
        select(func.count()).select_from(Product).where(Product.shelf.has(Shelf.name == "top")),
        select(func.count()).select_from(Product).join(Product.shelf).where(Shelf.name == "top"),
        select(func.count()).select_from(Product).where(Product.shelf_id.in_(select(top.c.id))),
    ]
    shelf = Shelf(name="low")
    shop.session().add(Product(name="coffee", shelf=shelf))
    shop.session().commit()
    assert [shop.prod.cache.query(query).scalar() for query in queries] == [0, 0, 0]
    shelf.name = "top"
    shop.session().commit()

    assert [shop.prod.cache.query(query).scalar() for query in queries] == [1, 1, 1]


def test_own_changes_are_seen(shop: Shop) -> None:
    """A transaction that changed a table sees its change, and stores nothing of it."""
    assert shop.names() == ["tea"]
    shop.add("coffee")
    assert shop.names() == ["tea", "coffee"]
    shop.session().flush()
    assert shop.names() == ["tea", "coffee"]
    assert shop.elsewhere() == ["tea"]
    shop.session().rollback()

    assert shop.names() == ["tea"]


def test_an_older_snapshot_is_not_stored(shop: Shop) -> None:
    """A transaction that still sees the past asks for itself, and leaves its past to nobody."""
    if shop.engine.dialect.name == "sqlite":
        pytest.skip("readers of SQLite see the latest commit")
    with Session(shop.engine.execution_options(isolation_level="REPEATABLE READ")) as old:
        assert old.scalars(select(Product.name)).all() == ["tea"]
        shop.add("coffee")
        shop.session().commit()
        assert shop.names(session=old) == ["tea"]

    assert shop.elsewhere() == ["tea", "coffee"]


def test_commit_during_the_query(shop: Shop) -> None:
    """Rows that were read before a commit are not stored after it."""
    asked, go_on = threading.Event(), threading.Event()

    def pause(_connection: Any, _cursor: Any, statement: str, *_: Any) -> None:
        if (
            statement.lstrip().upper().startswith("SELECT")
            and threading.current_thread() is not threading.main_thread()
        ):
            asked.set()
            go_on.wait(10)

    event.listen(shop.engine, "after_cursor_execute", pause)
    with ThreadPoolExecutor(1) as pool:
        reader = pool.submit(shop._names_there)
        assert asked.wait(10)
        shop.add("coffee")
        shop.session().commit()
        go_on.set()
        assert reader.result(20) == ["tea"]

    assert shop.elsewhere() == ["tea", "coffee"]


def test_session_option(shop: Shop) -> None:
    """`cache_ttl` among the execution options does the same within a session's own methods."""
    options = {"cache_ttl": "5m", "cache_tags": ["menu"]}
    for _ in range(3):
        assert shop.session().scalars(NAMES, execution_options=options).all() == ["tea"]
        assert shop.session().execute(NAMES.execution_options(**options)).scalar_one() == "tea"
    assert len(shop.selects) == 1

    shop.prod.cache.invalidate("menu")
    assert shop.session().scalars(NAMES, execution_options=options).all() == ["tea"]
    assert len(shop.selects) == 2
    with pytest.raises(TypeError, match="select its columns"):
        shop.session().scalars(select(Product), execution_options=options)


def test_schemas_and_keys_are_tenants(shop: Shop) -> None:
    """Where the tenant is a schema or what the connection knows, results are told apart."""
    query = shop.prod.cache.query
    shop.prod.cache.query(NAMES, key="a")
    shop.prod.cache.query(NAMES, key="b")
    query(NAMES.execution_options(schema_translate_map={None: None}))

    assert len(shop.selects) == 3


def test_schemas_of_a_session_option(shop: Shop) -> None:
    """Schemas named beside `cache_ttl` go with the statement: two tenants never share rows."""
    if shop.engine.dialect.name == "sqlite":
        pytest.skip("SQLite has no schemas of its own")
    with shop.engine.begin() as connection:
        for tenant in ("one", "two"):
            connection.execute(text(f"CREATE SCHEMA {tenant}"))
            connection.execute(text(f"CREATE TABLE {tenant}.products AS SELECT 1 AS id, '{tenant}' AS name"))

    for _ in range(2):
        for tenant in ("one", "two"):
            options = {"cache_ttl": "5m", "schema_translate_map": {None: tenant}}
            assert shop.session().scalars(NAMES, execution_options=options).all() == [tenant]
    assert len(shop.selects) == 2


def test_another_database_of_the_session(shop: Shop, tmp_path: Path) -> None:
    """A database named for one statement is asked, and its rows are its own."""
    other = create_engine(f"sqlite:///{tmp_path / 'other.db'}")
    Base.metadata.create_all(other)
    for _ in range(2):
        found = shop.session().scalars(
            NAMES, execution_options={"cache_ttl": "5m"}, bind_arguments={"bind": other}
        )
        assert found.all() == []
        assert shop.session().scalars(NAMES, execution_options={"cache_ttl": "5m"}).all() == ["tea"]
    shop.session().close()
    other.dispose()


def test_locks_are_taken(shop: Shop) -> None:
    """A query that locks its rows is sent each time."""
    for _ in range(2):
        assert shop.prod.cache.query(NAMES.with_for_update()).scalars() == ["tea"]
    assert len(shop.selects) == 2


@pytest.mark.parametrize(
    "statement",
    [
        delete(Product),
        insert(Product).returning(Product.id),
        text("DELETE FROM products"),
        text("CALL clean_up()"),
    ],
    ids=str,
)
def test_writes_are_no_queries(shop: Shop, statement: Any) -> None:
    """A statement that changes something is refused, and not sent."""
    with pytest.raises(TypeError, match="changes something"):
        shop.prod.cache.query(statement)
    assert shop.names() == ["tea"]


def test_two_databases(make_app: MakeApp, tmp_path: Path, redis_url: str) -> None:
    """Two databases behind one Redis have results of their own."""
    for name in ("a", "b", "a", "b"):
        prod = ProdKit(only=["redis", "cache", "database"])
        url = f"sqlite:///{tmp_path / name}.db"
        shop = Shop(make_app(kit=prod, DATABASE_URL=url, REDIS_URL=redis_url), prod)
        with shop.app.app_context():
            if not shop.session().scalars(NAMES).all():
                shop.add(name)
                shop.session().commit()
            assert shop.names() == [name]


def test_pages_may_carry_tags_of_tables(shop: Shop) -> None:
    """A page tagged `table:products` is forgotten by the commit that changes a product."""
    runs = []

    @shop.app.get("/menu")
    @shop.prod.cache.cached(tags=["table:products"])
    def menu() -> str:
        runs.append(1)
        return ", ".join(shop.session().scalars(NAMES))

    client = shop.app.test_client()
    assert [client.get("/menu").text for _ in range(2)] == ["tea", "tea"]
    shop.add("coffee")
    shop.session().commit()

    assert client.get("/menu").text == "tea, coffee"
    assert len(runs) == 2


def test_types_that_are_no_json(make_app: MakeApp, tmp_path: Path) -> None:
    """A result that cannot be stored names its type in development, and is only not stored in production."""
    from enum import Enum

    from sqlalchemy import Enum as EnumColumn
    from sqlalchemy import literal_column

    class Colour(Enum):
        RED = "red"

    query = select(literal_column("'RED'", EnumColumn(Colour)).label("colour"))
    for environment in ("test", "production"):
        prod = ProdKit(only=["redis", "cache", "database"])
        url = f"sqlite:///{tmp_path / environment}.db"
        app = make_app(kit=prod, DATABASE_URL=url, ENVIRONMENT=environment, ALLOWED_HOSTS=["shop.example"])
        refused = Counter()
        object.__setattr__(app.extensions["prod"].contributions["cache"].handle.counters, "refused", refused)
        with app.app_context():
            if environment == "test":
                with pytest.raises(TypeError, match="Colour cannot be cached"):
                    prod.cache.query(query)
            else:
                assert prod.cache.query(query).scalar() is Colour.RED
        assert refused.seen == ["type"]


def test_moments_come_back_with_their_zone(shop: Shop) -> None:
    """A moment in UTC stays one."""
    from sqlalchemy import DateTime, literal

    if shop.engine.dialect.name == "sqlite":
        pytest.skip("SQLite forgets zones by itself")
    moment = datetime(2026, 1, 2, 3, 4, 5, 678, tzinfo=UTC)
    query = select(literal(moment, DateTime(timezone=True)))

    assert [shop.prod.cache.query(query).scalar() for _ in range(2)] == [moment, moment]
