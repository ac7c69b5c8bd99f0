"""Reads and writes under load while a replica is killed, hangs or lags, and while the primary is away."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator

import pytest

from tests.apps import StartGunicorn
from tests.postgres import Replica, streaming
from tests.servers import FaultProxy, Gunicorn, Postgres, wait_for

from .load import Load, in_time, percentile, success

pytestmark = pytest.mark.faults

SECONDS = float(os.environ.get("FAULTS_SECONDS", "20"))
"""How long each state of a case lasts."""

SHOP = """
from flask import Flask
from sqlalchemy import func, select
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

    @app.get("/")
    @prod.db.replica
    def read():
        return str(prod.db.session.scalar(select(func.count()).select_from(Number)))

    @app.get("/server")
    @prod.db.replica
    def server():
        return str(prod.db.session.scalar(select(func.inet_server_port())))

    @app.post("/")
    def write():
        prod.db.session.add(Number())
        prod.db.session.commit()
        return "written"

    return app
"""


@pytest.fixture
def both() -> Iterator[tuple[Postgres, Replica]]:
    """Run a primary with a table and its replica, which the test may kill."""
    with streaming() as (primary, replica):
        primary.execute("CREATE TABLE numbers (number serial PRIMARY KEY)")
        replica.catch_up()
        yield primary, replica


def serve(gunicorn: StartGunicorn, primary: int, replica: int) -> Gunicorn:
    """Serve the shop by two workers, and return when both read from the replica."""
    address = "postgresql+psycopg://postgres@127.0.0.1:{}/postgres"
    env = {
        "ENVIRONMENT": "test",
        "SECRET_KEY": "a key of the tests",
        "DATABASE_URL": address.format(primary),
        "DATABASE_REPLICA_URLS": address.format(replica),
    }
    return gunicorn(source=SHOP, args=["-w", "2", "--threads", "8"], env=env, ready="/server")


def reads_from(server: Gunicorn, port: int) -> None:
    """Return when ten reads in a row were answered by this server."""
    wait_for(lambda: all(server.get("/server").text == str(port) for _ in range(10)), 15, f"reads from {port}")


def test_a_replica_is_killed(both: tuple[Postgres, Replica], gunicorn: StartGunicorn) -> None:
    """kill -9 of the replica under load: no read fails, and it is read from again once it is back."""
    primary, replica = both
    server = serve(gunicorn, primary.port, replica.port)
    reads_from(server, replica.port)
    with Load(server) as load:
        time.sleep(SECONDS / 2)
        replica.kill()
        time.sleep(SECONDS)
        reads_from(server, primary.port)
        replica.start()
        reads_from(server, replica.port)

    assert [visit for visit in load.visits if visit.status != 200] == []


def test_the_primary_is_killed(both: tuple[Postgres, Replica], gunicorn: StartGunicorn) -> None:
    """kill -9 of the primary under load: marked reads go on, writes get 503 at once, and recover within 2 s."""
    primary, replica = both
    server = serve(gunicorn, primary.port, replica.port)
    reads_from(server, replica.port)
    with Load(server) as load:
        time.sleep(1)
        primary.kill()
        end = time.monotonic() + SECONDS
        while time.monotonic() < end:
            began = time.monotonic()
            answer = server.request("POST", "/")
            assert answer.status == 503
            assert answer.headers["Retry-After"]
            assert time.monotonic() - began < 2
            time.sleep(0.2)
        primary.start()
        wait_for(lambda: server.request("POST", "/").status == 200, 2, "the first write")

    assert success(load.visits) == 1


@pytest.mark.parametrize("fault", in_time(["blackhole", "synhole", "reset", "blackhole down", "refuse"]))
def test_a_replica_out_of_reach(both: tuple[Postgres, Replica], gunicorn: StartGunicorn, fault: str) -> None:
    """A replica that the network swallows costs reads some seconds at most, and fails none."""
    primary, replica = both
    with FaultProxy(replica.port) as line:
        server = serve(gunicorn, primary.port, line.port)
        reads_from(server, replica.port)
        with Load(server, clients=8) as load:
            time.sleep(1)
            line.set(fault)
            broken = time.monotonic()
            time.sleep(max(SECONDS, 6))
            end = time.monotonic()
        line.set("pass")
        assert success(load.visits) == 1
        assert percentile(load.between(broken, end), 1) < 5
        assert percentile(load.between(broken + 5, end), 0.99) < 0.5
