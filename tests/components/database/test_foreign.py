"""Applications on Flask-SQLAlchemy, Flask-SQLAlchemy-Lite, or an engine of their own, each with a kit."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeAlias

import pytest
from flask import Flask
from flask_sqlalchemy import SQLAlchemy
from flask_sqlalchemy_lite import SQLAlchemy as Lite
from sqlalchemy import Engine, create_engine, text
from sqlalchemy.orm import DeclarativeBase
from sqlalchemy.pool import NullPool

from flask_prod import ProdKit
from flask_prod.components.database.pools.adaptive import AdaptivePool
from tests.servers import wait_for
from tests.traps.shops import samples

Shop: TypeAlias = tuple[Flask, Any]
Build: TypeAlias = Callable[..., Shop]


class Base(DeclarativeBase):
    pass


@pytest.fixture
def build(tmp_path: Path) -> Any:
    """Give a factory of applications with one of the two extensions and a kit, in either order."""
    made: list[Flask] = []

    def make(kind: str, order: str = "kit last", **config: Any) -> Shop:
        app = Flask("shop", root_path=str(tmp_path), instance_path=str(tmp_path / "instance"))
        app.config.update(ENVIRONMENT="test", **config)
        extension: Any = SQLAlchemy(model_class=Base) if kind == "full" else Lite()
        kit = ProdKit(only=["database", "metrics"])
        for one in (extension, kit) if order == "kit last" else (kit, extension):
            one.init_app(app)
        made.append(app)

        @app.get("/<int:number>")
        def number(number: int) -> str:
            return str(extension.session.execute(text("SELECT CAST(:n AS INTEGER)"), {"n": number}).scalar())

        @app.get("/sleep/<float:seconds>")
        def sleep(seconds: float) -> str:
            extension.session.execute(text("SELECT pg_sleep(:s)"), {"s": seconds})
            return "slept"

        return app, extension

    yield make
    for app in reversed(made):
        app.extensions["prod"].lifecycle.close()


def engine_of(shop: Shop) -> Engine:
    app, extension = shop
    with app.app_context():
        found: Engine = extension.engine
    return found


def address(kind: str, url: str, **options: Any) -> dict[str, Any]:
    """Return the user's own configuration of an extension."""
    if kind == "full":
        return {"SQLALCHEMY_DATABASE_URI": url, "SQLALCHEMY_ENGINE_OPTIONS": options}
    return {"SQLALCHEMY_ENGINES": {"default": {"url": url, **options}}}


kinds = pytest.mark.parametrize("kind", ["full", "lite"])
orders = pytest.mark.parametrize("order", ["kit first", "kit last"])


@kinds
@orders
def test_pool_and_limits_of_the_kit(build: Build, kind: str, order: str, postgres_url: str) -> None:
    """Whichever is initialised first, their engine has the kit's pool, time limit, name and metrics."""
    shop = build(kind, order, **address(kind, postgres_url), DATABASE_STATEMENT_TIMEOUT="200ms")
    app, extension = shop
    client = app.test_client()

    assert client.get("/7").text == "7"
    pool = engine_of(shop).pool
    with app.app_context():
        name = extension.session.execute(text("SHOW application_name")).scalar()

    assert isinstance(pool, AdaptivePool)
    assert (pool.minimum, pool.maximum, pool.timeout(), pool._pre_ping) == (8, 10, 1.5, True)
    assert engine_of(shop).hide_parameters
    assert name == "shop"
    assert client.get("/sleep/5.0").status_code == 504
    found = samples(client.get("/metrics").text)
    opened = [labels for name, labels in found if name == "flask_prod_database_connections_total"]
    assert any(("change", "opened") in labels for labels in opened)


@kinds
def test_database_url_is_enough(build: Build, kind: str, tmp_path: Path) -> None:
    """An extension that comes after the kit finds DATABASE_URL, and the same file although paths are relative."""
    shop = build(kind, "kit first", DATABASE_URL=f"sqlite:///{tmp_path}/shop.db")
    app, _ = shop
    kit_engine: Engine = app.extensions["prod"].contributions["database"].handle.engine

    assert app.test_client().get("/3").text == "3"
    assert engine_of(shop).url.database == kit_engine.url.database == f"{tmp_path}/shop.db"


@kinds
def test_extension_that_was_first_shares_its_pool(build: Build, kind: str, tmp_path: Path) -> None:
    """`prod.db` uses the engine that is there: one database has one pool."""
    shop = build(kind, **address(kind, f"sqlite:///{tmp_path}/shop.db"))
    app, _ = shop
    handle = app.extensions["prod"].contributions["database"].handle

    assert handle.engine is engine_of(shop)
    with app.app_context():
        assert handle.session.execute(text("SELECT 1")).scalar() == 1
    assert handle.ping() is None


