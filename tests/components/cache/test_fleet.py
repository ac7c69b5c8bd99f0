"""Two hundred clients and two workers: how often a page is computed, and how long an invalidated one is seen."""

from __future__ import annotations

import os
import signal
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.apps import StartGunicorn
from tests.servers import Gunicorn

CLIENTS = 200

SOURCE = """
import time
from pathlib import Path
from flask import Flask
from flask_prod import ProdKit

prod = ProdKit(only=["metrics", "redis", "cache"])
RUNS = Path(__file__).with_name("runs")
ROW = Path(__file__).with_name("row")

def create_app():
    app = Flask("shop")
    app.config.update(ENVIRONMENT="test")
    prod.init_app(app)

    @app.get("/")
    def index():
        return "up"

    @app.get("/slow/<name>")
    @prod.cache.cached(ttl="5m", tags=["slow", "slow:{name}"])
    def slow(name):
        time.sleep(0.5)
        with RUNS.open("a") as file:
            file.write(name + "\\n")
        return name

    @app.get("/row")
    @prod.cache.cached(ttl="5m", tags=["row"])
    def row():
        return ROW.read_text() if ROW.exists() else "0"

    @app.post("/row/<value>")
    def update(value):
        ROW.write_text(value)
        prod.cache.invalidate("row")
        return "updated"

    @app.post("/forget")
    def forget():
        prod.cache.invalidate("slow")
        return "forgotten"

    return app
"""


@pytest.fixture(params=["memory", "file", "redis", "tiered"])
def server(request: pytest.FixtureRequest, gunicorn: StartGunicorn, tmp_path: Path) -> Gunicorn:
    """Serve by two workers, with each back end."""
    env = {"CACHE_BACKEND": request.param, "CACHE_DIR": str(tmp_path / "cache"), "RUN_DIR": str(tmp_path / "run")}
    if request.param in ("redis", "tiered"):
        env["REDIS_URL"] = request.getfixturevalue("redis_url")
    args = ["-w", "2", "--threads", "100", "-k", "gthread"]
    return gunicorn(source=SOURCE, args=args, config="python:flask_prod.server.gunicorn_conf", env=env)


def visit_at_once(server: Gunicorn, path: str) -> int:
    """Let all clients come at once; return how often the view has run."""
    runs = Path(server.folder) / "runs"
    before = len(runs.read_text().split()) if runs.exists() else 0
    with ThreadPoolExecutor(CLIENTS) as pool:
        answers = list(pool.map(lambda _: server.get(path, timeout=30), range(CLIENTS)))
    assert {(answer.status, answer.text) for answer in answers} == {(200, path.rpartition("/")[2])}
    return len(runs.read_text().split()) - before


@pytest.mark.alone
def test_t10_stampede(server: Gunicorn) -> None:
    """200 clients on a cold page of 500 ms run its view once, and once more after an invalidation."""
    cold = visit_at_once(server, "/slow/a")
    server.request("POST", "/forget")
    again = visit_at_once(server, "/slow/a")

    assert (cold, again) == (1, 1)


def test_invalidation_reaches_every_worker(server: Gunicorn) -> None:
    """When `invalidate` has returned, neither worker answers with the old value (55)."""
    for value in range(1, 21):
        for _ in range(6):
            server.get("/row")
        assert server.request("POST", f"/row/{value}").text == "updated"
        assert {server.get("/row").text for _ in range(6)} == {str(value)}


def test_computation_of_a_killed_worker_is_taken_over(server: Gunicorn) -> None:
    """A worker that is killed while it computes holds the other ones up for two seconds at most."""
    with ThreadPoolExecutor(8) as pool:
        began = time.monotonic()
        waiting = [pool.submit(server.get, "/slow/killed", timeout=30) for _ in range(8)]
        time.sleep(0.2)
        os.kill(server.worker_pids()[0], signal.SIGKILL)
        texts = []
        for one in waiting:
            try:
                texts.append(one.result(30).text)
            except OSError:
                continue  # it was with the worker that is gone

    assert set(texts) <= {"killed"}
    assert server.get("/slow/killed", timeout=30).text == "killed"
    assert time.monotonic() - began < 5
