"""Worker classes of gunicorn: gevent, sync and gthread serve the whole kit, drain and end in time."""

from __future__ import annotations

import http.client
import json
import signal
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import pytest

from flask_prod.server import classes
from tests import servers
from tests.servers import HOST, Gunicorn, wait_for

MODULE = "python:flask_prod.server.gunicorn_conf"
SHOP = """
import os
import time

from flask import Flask, request, session
from flask_prod import ProdKit

prod = ProdKit()


def create_app():
    app = Flask("shop")
    app.secret_key = "0" * 32
    prod.init_app(app)

    @app.get("/")
    def home():
        return "home"

    @app.get("/limited")
    @prod.limiter.limit("3/minute")
    def limited():
        return "passed"

    @app.get("/cached")
    @prod.cache.cached(ttl="1m")
    def cached():
        return str(time.time())

    @app.get("/rows")
    def rows():
        from sqlalchemy import text
        return str(prod.db.session.execute(text("SELECT 41 + 1")).scalar())

    @app.get("/session")
    def visits():
        session["visits"] = session.get("visits", 0) + 1
        return str(session["visits"])

    @app.get("/slow")
    def slow():
        time.sleep(1)
        return "slow"

    @app.get("/stuck")
    def stuck():
        card_number = "4111111111111111"
        import ctypes
        ctypes.PyDLL(None).sleep(30)  # holds the interpreter's lock
        return card_number

    return app
"""


@pytest.fixture(scope="module", params=["gthread", "gevent", "sync"])
def shop(request: pytest.FixtureRequest, shared_valkey: servers.Valkey) -> Iterator[Gunicorn]:
    """Run one shop of each class with all rooms, Redis and a database."""
    env = {
        "REDIS_URL": shared_valkey.url, "DATABASE_URL": "sqlite:///shop.db", "WEB_WORKER_CLASS": request.param,
        "SECURITY_FORCE_HTTPS": "0", "DRAIN_SECONDS": "2", "METRICS_TOKEN": "", "SERVICE_NAME": request.param,
    }  # fmt: skip
    with Gunicorn(source=SHOP, config=MODULE, args=["-w", "1"], env=env) as server:
        server.env["KIND"] = request.param
        yield server


