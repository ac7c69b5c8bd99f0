"""Numbers over the lives of processes: workers killed, reloaded and recycled, jobs in forked children."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.apps import StartGunicorn
from tests.servers import Gunicorn, Process, wait_for

from .conftest import Samples

SERVED = {"config": "python:flask_prod.server.gunicorn_conf"}
SHOP = """
import os, time
from flask import Flask
from flask_prod import ProdKit

prod = ProdKit(only=("metrics", "redis", "jobs"))
orders = prod.metrics.business.counter("shop_orders_total", "Orders placed", ["by"])
running = prod.metrics.business.gauge("shop_running", "Orders being placed", mode="livesum")

@prod.job
def order():
    orders.labels("job").inc()
    running.inc()

def create_app():
    app = Flask("shop")
    app.config["ENVIRONMENT"] = "test"
    prod.init_app(app)

    @app.get("/")
    def home():
        orders.labels("web").inc()
        return str(os.getpid())

    @app.get("/slow")
    def slow():
        with running.track_inprogress():
            time.sleep(20)
        return "late"

    @app.post("/order")
    def place():
        return order.dispatch().id

    return app
"""
COUNT = "flask_http_request_duration_seconds_count"


class Watch:
    """Scrapes again and again, and notes whatever fell."""

    def __init__(self, server: Gunicorn) -> None:
        self._server = server
        self._highest: dict[tuple[str, tuple[tuple[str, str], ...]], float] = {}
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self.fallen: list[str] = []
        self.scrapes = 0

    def __enter__(self) -> Watch:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._stop.wait(0.02):
            try:
                seen = Samples(self._server.get("/metrics", timeout=5).text)
            except (OSError, ValueError):
                continue
            self.scrapes += 1
            self._compare(seen)

    def _compare(self, seen: Samples) -> None:
        now = {
            (sample.name, tuple(sorted(sample.labels.items()))): sample.value
            for family in seen.families
            if family.type in ("counter", "histogram")
            for sample in family.samples
        }
        for key, highest in self._highest.items():
            if now.get(key, -1.0) < highest:
                self.fallen.append(f"{key}: {highest} -> {now.get(key)}")
        self._highest.update(now)


def scraped(server: Gunicorn) -> Samples:
    return Samples(server.get("/metrics").text)


def hits(server: Gunicorn) -> float:
    return scraped(server).total(COUNT, {"url_rule": "/"})


def reload(server: Gunicorn) -> None:
    """Let the master replace its workers, and wait until they are others."""
    before = set(server.worker_pids())
    server.signal(signal.SIGHUP)
    wait_for(lambda: len(set(server.worker_pids()) - before) == 2 and not set(server.worker_pids()) & before, 20)


def test_forty_requests(gunicorn: StartGunicorn) -> None:
    """With nothing set by the user, each of ten scrapes of two workers says 40 after 40 requests."""
    server = gunicorn(source=SHOP, args=["-w", "2"], ready="/metrics", **SERVED)
    for _ in range(40):
        assert server.get("/").status == 200
    wait_for(lambda: hits(server) == 40)

    assert [hits(server) for _ in range(10)] == [40] * 10
    assert scraped(server).total("shop_orders_total", {"by": "web"}) == 40


@pytest.mark.parametrize("preload", [[], ["--preload"]])
def test_counters_never_fall(gunicorn: StartGunicorn, preload: list[str]) -> None:
    """Workers are killed amid a request, reloaded and recycled; no counter falls, no gauge is stuck."""
    server = gunicorn(
        source=SHOP, args=["-w", "2", "--max-requests", "60", *preload], ready="/metrics", **SERVED
    )  # fmt: skip
    with Watch(server) as watch:
        for _ in range(40):
            server.get("/")
        slow = threading.Thread(target=ignoring, args=(lambda: server.get("/slow", timeout=5),))
        slow.start()
        wait_for(lambda: scraped(server).total("shop_running") == 1)
        assert scraped(server).total("flask_prod_http_requests_in_flight") == 1
        for pid in server.worker_pids():
            os.kill(pid, signal.SIGKILL)
        slow.join()
        wait_for(lambda: len(server.worker_pids()) == 2)
        wait_for(lambda: hits(server) == 40)
        reload(server)
        for _ in range(200):
            ignoring(lambda: server.get("/"))
        wait_for(lambda: hits(server) >= 239)

    assert watch.fallen == []
    assert watch.scrapes > 5
    assert scraped(server).total("shop_running") == 0
    assert scraped(server).total("flask_prod_http_requests_in_flight") == 0
    info = [s for s in scraped(server).samples if s.name == "flask_prod_build_info"]
    assert len(info) == 1


def test_connections(gunicorn: StartGunicorn) -> None:
    """Connections that a gthread worker holds open are shown."""
    server = gunicorn(source=SHOP, args=["-w", "1"], ready="/metrics", **SERVED)
    import http.client

    idle = [http.client.HTTPConnection("127.0.0.1", server.port) for _ in range(3)]
    for connection in idle:
        connection.request("GET", "/")
        connection.getresponse().read()
    wait_for(lambda: scraped(server).total("flask_prod_http_connections") >= 3)
    for connection in idle:
        connection.close()


@pytest.fixture
def worker(tmp_path: Path, redis_url: str) -> Iterator[Callable[[], Process]]:
    """Give a function that starts `flask prod worker` from a shell of its own, beside the web server."""
    started: list[Process] = []

    def start() -> Process:
        folder = tmp_path / f"worker{len(started)}"
        folder.mkdir()
        process = Process(folder)
        path = os.pathsep.join((str(tmp_path), str(Path(__file__).parents[3])))
        env = {**os.environ, "REDIS_URL": redis_url, "RUN_DIR": str(tmp_path / "run"), "PYTHONPATH": path}
        process.launch([sys.executable, "-m", "flask", "--app", "app", "prod", "worker"], env, tmp_path)
        started.append(process)
        return process

    yield start
    for process in started:
        process.finish()


def test_jobs(gunicorn: StartGunicorn, worker: Callable[[], Process], tmp_path: Path, redis_url: str) -> None:
    """What jobs count, in the processes of a worker started apart, is in the scrape of the web: before and after
    either was restarted, without a file for each process that ever lived."""
    (tmp_path / "app.py").write_text(SHOP)
    env = {"REDIS_URL": redis_url, "RUN_DIR": str(tmp_path / "run")}
    jobs = worker()
    server = gunicorn(source=SHOP, args=["-w", "2"], ready="/metrics", env=env, **SERVED)

    def counted() -> float:
        return scraped(server).total("shop_orders_total", {"by": "job"})

    def place(count: int) -> None:
        for _ in range(count):
            assert server.request("POST", "/order").status == 200

    wait_for((tmp_path / "run" / "metrics-directory").exists, 10)
    place(5)
    wait_for(lambda: counted() == 5, 20, "five jobs to be counted")
    folder = Path((tmp_path / "run" / "metrics-directory").read_text())
    files = len(list(folder.iterdir()))
    place(10)
    wait_for(lambda: counted() == 15, 20, "15 jobs to be counted")
    assert len(list(folder.iterdir())) <= files + 4
    wait_for(lambda: scraped(server).total("flask_prod_jobs_finished_total") == 15)
    assert scraped(server).total("shop_running") == 15  # nobody took it down, and the process lives

    jobs.kill()
    wait_for(lambda: scraped(server).total("shop_running") == 0, 10, "the dead worker's gauge to go")
    worker()
    place(1)
    wait_for(lambda: counted() == 16, 20, "counters to go on after the worker's restart")
    server.stop()
    server.start()
    wait_for(lambda: (tmp_path / "run" / "metrics-directory").read_text() != str(folder))
    place(2)
    wait_for(lambda: counted() == 2, 20, "the same worker to count for the new server")


def ignoring(call: Callable[[], object]) -> None:
    try:
        call()
    except OSError:
        time.sleep(0.1)
