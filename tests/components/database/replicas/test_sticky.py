"""Clients that read what they have just written, although the replica does not have it yet."""

from __future__ import annotations

import logging
from concurrent.futures import ThreadPoolExecutor
from time import monotonic

import pytest
from flask import Response
from flask.testing import FlaskClient
from sqlalchemy import func, insert, select, text
from sqlalchemy.orm import Session
from werkzeug.http import parse_cookie

from flask_prod.components.database.replicas.sticky import HEADER
from tests.servers import wait_for

from .conftest import MakeReplicated, Product, Shop

COOKIE = "session_wrote"


def add_routes(shop: Shop) -> Shop:
    """Give a shop views that write and read."""
    app, db = shop.app, shop.prod.db

    @app.post("/products")
    def add() -> str:
        db.session.add(Product(name="new", stock=1, shelf_id=1))
        db.session.commit()
        return "added"

    @app.get("/server")
    @db.replica
    def server() -> str:
        return shop.server()

    @app.get("/count")
    @db.replica
    def count() -> str:
        return str(db.session.scalar(select(func.count()).select_from(Product)))

    @app.get("/async")
    @db.replica
    async def later() -> str:
        return shop.server()

    @app.get("/both")
    @db.replica
    def both() -> str:
        add()
        return shop.server()

    @app.get("/core")
    def core() -> Response:
        with db.engine.begin() as connection:
            connection.execute(insert(Product).values(name="new", stock=1, shelf_id=1))
        response = Response("added")
        response.cache_control.public = True
        return response

    @app.get("/look")
    def look() -> str:
        return str(db.session.scalar(text("SELECT count(*) FROM products")))

    return shop


@pytest.fixture
def served(make_shop: MakeReplicated) -> Shop:
    """Give a shop with views."""
    return add_routes(make_shop())


@pytest.fixture
def client(served: Shop) -> FlaskClient:
    """Give one of its clients, who keeps cookies."""
    return served.app.test_client()


def test_a_view(client: FlaskClient) -> None:
    """A view under `@prod.db.replica` reads from the replica, written with async or without."""
    assert client.get("/server").text == "replica"
    assert client.get("/async").text == "replica"


def test_a_client_that_wrote(served: Shop, client: FlaskClient) -> None:
    """Who has written reads from the primary until the replica has it; everybody else from the replica."""
    served.pair.replica.hold()
    client.post("/products")

    assert client.get("/server").text == "primary"
    assert client.get("/count").text == "4"
    assert served.app.test_client().get("/server").text == "replica"
    assert served.app.test_client().get("/count").text == "3"

    served.pair.replica.go_on()
    wait_for(lambda: client.get("/server").text == "replica", 8, "the client's return to the replica")
    assert client.get("/count").text == "4"


def test_a_client_without_a_known_position(make_shop: MakeReplicated) -> None:
    """Where positions are unknown time alone counts: DATABASE_STICKY_SECONDS after the write it is over."""
    shop = add_routes(make_shop(DATABASE_STICKY_SECONDS=2.6, DATABASE_REPLICA_MAX_LAG=0.1))
    shop.replication.stickiness._ask = lambda: None
    client = shop.app.test_client()
    began = monotonic()
    client.post("/products")

    assert client.get("/server").text == "primary"
    wait_for(lambda: client.get("/server").text == "replica", 15, "the end of the client's time")
    assert monotonic() - began > 2.6


def test_the_cookie(client: FlaskClient) -> None:
    """The cookie is for this site and no script, and lasts as long as it matters."""
    said = client.post("/products").headers["Set-Cookie"]

    assert said.startswith(f"{COOKIE}=")
    for part in ("HttpOnly", "Path=/", "SameSite=Lax", "Max-Age=10"):
        assert part in said
    assert "Secure" not in said


def test_the_cookie_of_a_safe_site(make_shop: MakeReplicated) -> None:
    """It is as secure as the session's, and lies beside it."""
    shop = add_routes(
        make_shop(SESSION_COOKIE_SECURE=True, SESSION_COOKIE_NAME="shop", SESSION_COOKIE_DOMAIN="example.com")
    )
    said = shop.app.test_client().post("/products").headers["Set-Cookie"]

    assert said.startswith("shop_wrote=")
    assert "Secure" in said
    assert "Domain=example.com" in said


