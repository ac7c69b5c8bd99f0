"""A real MariaDB by PyMySQL: what it is told, how it fails, and what a fork, a pool and a replica make of it."""

from __future__ import annotations

import multiprocessing
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier
from typing import Any

import pytest
from flask import Flask
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from flask_prod import ProdKit
from flask_prod.components.database import AppDatabase, DatabaseSettings
from flask_prod.components.database.pools.capacity import ask, judge
from flask_prod.components.database.pools.wanted import wishes
from tests.apps import StartFaultProxy
from tests.components.database.queries.telling import measured
from tests.mariadb import MariaDB, running
from tests.servers import HOST, wait_for

from .conftest import MODES, MakeShop, answers

ITEMS = "CREATE TABLE items (id INTEGER PRIMARY KEY, stock INTEGER)"


class Base(DeclarativeBase):
    """What the tests store."""


class Item(Base):
    """Something to sell."""

    __tablename__ = "items"
    id: Mapped[int] = mapped_column(primary_key=True)
    stock: Mapped[int]


@pytest.fixture(scope="module")
def mariadb(pytestconfig: pytest.Config, files: dict[str, str]) -> Iterator[MariaDB]:
    """Run one MariaDB with a certificate for this module."""
    tls = {"cert": files["server.pem"], "key": files["server.key"], "ca": files["ca.pem"]}
    with running(pytestconfig, tls) as server:
        yield server


@pytest.fixture
def url(mariadb: MariaDB) -> Iterator[str]:
    """Give the address of an empty database, by `mysql+pymysql`."""
    with mariadb.database() as address:
        yield address


def test_set_up(make_shop: MakeShop, mariadb: MariaDB) -> None:
    """`mariadb://` is enough: driver, pool, time limit, and a session that stores."""
    app, database = make_shop(DATABASE_URL=mariadb.url(), DATABASE_STATEMENT_TIMEOUT="1500ms")

    with app.app_context():
        session = database.session
        limit = session.execute(text("SELECT @@max_statement_time")).scalar()
        session.execute(text("CREATE TABLE IF NOT EXISTS t (n INTEGER)"))
        session.execute(text("INSERT INTO t VALUES (7)"))
        session.commit()
        stored = session.execute(text("SELECT n FROM t")).scalar()

    assert float(str(limit)) == 1.5
    assert stored == 7
    assert database.ping() is None


def test_slow_statement_is_504(make_shop: MakeShop, url: str) -> None:
    """Its own error for a statement past its time is no outage, and the connection is good for the next."""
    app, database = make_shop(DATABASE_URL=url, DATABASE_STATEMENT_TIMEOUT="200ms")

    @app.get("/sleep/<int:seconds>")
    def sleep(seconds: int) -> str:
        database.session.execute(text("SELECT sleep(:seconds)"), {"seconds": seconds})
        return "slept"

    client = app.test_client()
    began = time.monotonic()
    answer = client.get("/sleep/30")

    assert answer.status_code == 504
    assert time.monotonic() - began < 10
    assert client.get("/sleep/0").status_code == 200


def test_who_is_not_let_in_is_503(make_shop: MakeShop, mariadb: MariaDB, url: str) -> None:
    """A server that has no room, and an address that it does not accept, are outages and no bug of a view."""
    addresses = [url, mariadb.url("elsewhere"), url.replace("shop@", "nobody:canary@")]
    apps = [make_shop(DATABASE_URL=address) for address in addresses]
    for app, database in apps:
        add_ping(app, database)

    first, *others = (app.test_client() for app, _ in apps)
    mariadb.execute("ALTER USER shop WITH MAX_USER_CONNECTIONS 1")
    try:
        with make_shop(DATABASE_URL=url)[1].engine.connect():
            refused = first.get("/")
    finally:
        mariadb.execute("ALTER USER shop WITH MAX_USER_CONNECTIONS 0")

    found = [refused, *(client.get("/") for client in others)]
    assert [answer.status_code for answer in found] == [503, 503, 503]
    assert refused.headers["Retry-After"] == "1"
    assert all("canary" not in answer.text for answer in found)
    assert first.get("/").status_code == 200


def test_exhausted_pool_is_503(make_shop: MakeShop, url: str) -> None:
    """Where every connection is in use the next request waits as on PostgreSQL, and is told to come back."""
    app, database = make_shop(DATABASE_URL=url, DATABASE_MAX_OPEN_CONNS=1)
    add_ping(app, database)

    with database.engine.connect():
        answer = app.test_client().get("/")

    assert (answer.status_code, answer.headers["Retry-After"]) == (503, "1")
    assert app.test_client().get("/").status_code == 200


