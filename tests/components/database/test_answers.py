"""What a client is told when the database cannot serve it."""

from __future__ import annotations

import time
from pathlib import Path

from flask import Flask
from sqlalchemy import text
from sqlalchemy.exc import OperationalError, SQLAlchemyError

from flask_prod.components.database import AppDatabase

from .conftest import MakeShop


def add_sleep(app: Flask, database: AppDatabase) -> None:
    @app.get("/sleep/<float:seconds>")
    def sleep(seconds: float) -> str:
        database.session.execute(text("SELECT pg_sleep(:s)"), {"s": seconds})
        return "slept"


def test_exhausted_pool_is_503_within_two_seconds(make_shop: MakeShop, postgres_url: str) -> None:
    """When all connections are asleep, the next request is told to come back rather than queued (T48)."""
    app, database = make_shop(DATABASE_URL=postgres_url, DATABASE_MAX_OPEN_CONNS=2)
    add_sleep(app, database)

    with database.engine.connect(), database.engine.connect():
        began = time.perf_counter()
        answer = app.test_client().get("/sleep/0.0")
        waited = time.perf_counter() - began

    assert answer.status_code == 503
    assert answer.headers["Retry-After"] == "1"
    assert waited < 10  # 1.5 s, and what a busy machine adds; SQLAlchemy's own limit is 30 s
    assert app.test_client().get("/sleep/0.0").status_code == 200


def test_slow_statement_is_504(make_shop: MakeShop, postgres_url: str) -> None:
    """A statement past its time ends with 504, and its connection is good for the next request."""
    app, database = make_shop(DATABASE_URL=postgres_url, DATABASE_STATEMENT_TIMEOUT="200ms")
    add_sleep(app, database)
    client = app.test_client()

    began = time.perf_counter()
    answer = client.get("/sleep/30.0")

    assert answer.status_code == 504
    assert time.perf_counter() - began < 10
    assert client.get("/sleep/0.0").status_code == 200


def test_unreachable_server_is_503(make_shop: MakeShop) -> None:
    """A refused connection is an outage, not a bug of the application."""
    app, database = make_shop(DATABASE_URL="postgresql://shop:canary@127.0.0.1:1/shop")
    add_sleep(app, database)

    answer = app.test_client().get("/sleep/0.0")

    assert answer.status_code == 503
    assert "canary" not in answer.text


def test_mistake_in_a_statement_stays_500(make_shop: MakeShop, tmp_path: Path) -> None:
    """An error of the application's own is not dressed up as an outage."""
    app, database = make_shop(DATABASE_URL=f"sqlite:///{tmp_path}/shop.db")

    @app.get("/")
    def index() -> str:
        database.session.execute(text("SELECT * FROM nowhere"))
        return "never"

    assert app.test_client().get("/").status_code == 500


def test_locked_file_is_503(make_shop: MakeShop, tmp_path: Path) -> None:
    """A writer that waited in vain for another one may try again."""
    app, database = make_shop(DATABASE_URL=f"sqlite:///{tmp_path}/shop.db")
    with database.engine.begin() as connection:
        connection.execute(text("CREATE TABLE t (n INTEGER)"))

    @app.post("/")
    def write() -> str:
        database.session.execute(text("PRAGMA busy_timeout = 50"))
        database.session.execute(text("INSERT INTO t VALUES (1)"))
        database.session.commit()
        return "written"

    with database.engine.connect() as other:
        other.execute(text("BEGIN IMMEDIATE"))
        answer = app.test_client().post("/")
        other.rollback()

    assert answer.status_code == 503
    assert app.test_client().post("/").status_code == 200


def test_handler_of_the_user_wins(make_shop: MakeShop) -> None:
    """Who handles the exception or a base class of it answers; a catch-all leaves outages to the kit."""

    def answers(kind: type[Exception]) -> int:
        app, database = make_shop(DATABASE_URL="postgresql://127.0.0.1:1/shop")
        add_sleep(app, database)
        app.register_error_handler(kind, lambda _error: ("mine", 418))
        return app.test_client().get("/sleep/0.0").status_code

    assert answers(OperationalError) == 418
    assert answers(SQLAlchemyError) == 418
    assert answers(Exception) == 503


def test_catch_all_gets_what_is_not_an_outage(make_shop: MakeShop, tmp_path: Path) -> None:
    """A user's handler for Exception sees the error it would have seen without the kit."""
    app, database = make_shop(DATABASE_URL=f"sqlite:///{tmp_path}/shop.db")
    seen: list[Exception] = []

    @app.errorhandler(Exception)
    def catch(error: Exception) -> tuple[str, int]:
        seen.append(error)
        return "caught", 500

    @app.get("/")
    def index() -> str:
        database.session.execute(text("SELECT * FROM nowhere"))
        return "never"

    answer = app.test_client().get("/")

    assert answer.text == "caught"
    assert isinstance(seen[0], OperationalError)