@kinds
def test_values_of_the_user_win(build: Build, kind: str, postgres_url: str) -> None:
    """A pool that its owner sized keeps its size; what the owner tells the server stays."""
    options = {
        "pool_size": 3,
        "max_overflow": 1,
        "pool_timeout": 3,
        "connect_args": {"application_name": "mine"},
    }
    shop = build(kind, **address(kind, postgres_url, **options), DATABASE_MAX_OPEN_CONNS=50)
    app, extension = shop
    app.test_client().get("/1")
    pool: Any = engine_of(shop).pool

    assert (pool.minimum, pool.maximum, pool.timeout()) == (3, 4, 3)
    with app.app_context():
        assert extension.session.execute(text("SHOW application_name")).scalar() == "mine"


@kinds
def test_pool_class_of_the_user_wins(build: Build, kind: str, tmp_path: Path) -> None:
    """Whoever chose another kind of pool has a reason."""
    shop = build(kind, **address(kind, f"sqlite:///{tmp_path}/shop.db", poolclass=NullPool))
    shop[0].test_client().get("/1")

    assert type(engine_of(shop).pool) is NullPool


@kinds
def test_exhausted_pool_of_theirs_is_503(build: Build, kind: str, tmp_path: Path) -> None:
    """Their engine's errors are answered as the kit's are."""
    url = f"sqlite:///{tmp_path}/shop.db"
    shop = build(kind, **address(kind, url, pool_size=1, max_overflow=0, pool_timeout=0.1))
    app, _ = shop
    client = app.test_client()
    assert client.get("/1").status_code == 200

    with engine_of(shop).connect():
        answer = client.get("/1")

    assert answer.status_code == 503
    assert answer.headers["Retry-After"] == "1"


@kinds
@orders
def test_their_connections_are_left_alone_after_a_fork(
    build: Build, kind: str, order: str, tmp_path: Path
) -> None:
    """A child has a pool of its own, also where the kit had not begun to serve before the fork."""
    app, _ = shop = build(kind, order, **address(kind, f"sqlite:///{tmp_path}/shop.db"))
    with engine_of(shop).connect() as connection:
        connection.execute(text("SELECT 1"))
    before = engine_of(shop).pool

    app.extensions["prod"].lifecycle.after_fork()  # what os.register_at_fork calls in the child

    assert engine_of(shop).pool is not before
    assert before.checkedin() == 1  # type: ignore[attr-defined]
    before.dispose()


@kinds
def test_their_connections_are_closed_at_the_end(build: Build, kind: str, tmp_path: Path) -> None:
    """At the end of the process nothing of theirs stays open."""
    app, _ = shop = build(kind, "kit first", **address(kind, f"sqlite:///{tmp_path}/shop.db"))
    app.test_client().get("/1")
    pool: Any = engine_of(shop).pool
    assert pool.checkedin() == 1

    app.extensions["prod"].lifecycle.close()

    assert pool.checkedin() == 0


def test_engine_of_ones_own(build: Build, tmp_path: Path) -> None:
    """`prod.db.adopt` takes care of any engine, once."""
    app, _ = build("full", **address("full", f"sqlite:///{tmp_path}/shop.db"))
    own = create_engine(f"sqlite:///{tmp_path}/own.db")
    kit = ProdKit(only=["database"])

    with app.app_context():
        assert kit.db.adopt(own) is own
        first = own.pool
        kit.db.adopt(own)

    assert isinstance(own.pool, AdaptivePool)
    assert own.pool is first
    with own.connect() as connection:
        assert connection.execute(text("SELECT 1")).scalar() == 1


def test_library_imported_within_a_request(tmp_path: Path) -> None:
    """Errors are answered 503 although SQLAlchemy was not there when the application began to serve."""
    script = """
import sys
from flask import Flask
from flask_prod import ProdKit

app = Flask("shop", root_path=sys.argv[1], instance_path=sys.argv[1])
app.config["ENVIRONMENT"] = "test"
ProdKit(app, only=["database"])

@app.get("/")
def index():
    from sqlalchemy import create_engine
    create_engine("postgresql://127.0.0.1:1/shop").connect()

@app.get("/nothing")
def nothing():
    return "nothing"

client = app.test_client()
client.get("/nothing")
assert "sqlalchemy" not in sys.modules
assert client.get("/").status_code == 503
assert client.get("/").headers["Retry-After"] == "1"
app.extensions["prod"].lifecycle.close()
"""
    done = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path)], capture_output=True, text=True, timeout=60, check=False
    )

    assert done.returncode == 0, done.stderr


@kinds
def test_their_pool_is_warmed_up(build: Build, kind: str, postgres_url: str) -> None:
    """Where both have the same address, connections are opened for the one that the application uses."""
    url = postgres_url.replace("+psycopg", "")
    shop = build(kind, "kit first", DATABASE_URL=url, DATABASE_WARM_UP=True, DATABASE_MAX_IDLE_CONNS=2)
    app, _ = shop
    handle = app.extensions["prod"].contributions["database"].handle

    app.test_client().get("/1")
    wait_for(lambda: engine_of(shop).pool.checkedin() == 2)  # type: ignore[attr-defined]

    assert handle.engine.pool.opened == 0