def test_server_that_falls_silent(make_shop: MakeShop, mariadb: MariaDB, fault_proxy: StartFaultProxy) -> None:
    """Neither a ping nor the server's first words are waited for as long as a statement: 503, then at once."""
    proxy = fault_proxy(mariadb.port)
    address = mariadb.url().replace(str(mariadb.port), str(proxy.port))
    limits = {"DATABASE_STATEMENT_TIMEOUT": "60s", "DATABASE_CONNECT_TIMEOUT": "1s"}
    app, database = make_shop(DATABASE_URL=address, **limits)
    cold, unused = make_shop(DATABASE_URL=address, **limits)
    add_ping(app, database)
    add_ping(cold, unused)

    assert app.test_client().get("/").text == "1"
    proxy.set("blackhole")
    began = time.monotonic()
    statuses = [one.test_client().get("/").status_code for one in (app, app, cold, cold)]
    taken = time.monotonic() - began
    proxy.set("pass")

    assert statuses == [503] * 4
    assert taken < 20  # 1 s for the ping, 1 s for the first words; a minute each without
    wait_for(lambda: app.test_client().get("/").text == "1")
    with database.engine.connect() as connection:
        driver: Any = connection.connection.dbapi_connection
        assert driver._read_timeout == 65  # seconds again that a statement may take


def test_connection_that_mariadb_ended(make_shop: MakeShop, mariadb: MariaDB) -> None:
    """A connection that the server ended fails no request; a server that is not there is answered 503."""
    app, database = make_shop(DATABASE_URL=mariadb.url())
    away, nowhere = make_shop(DATABASE_URL=f"mariadb://shop@{HOST}:1/shop")
    for one, room in ((app, database), (away, nowhere)):

        @one.get("/")
        def index(room: AppDatabase = room) -> str:
            return str(room.session.execute(text("SELECT connection_id()")).scalar())

    client = app.test_client()
    first = client.get("/").text
    mariadb.execute(f"KILL {first}")

    assert client.get("/").text not in ("", first)
    assert away.test_client().get("/").status_code == 503


def test_errors_by_kind(url: str) -> None:
    """Time-outs, deadlocks, locks that were waited for in vain and duplicates are told apart in metrics."""
    told = measured(url)
    engine = told.engine
    with engine.begin() as connection:
        connection.execute(text(ITEMS))
        connection.execute(text("INSERT INTO items VALUES (1, 1), (2, 1)"))
    take = text("SELECT stock FROM items WHERE id = :id FOR UPDATE")
    both = Barrier(2)

    def cross(first: int, second: int) -> None:
        with engine.begin() as connection:
            connection.execute(take, {"id": first})
            both.wait(10)
            connection.execute(take, {"id": second})

    with ThreadPoolExecutor(2) as pool:
        failed = [run.exception() for run in (pool.submit(cross, 1, 2), pool.submit(cross, 2, 1))]
    with engine.begin() as holder, engine.connect() as connection:
        holder.execute(take, {"id": 1})
        connection.execute(text("SET innodb_lock_wait_timeout = 1, max_statement_time = 0.1"))
        for statement in ("SELECT sleep(9)", "INSERT INTO items VALUES (2, 2)", "SELECT nothing"):
            with pytest.raises(DBAPIError):
                connection.execute(text(statement))
        connection.execute(text("SET max_statement_time = 0"))
        with pytest.raises(DBAPIError):
            connection.execute(take, {"id": 1})
    engine.dispose()

    assert len([error for error in failed if error is not None]) == 1
    assert [kind for kind, _ in told.errors] == ["conflict", "timeout", "integrity", "other", "locked"]


def test_lock_and_read_only_are_503(make_shop: MakeShop, mariadb: MariaDB, url: str) -> None:
    """A row that somebody holds for too long, and a server that takes no changes, are not the view's fault."""
    app, database = make_shop(DATABASE_URL=url)

    @app.get("/sell")
    def sell() -> str:
        session = database.session
        session.execute(text("SET innodb_lock_wait_timeout = 1"))
        session.get_one(Item, 1, with_for_update=True).stock -= 1
        session.commit()
        return "sold"

    with database.engine.begin() as connection:
        connection.execute(text(ITEMS))
        connection.execute(text("INSERT INTO items VALUES (1, 5)"))
    with database.engine.begin() as holder:
        holder.execute(text("SELECT * FROM items FOR UPDATE"))
        locked = app.test_client().get("/sell")
    mariadb.execute("SET GLOBAL read_only = 1")
    try:
        demoted = app.test_client().get("/sell")
    finally:
        mariadb.execute("SET GLOBAL read_only = 0")

    assert (locked.status_code, "The database is busy." in locked.text) == (503, True)
    assert (demoted.status_code, "The database takes no changes now." in demoted.text) == (503, True)
    assert app.test_client().get("/sell").text == "sold"


