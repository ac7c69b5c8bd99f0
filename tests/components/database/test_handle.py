"""The engine of an application and the session of its context."""

from __future__ import annotations

import multiprocessing
import os
from concurrent.futures import ThreadPoolExecutor
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import psycopg
import pytest
from flask import Flask
from sqlalchemy import ForeignKey, select, text
from sqlalchemy.exc import IntegrityError, OperationalError
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

from flask_prod import NotInstalled, ProdKit
from flask_prod.components.database import AppDatabase, DatabaseFace
from tests.servers import Postgres

from .conftest import MakeShop


class Base(DeclarativeBase):
    pass


class Product(Base):
    __tablename__ = "product"
    id: Mapped[int] = mapped_column(primary_key=True)
    stock: Mapped[int]


class Line(Base):
    __tablename__ = "line"
    id: Mapped[int] = mapped_column(primary_key=True)
    product_id: Mapped[int] = mapped_column(ForeignKey("product.id"))


@pytest.fixture(params=["sqlite", "postgresql"])
def shop(request: pytest.FixtureRequest, make_shop: MakeShop, tmp_path: Path) -> tuple[Flask, AppDatabase]:
    """Give an application with two tables, on each database."""
    url = f"sqlite:///{tmp_path}/shop.db" if request.param == "sqlite" else request.getfixturevalue("postgres_url")
    app, database = make_shop(DATABASE_URL=url)
    Base.metadata.create_all(database.engine)
    return app, database


def stock(app: Flask, database: AppDatabase) -> dict[int, int]:
    with app.app_context():
        return {product.id: product.stock for product in database.session.scalars(select(Product))}


def test_session_belongs_to_the_context(shop: tuple[Flask, AppDatabase]) -> None:
    """One context has one session; the next context has another."""
    app, database = shop

    with app.app_context():
        first = database.session
        assert database.session is first
    with app.app_context():
        assert database.session is not first


def test_session_in_requests_and_jobs(shop: tuple[Flask, AppDatabase]) -> None:
    """What a request committed is there in the next context, whatever kind it is."""
    app, database = shop

    @app.post("/products/<int:number>")
    def add(number: int) -> str:
        database.session.add(Product(id=number, stock=3))
        database.session.commit()
        return "added"

    app.test_client().post("/products/1")

    assert stock(app, database) == {1: 3}


def test_what_was_not_committed_is_rolled_back(shop: tuple[Flask, AppDatabase]) -> None:
    """Neither a forgotten commit nor an exception leaves half a change behind."""
    app, database = shop

    @app.post("/forget")
    def forget() -> str:
        database.session.add(Product(id=1, stock=3))
        database.session.flush()
        return "forgotten"

    @app.post("/crash")
    def crash() -> str:
        database.session.add(Product(id=2, stock=3))
        database.session.flush()
        raise RuntimeError("after the flush")

    client = app.test_client()

    assert client.post("/forget").status_code == 200
    assert client.post("/crash").status_code == 500
    assert stock(app, database) == {}


def test_request_without_database_costs_no_session(shop: tuple[Flask, AppDatabase]) -> None:
    """A request that asks for no session makes none and takes no connection."""
    app, database = shop
    made: list[Session] = []
    real = database.session_factory

    def counting() -> Session:
        made.append(real())
        return made[-1]

    database.session_factory = counting  # type: ignore[assignment]
    app.test_client().get("/nothing")

    assert made == []


def test_connections_return_to_the_pool(shop: tuple[Flask, AppDatabase]) -> None:
    """After a hundred contexts, nothing is checked out."""
    app, database = shop

    for _ in range(100):
        stock(app, database)

    assert database.engine.pool.checkedout() == 0  # type: ignore[attr-defined]