def test_who_reads_gets_no_cookie(client: FlaskClient) -> None:
    """Answers to requests that wrote nothing stay what they were."""
    for path in ("/server", "/look", "/count"):
        answer = client.get(path)
        assert "Set-Cookie" not in answer.headers
        assert HEADER not in answer.headers


def test_an_answer_for_everybody(client: FlaskClient) -> None:
    """An answer that caches on the way may keep carries no cookie, although its request wrote."""
    answer = client.get("/core")

    assert "Set-Cookie" not in answer.headers
    assert HEADER in answer.headers


def test_a_client_without_cookies(served: Shop) -> None:
    """A program sends the header of the answer back with its next requests."""
    served.pair.replica.hold()
    client = served.app.test_client(use_cookies=False)
    token = client.post("/products").headers[HEADER]

    assert client.get("/server").text == "replica"
    assert client.get("/server", headers={HEADER: token}).text == "primary"


def test_within_a_request(served: Shop) -> None:
    """A request that has written reads from the primary to its end."""
    assert served.app.test_client().get("/both").text == "primary"


@pytest.mark.parametrize("token", ["", "x", "0.0", "0.0.sig", "f" * 500, "0.{now}.AAAA"])
def test_a_forged_token(served: Shop, token: str) -> None:
    """A token that is not ours says nothing."""
    client = served.app.test_client(use_cookies=False)

    assert client.get("/server", headers={HEADER: token, "Cookie": f"{COOKIE}={token}"}).text == "replica"


def test_another_services_token(served: Shop, make_shop: MakeReplicated) -> None:
    """A token of another service with the same key says nothing here."""
    other = add_routes(make_shop(SERVICE_NAME="other"))
    token = other.app.test_client().post("/products").headers[HEADER]

    assert served.replication.stickiness.read(token) is None
    assert other.replication.stickiness.read(token) is not None


def test_a_key_that_was_replaced(served: Shop, client: FlaskClient) -> None:
    """Tokens of the key before are still read while SECRET_KEY_FALLBACKS names it."""
    token = parse_cookie(client.post("/products").headers["Set-Cookie"])[COOKIE]
    fallback, served.app.secret_key = served.app.secret_key, "a new key"

    assert served.replication.stickiness.read(token) is None
    served.app.config["SECRET_KEY_FALLBACKS"] = [fallback]
    assert served.replication.stickiness.read(token) is not None


def test_without_a_key(make_shop: MakeReplicated, caplog: pytest.LogCaptureFixture) -> None:
    """Without SECRET_KEY nothing can be signed; the log says so once."""
    shop = add_routes(make_shop(SECRET_KEY=None))
    with caplog.at_level(logging.WARNING):
        answers = [shop.app.test_client().post("/products") for _ in range(2)]

    assert all("Set-Cookie" not in answer.headers for answer in answers)
    assert [record.message for record in caplog.records if "SECRET_KEY" in record.message] == [
        "Without SECRET_KEY nobody can be told to read what he has just written: set it."
    ]


def test_outside_of_an_application(shop: Shop) -> None:
    """A session that a thread of its own uses reads what it wrote too."""
    factory = shop.prod.db.session_factory

    def write_and_ask() -> tuple[str, str]:
        with factory(info={"replica": True}) as session:
            before = shop.server(session)
            session.add(Product(name="new", stock=1, shelf_id=1))
            session.commit()
            return before, shop.server(session)

    with ThreadPoolExecutor(1) as threads:
        assert threads.submit(write_and_ask).result() == ("replica", "primary")


def test_a_cached_page(make_shop: MakeReplicated) -> None:
    """The cookie keeps nobody from the page cache: pages are shared as without replicas."""
    shop = add_routes(make_shop("cache"))
    made: list[Session] = []

    @shop.app.get("/page")
    @shop.prod.cache.cached(ttl="1m")
    def page() -> str:
        made.append(shop.prod.db.session)
        return "page"

    client = shop.app.test_client()
    client.get("/page")
    client.post("/products")
    client.get("/page")

    assert client.get_cookie(COOKIE) is not None
    assert len(made) == 1