def test_connections_that_the_server_allows(make_shop: MakeShop, mariadb: MariaDB, url: str) -> None:
    """The server is asked for its limit, and for that of the user where there is one."""
    _, database = make_shop(DATABASE_URL=url)
    settings = DatabaseSettings()

    room = ask(database.engine, "shop")
    mariadb.execute("ALTER USER shop WITH MAX_USER_CONNECTIONS 7")
    database.engine.dispose()
    try:
        limited = ask(database.engine, "shop")
    finally:
        mariadb.execute("ALTER USER shop WITH MAX_USER_CONNECTIONS 0")

    assert room is not None
    assert limited is not None
    assert (room.most, room.reserved, room.allowed) == (151, 0, None)
    assert judge(settings, wishes(settings, 15)[0], room, 15) is None
    assert judge(settings, wishes(settings, 16)[0], room, 16) is not None
    told = judge(settings, wishes(settings, 1)[0], limited, 1)
    assert told is not None
    assert "its user or database may have 7 there" in told.message


def _read(database: AppDatabase, number: int) -> int:
    """Return how many of 150 answers were another process's."""
    wrong = 0
    for mine in range(number * 1000, number * 1000 + 150):
        with database.engine.connect() as connection:
            wrong += connection.execute(text("SELECT :n"), {"n": mine}).scalar() != mine
    return wrong


def test_forked_children_read_their_own_rows(make_shop: MakeShop, url: str) -> None:
    """An engine used before the fork gives no wrong row in two children and their parent, which keeps its own."""
    _, database = make_shop(DATABASE_URL=url)
    with database.engine.connect() as connection:
        mine = connection.execute(text("SELECT connection_id()")).scalar()
    context: Any = multiprocessing.get_context("fork")
    pipes = [context.Pipe() for _ in range(2)]

    def child(number: int, pipe: Any) -> None:
        pipe.send(_read(database, number))

    children = [
        context.Process(target=child, args=(number, theirs), daemon=True)
        for number, (_, theirs) in enumerate(pipes, 1)
    ]
    for one in children:
        one.start()
    wrong = [_read(database, 3), *(ours.recv() if ours.poll(30) else "no answer" for ours, _ in pipes)]
    for one in children:
        one.join(10)
        one.close()
    with database.engine.connect() as connection:
        still = connection.execute(text("SELECT connection_id()")).scalar()

    assert wrong == [0, 0, 0]
    assert still == mine


def test_replica(make_shop: MakeShop, mariadb: MariaDB, url: str) -> None:
    """Marked reads go to the replica, whose connections cannot write; a client that wrote stays on the primary."""
    with mariadb.database() as copy:
        prod = ProdKit(only=["database"])
        app, database = make_shop(prod, DATABASE_URL=url, DATABASE_REPLICA_URLS=[copy], SECRET_KEY="a key")
        add_shop(app, prod)
        assert database.replication is not None
        (replica,) = database.replication.replicas
        for address, stock in ((url, 10), (copy, 20)):
            with make_shop(DATABASE_URL=address)[1].engine.begin() as connection:
                connection.execute(text(ITEMS))
                connection.execute(text("INSERT INTO items VALUES (1, :stock)"), {"stock": stock})
        app.extensions["prod"].lifecycle.start()
        wait_for(lambda: replica.is_in(time.monotonic()))

        client, other = app.test_client(), app.test_client()
        seen = [client.get("/stock").text, client.post("/sell").text, client.get("/stock").text]
        seen.append(other.get("/stock").text)
        with pytest.raises(DBAPIError, match="READ ONLY"), replica.engine.begin() as connection:
            connection.execute(text("UPDATE items SET stock = 0"))
        app.extensions["prod"].lifecycle.close()

    assert seen == ["20", "sold", "9", "20"]


def add_ping(app: Flask, database: AppDatabase) -> None:
    @app.get("/")
    def index() -> str:
        return str(database.session.execute(text("SELECT 1")).scalar())


def add_shop(app: Flask, prod: ProdKit) -> None:
    @app.get("/stock")
    @prod.db.replica
    def stock() -> str:
        return str(prod.db.session.get_one(Item, 1).stock)

    @app.post("/sell")
    def sell() -> str:
        prod.db.session.get_one(Item, 1, with_for_update=True).stock -= 1
        prod.db.session.commit()
        return "sold"


@pytest.mark.parametrize(
    ("ca", "accepted"), [("ca.pem", MODES), ("other-ca.pem", ("disable", "prefer", "require"))]
)
def test_tls_modes_of_mariadb(
    make_shop: MakeShop, mariadb: MariaDB, files: dict[str, str], ca: str, accepted: tuple[str]
) -> None:
    """The same modes, by PyMySQL: all but `disable` are encrypted here, and the verifying ones verify."""
    found = []
    for mode in MODES:
        more = {} if mode == "disable" else {"DATABASE_TLS_CA": files[ca]}
        _, database = make_shop(DATABASE_URL=mariadb.url(), DATABASE_TLS=mode, **more)
        if answers(database):
            found.append(mode)
            with database.engine.connect() as connection:
                cipher = connection.execute(text("SHOW STATUS LIKE 'Ssl_cipher'")).one()[1]
            assert bool(cipher) is (mode != "disable")

    assert tuple(found) == accepted