def test_face_works_before_any_application_and_for_several(make_shop: MakeShop, tmp_path: Path) -> None:
    """One module-level `prod.db` serves two applications, each with its own rows."""
    kit = ProdKit(only=["database"])
    face: DatabaseFace = kit.get("database")
    apps = [make_shop(kit, DATABASE_URL=f"sqlite:///{tmp_path}/{name}.db")[0] for name in ("one", "two")]

    for number, app in enumerate(apps):
        with app.app_context():
            Base.metadata.create_all(face.engine)
            face.session.add(Product(id=number, stock=number))
            face.session.commit()

    for number, app in enumerate(apps):
        with app.app_context():
            assert [product.id for product in face.session.scalars(select(Product))] == [number]


def test_face_outside_of_a_context(make_shop: MakeShop) -> None:
    """Without an application the answer says where to call it."""
    kit = ProdKit(only=["database"])
    make_shop(kit)
    face: DatabaseFace = kit.get("database")

    with pytest.raises(NotInstalled, match="app_context"):
        _ = face.session


def test_session_factory_is_independent(shop: tuple[Flask, AppDatabase]) -> None:
    """A session of one's own needs no context and commits by `begin`."""
    app, database = shop

    with database.session_factory.begin() as session:
        session.add(Product(id=7, stock=1))

    assert stock(app, database) == {7: 1}


def test_broken_session_does_not_fail_the_teardown(shop: tuple[Flask, AppDatabase]) -> None:
    """A session whose close raises is dropped, and other teardown functions still run."""
    app, database = shop
    torn_down: list[bool] = []
    app.teardown_appcontext_funcs.insert(0, lambda _error: torn_down.append(True))

    with app.app_context():
        session = database.session
        session.execute(text("SELECT 1"))

        def close() -> None:
            raise OSError("the socket is gone")

        session.close = close  # type: ignore[method-assign]

    assert torn_down == [True]
    assert database.engine.pool.checkedout() == 0  # type: ignore[attr-defined]


def test_foreign_keys_hold(shop: tuple[Flask, AppDatabase]) -> None:
    """A row that points nowhere is refused on SQLite as on PostgreSQL."""
    app, database = shop

    with app.app_context():
        database.session.add(Line(id=1, product_id=99))
        with pytest.raises(IntegrityError):
            database.session.flush()


def test_savepoint_is_part_of_its_transaction(shop: tuple[Flask, AppDatabase]) -> None:
    """What a released savepoint wrote goes away with the transaction around it."""
    app, database = shop

    with app.app_context():
        with database.session.begin_nested():
            database.session.add(Product(id=1, stock=1))
        database.session.rollback()

    assert stock(app, database) == {}


def test_locked_row_is_not_oversold(shop: tuple[Flask, AppDatabase]) -> None:
    """Read with `with_for_update`, compute, write: 40 buyers from 8 threads take 20 items of 20."""
    app, database = shop
    with database.session_factory.begin() as session:
        session.add(Product(id=1, stock=20))

    def buy(_number: int) -> bool:
        with app.app_context():
            product = database.session.get_one(Product, 1, with_for_update=True)
            if product.stock == 0:
                return False
            product.stock -= 1
            database.session.commit()
            return True

    with ThreadPoolExecutor(8) as pool:
        sold = sum(pool.map(buy, range(40)))

    assert sold == 20
    assert stock(app, database) == {1: 0}


def test_unreachable_database_does_not_prevent_the_start(make_shop: MakeShop) -> None:
    """The application starts and its check fails, until the database is there."""
    _, database = make_shop(DATABASE_URL="postgresql://shop:canary@127.0.0.1:1/shop")

    with pytest.raises(OperationalError):
        database.ping()


def test_default_database_leaves_no_trace_until_it_is_used(make_shop: MakeShop) -> None:
    """An application without DATABASE_URL that stores nothing gets no folder; one that does gets its file."""
    app, database = make_shop()

    unused = database.ping()
    before = os.path.exists(app.instance_path)
    with app.app_context():
        database.session.execute(text("SELECT 1"))
    used = database.ping()

    assert unused is not None
    assert "not used" in unused.detail
    assert not before
    assert used is None
    assert os.path.isfile(os.path.join(app.instance_path, "shop.db"))