def test_rooms(shop: Gunicorn) -> None:
    """Limits, cache, sessions of both kinds, and Redis work, several requests at a time."""
    assert [shop.get("/limited").status for _ in range(4)] == [200, 200, 200, 429]
    assert len({shop.get("/cached").text for _ in range(3)}) == 1
    assert shop.get("/rows").text == "42"
    cookie = shop.get("/session").headers["Set-Cookie"].partition(";")[0]
    assert shop.get("/session", {"Cookie": cookie}).text == "2"
    assert shop.get("/health/ready").status == 200
    answers: list[str] = []
    threads = [threading.Thread(target=lambda: answers.append(shop.get("/rows").text)) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert answers == ["42"] * 8


def test_slow_requests_do_not_queue(shop: Gunicorn) -> None:
    """Threads and greenlets serve four slow requests in the time of one; sync one after the other, as it is."""
    if shop.env["KIND"] == "sync":
        pytest.skip("sync serves one request at a time")
    began = time.monotonic()
    threads = [threading.Thread(target=shop.get, args=("/slow",)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert time.monotonic() - began < 3


def test_no_warning_of_patching(shop: Gunicorn) -> None:
    """Nothing was imported before gevent patched it that must not be, and nobody warns."""
    assert "MonkeyPatch" not in shop.stderr + shop.stdout
    assert "RecursionError" not in shop.stderr + shop.stdout


def test_end(shop: Gunicorn) -> None:
    """It drains, does not wait for idle connections, and closes in order; this test comes last."""
    idle = http.client.HTTPConnection(HOST, shop.port, timeout=5)
    idle.request("GET", "/")
    idle.getresponse().read()
    began = time.monotonic()
    shop.term()
    wait_for(lambda: shop.get("/health/ready").status == 503, 1.9, "the drain")
    assert shop.get("/").headers["Connection"] == "close"

    assert shop.wait(15) == 0
    idle.close()
    assert 2 <= time.monotonic() - began < 12
    (line,) = (line for line in shop.stdout.splitlines() if "prod.process.closed" in line)
    rooms = list(json.loads(line)["fields"]["ms"])
    assert rooms[:2] == ["requests", "ticker"]
    assert rooms.index("jobs") < rooms.index("database") < rooms.index("cache") < rooms.index("redis")
    assert rooms.index("redis") < rooms.index("metrics")


def test_stuck_worker() -> None:
    """A worker that is stuck, in C and with the interpreter's lock, leaves the place in the log, and no value."""
    env = {"SECURITY_FORCE_HTTPS": "0", "WEB_TIMEOUT": "2", "WEB_WORKER_CLASS": "sync"}
    with Gunicorn(source=SHOP, config=MODULE, args=["-w", "1"], env=env) as server:
        stuck = threading.Thread(target=lambda: _ignore(server), daemon=True)
        stuck.start()
        wait_for(lambda: "prod.worker.stuck" in server.stderr, 15, "the stacks")
        wait_for(lambda: _status(server) == 200, 10, "its successor")
        stuck.join(10)
        (line,) = (line for line in server.stderr.splitlines() if "prod.worker.stuck" in line)
    assert "in stuck" in json.loads(line)["message"]
    assert "4111" not in line


def test_gevent_with_preload() -> None:
    """The application would be loaded before it is patched: refused with the reason."""
    with pytest.raises(RuntimeError, match="preload_app loads the application before gevent"):
        Gunicorn(source=SHOP, config=MODULE, args=["--preload", "-k", "gevent"]).__enter__()


def test_sync_with_threads() -> None:
    """gunicorn would run another class than was asked for: it says which."""
    with Gunicorn(source=SHOP, config=MODULE, args=["-w", "1", "-k", "sync", "--threads", "4"]) as server:
        assert "sync with 4 threads is gthread (ThreadWorker)" in server.stderr


def test_orphans_go() -> None:
    """Workers whose master was killed end by themselves, soon."""
    with Gunicorn(source=SHOP, config=MODULE, args=["-w", "2"]) as server:
        workers = server.worker_pids()
        server.process.send(signal.SIGKILL)
        wait_for(lambda: not any(servers.alive(pid) for pid in workers), 15, "the end of the workers")


def _ignore(server: Gunicorn) -> None:
    try:
        server.get("/stuck", timeout=10)
    except (OSError, http.client.HTTPException):
        return


def _status(server: Gunicorn) -> int:
    try:
        return server.get("/", timeout=2).status
    except (OSError, http.client.HTTPException):
        return 0


def test_quit_while_a_request_is_handed_over(monkeypatch: pytest.MonkeyPatch) -> None:
    """A signal that comes while gthread hands its pool a request can shut the pool down: it waits for nobody."""
    worker = SimpleNamespace(get_thread_pool=lambda: ThreadPoolExecutor(1))
    classes.adapt(worker)
    pool = worker.get_thread_pool()
    free: list[bool] = []

    def on_signal(*_: object) -> None:
        free.append(pool._shutdown_lock.acquire(timeout=1))
        if free[-1]:
            pool._shutdown_lock.release()
            pool.shutdown(wait=False)

    before = signal.signal(signal.SIGUSR2, on_signal)
    start = pool._adjust_thread_count

    def interrupted() -> None:
        signal.raise_signal(signal.SIGUSR2)
        start()

    monkeypatch.setattr(pool, "_adjust_thread_count", interrupted)
    try:
        done = pool.submit(lambda: "served").result(5)
    finally:
        signal.signal(signal.SIGUSR2, before)
        pool.shutdown()

    assert (free, done) == ([True], "served")
