"""A live Prometheus scrapes a service of two workers and agrees with what was sent."""

from __future__ import annotations

import json
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from tests import debian
from tests.apps import StartGunicorn
from tests.servers import HOST, Process, free_port, wait_for

APP = """
from flask import Flask
from flask_prod import ProdKit
from flask_prod.core.record import current_record

def create_app():
    app = Flask("shop")
    ProdKit(app, only=("metrics", "health", "proxy"))
    app.add_url_rule("/", view_func=lambda: "hello")

    @app.get("/traced/<trace_id>")
    def traced(trace_id):
        record = current_record()  # what the tracing room does to a request that it keeps
        record.trace_id, record.sampled = trace_id, True
        return "hello"

    return app
"""
CONFIG = """
global: {{scrape_interval: 1s, scrape_timeout: 1s}}
scrape_configs:
  - job_name: shop
    authorization: {{credentials: a-token-for-this-test}}
    static_configs: [{{targets: ["{target}"]}}]
"""


class Prometheus:
    """Debian's Prometheus on a free port."""

    def __init__(self, program: str, folder: Path, target: str) -> None:
        (folder / "prometheus.yml").write_text(CONFIG.format(target=target))
        self._address = f"{HOST}:{free_port()}"
        self.process = Process(folder)
        self.process.launch(
            [
                program, f"--config.file={folder}/prometheus.yml", f"--storage.tsdb.path={folder}/data",
                f"--web.listen-address={self._address}", "--enable-feature=exemplar-storage",
            ]
        )  # fmt: skip

    def ask(self, query: str) -> dict[tuple[str, ...], float]:
        """Return the value of every series of *query*, by its sorted label values; {} while it knows none."""
        url = f"http://{self._address}/api/v1/query?query={quote(query)}"
        try:
            with urllib.request.urlopen(url, timeout=5) as answer:
                found: list[dict[str, Any]] = json.load(answer)["data"]["result"]
        except OSError:
            return {}
        return {tuple(sorted(one["metric"].values())): float(one["value"][1]) for one in found}

    def exemplars(self, query: str) -> set[str]:
        """Return the trace ids that it keeps for the series of *query*; none while it does not answer."""
        now = time.time()
        url = (
            f"http://{self._address}/api/v1/query_exemplars?query={quote(query)}&start={now - 600}&end={now + 600}"
        )
        try:
            with urllib.request.urlopen(url, timeout=5) as answer:
                found: list[dict[str, Any]] = json.load(answer)["data"]
        except OSError:
            return set()
        return {one["labels"]["trace_id"] for series in found for one in series["exemplars"]}


@pytest.fixture(scope="module")
def program(pytestconfig: pytest.Config) -> str:
    """The path of Prometheus, unpacked once and kept in pytest's cache."""
    try:
        return debian.provide(["prometheus"], "prometheus", debian.kept(pytestconfig))
    except debian.Missing as reason:
        pytest.skip(str(reason))


@pytest.fixture
def prometheus(program: str, gunicorn: StartGunicorn, tmp_path: Path) -> Iterator[tuple[Prometheus, str]]:
    """Prometheus, scraping a service of two workers at the returned address."""
    server = gunicorn(
        source=APP, config="python:flask_prod.server.gunicorn_conf", args=["-w", "2"], ready="/health/live",
        env={"METRICS_TOKEN": "a-token-for-this-test"},
    )  # fmt: skip
    running = Prometheus(program, tmp_path, f"{HOST}:{server.port}")
    yield running, server.url
    running.process.finish()


def test_live_scrape(prometheus: tuple[Prometheus, str]) -> None:
    """Prometheus finds the service up, and after 40 requests counts 40, whichever worker it asks."""
    running, url = prometheus
    wait_for(lambda: 1.0 in running.ask("up").values(), 30, "the service to be up")
    for _ in range(40):
        with urllib.request.urlopen(url, timeout=5) as answer:
            assert answer.read() == b"hello"

    query = 'sum(flask_http_request_total{status="200"})'
    wait_for(lambda: 40.0 in running.ask(query).values(), 15, "all 40 requests to be counted")
    assert set(running.ask('flask_http_request_duration_seconds_count{url_rule="/"}').values()) == {40.0}
    assert running.ask("sum(increase(scrape_samples_scraped[30s]))")


def test_exemplars(prometheus: tuple[Prometheus, str]) -> None:
    """Prometheus takes the traces of sampled requests from the buckets, whichever worker served them."""
    running, url = prometheus
    for number in range(10):
        with urllib.request.urlopen(f"{url}/traced/{number:032x}", timeout=5) as answer:
            assert answer.read() == b"hello"
    query = "flask_http_request_duration_seconds_bucket"

    found = wait_for(lambda: running.exemplars(query), 30, "exemplars")

    assert found <= {f"{number:032x}" for number in range(10)}
