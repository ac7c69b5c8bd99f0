"""Read your own writes through real gunicorn with two workers and a replica that lags by half a second."""

from __future__ import annotations

import http.client
import json
import time
from collections.abc import Iterator
from typing import Any

import pytest

from tests.servers import HOST, Gunicorn

from .conftest import Pair

SOURCE = """
import os

from flask import Flask
from sqlalchemy import func, insert, select, text
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from flask_prod import ProdKit

prod = ProdKit(only=["database", "metrics"])

class Base(DeclarativeBase): ...

class Number(Base):
    __tablename__ = "numbers"
    number: Mapped[int] = mapped_column(primary_key=True)

def create_app():
    app = Flask("shop")
    prod.init_app(app)

    @app.post("/numbers/<int:number>")
    def write(number):
        prod.db.session.add(Number(number=number))
        prod.db.session.commit()
        return "written"

    @app.get("/numbers")
    @prod.db.replica
    def read():
        query = select(func.max(Number.number), func.inet_server_port())
        highest, port = prod.db.session.execute(query).one()
        return {"highest": highest or 0, "port": port, "worker": os.getpid()}

    return app
"""


@pytest.fixture
def server(pair: Pair) -> Iterator[Gunicorn]:
    """Serve numbers by two workers, from a primary and a replica that is half a second late."""
    pair.replica.catch_up()
    env = {
        "ENVIRONMENT": "test",
        "SECRET_KEY": "a key of the tests",
        "DATABASE_URL": pair.primary.url(),
        "DATABASE_REPLICA_URLS": pair.replica.url(),
    }
    with Gunicorn(
        "app:create_app()", source=SOURCE, args=["-w", "2", "--threads", "4"], env=env, ready="/numbers"
    ) as one:
        pair.replica.delay(500)
        yield one


def ask(server: Gunicorn, method: str, path: str, cookie: str = "") -> tuple[str, str]:
    """Return the body and the cookie of an answer, by a connection of its own: either worker may take it."""
    connection = http.client.HTTPConnection(HOST, server.port, timeout=10)
    try:
        connection.request(method, path, headers={"Cookie": cookie} if cookie else {})
        response = connection.getresponse()
        body = response.read().decode()
        assert response.status == 200, body
        return body, (response.getheader("Set-Cookie") or "").partition(";")[0]
    finally:
        connection.close()


def read_after_writes(
    server: Gunicorn, pair: Pair, times: int, *, keep: bool, begin: int
) -> tuple[int, list[Any]]:
    """Write and read so many times; return how many reads were stale, and all answers."""
    stale, answers = 0, []
    for number in range(begin, begin + times):
        _, cookie = ask(server, "POST", f"/numbers/{number}")
        found = json.loads(ask(server, "GET", "/numbers", cookie if keep else "")[0])
        stale += found["highest"] < number
        answers.append(found)
    return stale, answers


def test_nobody_reads_less_than_he_wrote(server: Gunicorn, pair: Pair) -> None:
    """Of 200 reads right after a write by the same client none is stale, whichever worker answers.

    Without the cookie most are: the replica is asked then, and is late.
    """
    stale, answers = read_after_writes(server, pair, 200, keep=True, begin=1)
    assert stale == 0
    assert len({answer["worker"] for answer in answers}) == 2

    stale, answers = read_after_writes(server, pair, 20, keep=False, begin=1001)
    assert stale >= 15
    assert pair.replica.port in {answer["port"] for answer in answers}


def test_the_client_returns_to_the_replica(server: Gunicorn, pair: Pair) -> None:
    """Within a second or so the replica has what was written, and the client reads from it again, not stale."""
    _, cookie = ask(server, "POST", "/numbers/1")
    ports = []
    end = time.monotonic() + 20
    while time.monotonic() < end:
        found = json.loads(ask(server, "GET", "/numbers", cookie)[0])
        assert found["highest"] == 1
        ports.append(found["port"])
        if ports[-10:] == [pair.replica.port] * 10:
            return
    pytest.fail(f"the replica was asked {ports.count(pair.replica.port)} times of {len(ports)}")