def test_full_pool_is_a_warning_of_the_check(make_shop: MakeShop, tmp_path: Path) -> None:
    """A busy process is not an absent database."""
    _, database = make_shop(DATABASE_URL=f"sqlite:///{tmp_path}/shop.db", DATABASE_MAX_OPEN_CONNS=1)

    with database.engine.connect():
        finding = database.ping()

    assert finding is not None
    assert finding.status == "warn"


def _read(database: AppDatabase, number: int, count: int) -> int:
    """Return how many of *count* answers were not the row asked for."""
    wrong = 0
    for _ in range(count):
        with database.engine.connect() as connection:
            wrong += connection.execute(text("SELECT CAST(:n AS INTEGER)"), {"n": number}).scalar() != number
    return wrong


def _child(database: AppDatabase, number: int, pipe: Connection) -> None:
    try:
        pipe.send(_read(database, number, 150))
    except Exception as error:
        pipe.send(repr(error))


def test_forked_children_read_their_own_rows(shop: tuple[Flask, AppDatabase]) -> None:
    """An engine used before the fork gives no wrong row and no error in two children and their parent."""
    app, database = shop
    context: Any = multiprocessing.get_context("fork")
    pipes = []

    with app.app_context():
        database.session.execute(text("SELECT 1"))
        _read(database, 0, 2)
        children = []
        for number in (1, 2):
            ours, theirs = context.Pipe()
            child = context.Process(target=_child, args=(database, number, theirs), daemon=True)
            child.start()
            pipes.append(ours)
            children.append(child)
        mine = _read(database, 3, 150)
        answers = [pipe.recv() if pipe.poll(30) else "no answer" for pipe in pipes]
        for child in children:
            child.join(10)
            child.close()
        database.session.execute(text("SELECT 1"))

    assert [mine, *answers] == [0, 0, 0]


def test_context_of_the_parent_gets_a_session_of_its_own_in_the_child(shop: tuple[Flask, AppDatabase]) -> None:
    """A child forked inside a context, as a worker's job is, does not go on with its parent's session."""
    app, database = shop

    def in_child(parents: int, pipe: Connection) -> None:
        database.session.add(Product(id=5, stock=5))
        database.session.commit()
        pipe.send(id(database.session) != parents)

    context: Any = multiprocessing.get_context("fork")
    ours, theirs = context.Pipe()
    with app.app_context():
        database.session.execute(text("SELECT 1"))
        child = context.Process(target=in_child, args=(id(database.session), theirs), daemon=True)
        child.start()
        own = ours.recv() if ours.poll(30) else None
        child.join(10)
        child.close()
        assert database.session.execute(text("SELECT 1")).scalar() == 1

    assert own is True
    assert stock(app, database) == {5: 5}


def test_connections_that_the_server_ended_fail_no_request(make_shop: MakeShop, postgres_url: str) -> None:
    """After a restart or failover that nobody noticed, the next request gets a fresh connection (S5)."""
    app, database = make_shop(DATABASE_URL=postgres_url)

    @app.get("/")
    def index() -> str:
        return str(database.session.execute(text("SELECT pg_backend_pid()")).scalar())

    client = app.test_client()
    first = client.get("/").text
    with psycopg.connect(postgres_url.replace("+psycopg", ""), autocommit=True) as other:
        other.execute("SELECT pg_terminate_backend(%s)", (int(first),))
    second = client.get("/")

    assert second.status_code == 200
    assert second.text != first


def test_postgres_killed_and_back(make_shop: MakeShop) -> None:
    """After kill -9 of the server requests answer 503, and 200 within two seconds of its return (S5, T48)."""
    with Postgres() as server, server.database() as url:
        app, database = make_shop(DATABASE_URL=url)

        @app.get("/")
        def index() -> str:
            return str(database.session.execute(text("SELECT 1")).scalar())

        client = app.test_client()
        before = client.get("/").status_code
        server.kill()
        during = [client.get("/") for _ in range(3)]
        server.start()
        after = client.get("/").status_code

    assert before == 200
    assert [answer.status_code for answer in during] == [503, 503, 503]
    assert during[0].headers["Retry-After"] == "1"
    assert after == 200
