"""The room under real gunicorn: several workers, one of them killed."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from flask_prod.core.component import Contribution
from tests.apps import MakeApp, StartGunicorn

from .conftest import Samples, Scrape

SHOP = """
import time
from flask import Flask
from flask_prod import ProdKit

def create_app():
    app = Flask("shop")
    app.config["ENVIRONMENT"] = "test"
    app.add_url_rule("/", "home", lambda: "home")
    app.add_url_rule("/slow", "slow", lambda: (time.sleep(30), "slow")[1])
    ProdKit(app, only=("metrics",))
    return app
"""


@pytest.mark.parametrize("preload", [[], ["--preload"]])
def test_workers(
    gunicorn: StartGunicorn, tmp_path: Path, wait_for: Callable[..., Any], preload: list[str]
) -> None:
    """Each of ten scrapes adds up all workers; a killed one takes nothing back and leaves no gauge stuck."""
    server = gunicorn(
        source=SHOP,
        args=["-w", "2", "-k", "gthread", "--threads", "4", *preload],
        env={"PROMETHEUS_MULTIPROC_DIR": str(tmp_path / "metrics")},
    )

    def home() -> float:
        return Samples(server.get("/metrics").text).total(
            "flask_http_request_duration_seconds_count", {"url_rule": "/"}
        )

    def in_flight() -> float:
        return Samples(server.get("/metrics").text).total("flask_prod_http_requests_in_flight")

    wait_for(lambda: home() >= 1)  # a request is counted when its answer has left, so a moment later
    ready = home()
    for _ in range(40):
        assert server.get("/").status == 200
    wait_for(lambda: home() - ready == 40)
    assert [home() - ready for _ in range(10)] == [40] * 10

    slow = threading.Thread(target=_ignore, args=(lambda: server.get("/slow", timeout=5),))
    slow.start()
    wait_for(lambda: in_flight() == 1)
    before = set(server.worker_pids())
    for pid in before:
        os.kill(pid, signal.SIGKILL)
    slow.join()
    wait_for(lambda: len(set(server.worker_pids()) - before) == 2)
    server.get("/")

    wait_for(lambda: home() - ready == 41)
    assert in_flight() == 0
    assert len(list((tmp_path / "metrics").glob("counter_*.db"))) <= 3


def _ignore(call: Callable[[], object]) -> None:
    try:
        call()
    except OSError:
        return


def test_meter(make_app: MakeApp, scrape: Scrape) -> None:
    """Other rooms count and measure through the kit's meter, without labels and with."""
    app = make_app(only=("metrics",))
    meter = app.extensions["prod"].contributions["metrics"].meter
    counter = meter.counter("flask_prod_limit_exceeded_total", "Limits exceeded", ["policy"])
    gauge = meter.gauge("flask_prod_redis_degraded", "Redis is kept away from requests")

    counter.inc("public")
    meter.counter("flask_prod_limit_exceeded_total", "Limits exceeded", ["policy"]).inc("public")
    gauge.set(1)

    assert isinstance(app.extensions["prod"].contributions["metrics"], Contribution)
    assert scrape(app).total("flask_prod_limit_exceeded_total", {"policy": "public"}) == 2
    assert scrape(app).total("flask_prod_redis_degraded") == 1


def test_meter_histogram(make_app: MakeApp, scrape: Scrape) -> None:
    """Other rooms measure distributions, in buckets of their own or in the library's."""
    app = make_app(only=("metrics",))
    meter = app.extensions["prod"].contributions["metrics"].meter

    meter.histogram("flask_prod_lookup_seconds", "Lookups", ["kind"], buckets=(1, 2)).observe(1.5, "hit")
    meter.histogram("flask_prod_wait_seconds", "Waits").observe(0.2)

    seen = scrape(app)
    assert seen.total("flask_prod_lookup_seconds_bucket", {"kind": "hit", "le": "1.0"}) == 0
    assert seen.total("flask_prod_lookup_seconds_bucket", {"kind": "hit", "le": "2.0"}) == 1
    assert seen.total("flask_prod_wait_seconds_sum") == 0.2


@pytest.mark.parametrize("several", [False, True])
def test_meter_total(make_app: MakeApp, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, several: bool) -> None:
    """A room asks for the sum of a counter: over its series, and over processes where there are several."""
    if several:
        monkeypatch.setenv("PROMETHEUS_MULTIPROC_DIR", str(tmp_path))
    apps = [make_app(only=("metrics",)), make_app(only=("metrics",))]
    meters = [app.extensions["prod"].contributions["metrics"].meter for app in apps]
    for meter in meters:
        meter.counter("flask_prod_limit_exceeded_total", "Limits exceeded", ["policy"]).inc("public")
        meter.counter("flask_prod_limit_exceeded_total", "Limits exceeded", ["policy"]).inc("login")
        meter.counter("flask_prod_limit_exceeded_anyway_total", "Another").inc()

    assert meters[0].total("flask_prod_limit_exceeded_total") == (4 if several else 2)
    assert meters[0].total("flask_prod_unheard_of_total") == 0


def test_fork_between_requests(
    make_app: MakeApp, scrape: Scrape, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A process that has served forks; both go on serving, and their requests add up."""
    monkeypatch.setenv("PROMETHEUS_MULTIPROC_DIR", str(tmp_path / "metrics"))
    app = make_app(only=("metrics",))
    for _ in range(3):
        app.test_client().get("/")
    child = os.fork()
    if child == 0:
        app.test_client().get("/")
        os._exit(0)
    _, status = os.waitpid(child, 0)
    app.test_client().get("/")

    assert status == 0
    assert scrape(app).total("flask_http_request_total", {"status": "404"}) == 5
    assert scrape(app).total("flask_prod_http_response_bytes_total", {"method": "GET"}) > 0
