"""Metrics whose disk is full, whose directory vanishes, and that everybody scrapes at once."""

from __future__ import annotations

import shutil
import statistics
import subprocess
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.apps import StartGunicorn
from tests.servers import wait_for

pytestmark = pytest.mark.faults

SHOP = """
from flask import Flask
from flask_prod import ProdKit

prod = ProdKit(only=("metrics", "logs"))
seen = prod.metrics.business.counter("shop_seen_total", "Seen", ["who"])

def create_app():
    app = Flask("shop")
    app.config.update(ENVIRONMENT="test", METRICS_MAX_SERIES=100_000)
    prod.init_app(app)

    @app.get("/<path:who>")
    def see(who):
        seen.labels(who * 40).inc()
        return "seen"

    return app
"""


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 512 KB; needs root."""
    folder = tmp_path / "disk"
    folder.mkdir()
    try:
        subprocess.run(
            ["mount", "-t", "tmpfs", "-o", "size=512k", "tmpfs", str(folder)], check=True, capture_output=True
        )
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("mounting a small disk needs root")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=False)


def test_full_disk(gunicorn: StartGunicorn, small_disk: Path) -> None:
    """A disk that fills up kills no worker and fails no request, and the scrape goes on."""
    server = gunicorn(
        source=SHOP, args=["-w", "2"], ready="/metrics", config="python:flask_prod.server.gunicorn_conf",
        env={"PROMETHEUS_MULTIPROC_DIR": str(small_disk)},
    )  # fmt: skip
    before = server.worker_pids()
    for number in range(3000):
        assert server.get(f"/visitor-{number}").status == 200
    assert shutil.disk_usage(small_disk).free < 300_000

    assert server.worker_pids() == before
    page = server.get("/metrics")
    assert page.status == 200
    assert "flask_http_request_total" in page.text
    wait_for(
        lambda: server.stdout.count("prod.metrics.unwritable") in (1, 2), 5, "one line for each worker at most"
    )


def test_directory_taken_away(gunicorn: StartGunicorn, tmp_path: Path) -> None:
    """A directory that somebody deletes costs numbers, no request, no scrape and no worker."""
    folder = tmp_path / "metrics"
    server = gunicorn(
        source=SHOP, args=["-w", "2"], ready="/metrics", config="python:flask_prod.server.gunicorn_conf",
        env={"PROMETHEUS_MULTIPROC_DIR": str(folder)},
    )  # fmt: skip
    before = server.worker_pids()
    for number in range(20):
        assert server.get(f"/{number}").status == 200
    shutil.rmtree(folder)
    for number in range(40):
        assert server.get(f"/later-{number}").status == 200
        assert server.get("/metrics").status == 200

    assert server.worker_pids() == before


def test_scrapes_under_load(gunicorn: StartGunicorn) -> None:
    """Ten scrapers at once and a thousand series: each is answered, no request fails, none waits for long."""
    server = gunicorn(
        source=SHOP, args=["-w", "2"], ready="/metrics", config="python:flask_prod.server.gunicorn_conf"
    )
    for number in range(1000):
        assert server.get(f"/{number}").status == 200

    def scrape(_: int) -> int:
        return server.get("/metrics", timeout=30).status

    def ask(number: int) -> tuple[int, float]:
        began = time.monotonic()
        status = server.get(f"/{number}", timeout=30).status
        return status, time.monotonic() - began

    with ThreadPoolExecutor(10) as pool:
        scrapes = pool.map(scrape, range(50))
        answers = list(pool.map(ask, range(200)))

    assert {*scrapes, *(status for status, _ in answers)} == {200}
    assert statistics.median(seconds for _, seconds in answers) < 2
