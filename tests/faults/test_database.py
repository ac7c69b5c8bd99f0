"""A database that is killed, swallowed by the network, or used on both sides of a fork."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psycopg
import pytest

from tests.apps import StartFaultProxy, StartGunicorn
from tests.servers import HOST, Gunicorn, Postgres, wait_for

from .load import SHORT, Load, percentile

pytestmark = pytest.mark.faults

SECONDS = float(os.environ.get("FAULTS_SECONDS", "20"))
WORKERS, OPEN = 2, 6
QUERIES = 50
"""Queries of one request where rows are compared."""

JOB_QUERIES = 500 if SHORT else 2500
"""Queries of one of four jobs."""

SHOP = f"""
import os
import random

from flask import Flask
from sqlalchemy import text

from flask_prod import ProdKit

prod = ProdKit(without=["ratelimit"])
app = Flask("shop")
prod.init_app(app)

with app.app_context():  # what an application reads from its database while it is built, before the fork
    try:
        prod.db.session.execute(text("SELECT 1"))
    except Exception:
        pass

def asked():
    number = random.randrange(1_000_000_000)
    statement = text("SELECT CAST(:n AS INTEGER)")
    return prod.db.session.execute(statement, {{"n": number}}).scalar() == number

@app.get("/")
def one():
    return "right" if asked() else ("wrong row", 418)

@app.get("/who")
def who():
    return str(os.getpid()) if asked() else ("wrong row", 418)

@app.get("/many")
def many():
    return str(sum(not asked() for _ in range({QUERIES})))

@prod.job
def compare():
    wrong = sum(not asked() for _ in range({JOB_QUERIES}))
    prod.db.session.execute(text("INSERT INTO compared VALUES (:wrong)"), {{"wrong": wrong}})
    prod.db.session.commit()

@app.get("/sleep")
def sleep():
    prod.db.session.execute(text("SELECT pg_sleep(3)"))
    return "slept"
"""
ENVIRON = {
    "WEB_CONCURRENCY": str(WORKERS),
    "WEB_THREADS": "8",  # as many as there are clients: nobody waits for a thread, wherever they come
    "ENVIRONMENT": "production",
    "SECURITY_FORCE_HTTPS": "false",
    "LOG_OUTPUT": os.devnull,
    "DATABASE_MAX_OPEN_CONNS": str(OPEN),
}


@pytest.fixture(scope="module")
def postgres() -> Iterator[Postgres]:
    """Run a PostgreSQL for this module."""
    with Postgres() as server:
        yield server


def serve(gunicorn: StartGunicorn, port: int, *args: str, **env: str) -> Gunicorn:
    """Serve the shop by two workers with a PostgreSQL at this port."""
    url = f"postgresql://postgres@{HOST}:{port}/postgres"
    return gunicorn(
        "app:app", source=SHOP, config="python:flask_prod.server.gunicorn_conf", args=args,
        env={**ENVIRON, "DATABASE_URL": url, **env}, ready="/health/live",
    )  # fmt: skip


def test_t48_postgres_is_killed(gunicorn: StartGunicorn) -> None:
    """kill -9 under load: 503 while it is away, right again at most 2 s after its return, never a wrong row."""
    with Postgres() as postgres, Load(serve(gunicorn, postgres.port), clients=8) as load:
        time.sleep(max(1.0, SECONDS / 4))
        killed = time.monotonic()
        postgres.kill()
        time.sleep(max(1.0, SECONDS / 4))
        postgres.start()
        back = time.monotonic()
        time.sleep(3)

    statuses = Counter(visit.status for visit in load.visits)
    assert set(statuses) == {200, 503}, statuses
    assert {visit.status for visit in load.between(0, killed - 0.1)} == {200}
    failed = [visit for visit in load.visits if visit.began >= back and visit.status != 200]
    assert len(failed) <= WORKERS * OPEN
    assert not [visit for visit in failed if visit.began > back + 2]
    assert max(visit.seconds for visit in load.visits) < 2.5


def test_t48_network_swallows_everything(
    gunicorn: StartGunicorn, postgres: Postgres, fault_proxy: StartFaultProxy
) -> None:
    """A black hole between requests: 503 within 2 s each, most at once, and right again when it is gone."""
    proxy = fault_proxy(postgres.port)
    server = serve(gunicorn, proxy.port)
    wait_for(lambda: len({server.get("/who").text for _ in range(8)}) == WORKERS, 20)
    time.sleep(0.5)  # connections are opened in the background
    proxy.set("blackhole")
    with Load(server, clients=8) as load:
        time.sleep(max(4.0, SECONDS / 2))
        proxy.set("pass")
        back = time.monotonic()
        time.sleep(3.5)

    during = load.between(0, back - 2.2)
    assert {visit.status for visit in during} == {503}
    assert max(visit.seconds for visit in during) < 2.3  # connecting has two seconds
    assert percentile(during, 0.5) < 0.5
    late = load.between(back + 2, back + 60)
    assert {visit.status for visit in late} == {200}


def test_t48_all_connections_are_asleep(gunicorn: StartGunicorn, postgres: Postgres) -> None:
    """Whoever finds every connection in use has 503 with Retry-After within 2 s."""
    server = serve(gunicorn, postgres.port, WEB_CONCURRENCY="1", WEB_THREADS="10", DATABASE_MAX_OPEN_CONNS="4")
    with ThreadPoolExecutor(5) as threads:
        sleeping = [threads.submit(server.get, "/sleep") for _ in range(4)]
        time.sleep(0.5)
        began = time.monotonic()
        answer = server.get("/")
        taken = time.monotonic() - began
        assert [one.result().status for one in sleeping] == [200] * 4

    assert (answer.status, answer.headers["Retry-After"]) == (503, "1")
    assert taken < 2


def test_rows_on_both_sides_of_a_fork(gunicorn: StartGunicorn, postgres: Postgres) -> None:
    """Preloaded, used before the fork, two workers: no wrong row and no error in 10,000 queries."""
    server = serve(gunicorn, postgres.port, "--preload")
    with ThreadPoolExecutor(8) as threads:
        answers = list(threads.map(lambda _: server.get("/many", timeout=30), range(10_000 // QUERIES)))

    assert {(answer.status, answer.text) for answer in answers} == {(200, "0")}


def test_rows_in_children_of_a_worker(postgres: Postgres, redis_url: str, tmp_path: Path) -> None:
    """Jobs forked from a worker that has used its engine: no wrong row and no error in 10,000 queries."""
    (tmp_path / "app.py").write_text(SHOP)
    jobs = 4
    with postgres.database() as url:
        env = {**os.environ, **ENVIRON, "DATABASE_URL": url, "REDIS_URL": redis_url, "FLASK_APP": "app"}
        prepare = (
            "from app import *\nwith app.app_context():\n"
            "  prod.db.session.execute(text('CREATE TABLE compared (wrong INTEGER)')); prod.db.session.commit()\n"
            f"  for _ in range({jobs}): compare.dispatch()\n"
        )
        worker = ("-m", "flask", "prod", "worker", "--isolate", "--burst", "--processes", "2")
        for command in (("-c", prepare), worker):
            done = subprocess.run(
                [sys.executable, *command],
                cwd=tmp_path,
                env=env,
                capture_output=True,
                text=True,
                timeout=90,
                check=False,
            )
            assert done.returncode == 0, done.stderr
        with psycopg.connect(url.replace("+psycopg", "")) as connection:
            found = connection.execute("SELECT count(*), sum(wrong) FROM compared").fetchone()

    assert found == (jobs, 0)
