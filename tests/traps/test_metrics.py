"""Traps of metrics: numbers that jump, vanish, never end, or leave requests out."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from http.client import HTTPException
from pathlib import Path
from typing import Any

import pytest
from flask import Response

from tests.servers import Gunicorn, HttpSink, wait_for

from .conftest import Crowd, OpenShop, Reported, ServeShop
from .shops import samples, total

TOTAL = "flask_http_request_total"
COUNT = "flask_http_request_duration_seconds_count"
SUM = "flask_http_request_duration_seconds_sum"
EXCEPTIONS = "flask_http_request_exceptions_total"
PLAIN = {"metrics": "plain"}

VIEWS = """
import time

@app.get("/")
def home():
    time.sleep(0.02)
    return "home"

if shop.metrics is not None:
    @app.get("/slow")
    @shop.metrics.gauge("slow_in_progress", "Slow requests that run")
    def slow():
        time.sleep(30)
        return "late"
"""


def scraped(server: Gunicorn, name: str, **labels: str) -> float:
    """Return the sum of a metric's series as one scrape shows it."""
    answer = server.get("/metrics")
    assert answer.status == 200
    return total(samples(answer.text), name, **labels)


def reaches(server: Gunicorn, name: str, count: float, **labels: str) -> bool:
    """Tell whether a scrape soon shows this count: requests are counted when their bodies are closed."""
    with suppress(TimeoutError):
        wait_for(lambda: scraped(server, name, **labels) == count, 2)
        return True
    return False


@pytest.mark.trap("under several workers /metrics shows one worker at random: counters jump up and down")
def test_trap_28_workers_are_summed(serve_shop: ServeShop, crowd: Crowd) -> None:
    """Every scrape shows the sum of all workers."""
    # By hand as in the first example of the exporter's README.
    server = serve_shop(VIEWS, by_hand={**PLAIN, "metrics_options": {"group_by": "url_rule"}})
    assert {answer.status for answer in crowd(server, "/", 40)} == {200}
    reaches(server, COUNT, 40, url_rule="/")

    texts = [answer.text for answer in crowd(server, "/metrics", 10)]
    seen = [total(samples(text), COUNT, url_rule="/") for text in texts]

    assert seen == [40.0] * 10, f"40 requests, ten scrapes: {sorted({int(number) for number in seen})}"


@pytest.mark.trap("counters outlive restarts, a killed worker's gauges stay for ever, process_* metrics vanish")
def test_trap_29_workers_die(serve_shop: ServeShop, tmp_path: Path) -> None:
    """A killed worker leaves no gauge behind, a restart begins at zero, and process metrics are there."""
    folder = tmp_path / "metrics"
    folder.mkdir()
    server = serve_shop(
        VIEWS,
        workers=1,
        env={"PROMETHEUS_MULTIPROC_DIR": str(folder), "WEB_CONCURRENCY": "1"},
        by_hand={"metrics": "gunicorn"},
    )
    for _ in range(5):
        assert server.get("/").status == 200
    (worker,) = server.worker_pids()
    with visited(server, "/slow"):
        time.sleep(0.3)
        os.kill(worker, signal.SIGKILL)
    assert server.get("/").status == 200

    running = scraped(server, "slow_in_progress")
    assert running == 0, f"{running:.0f} slow request runs in a worker that is dead"
    assert reaches(server, TOTAL, 6, status="200")
    assert scraped(server, "process_resident_memory_bytes") > 0
    server.stop()
    server.start()
    again = scraped(server, TOTAL, status="200")
    assert again == 0, f"after a restart {again:.0f} requests were counted before the first"


@contextmanager
def visited(server: Gunicorn, path: str) -> Iterator[None]:
    """Visit in the background, whatever becomes of it."""

    def visit() -> None:
        with suppress(OSError, HTTPException):
            server.get(path)

    thread = threading.Thread(target=visit)
    thread.start()
    yield
    thread.join()


@pytest.mark.trap("a second create_app() in one process exports nothing, and its own metrics raise")
def test_trap_30_two_applications(open_shop: OpenShop) -> None:
    """Any number of applications in one process, each with its own numbers."""
    shops = [open_shop(name=name, by_hand=PLAIN) for name in ("first", "second")]
    for shop in shops:
        shop.app.add_url_rule("/", "home", lambda: "home")
    assert shops[1].visit("/").status_code == 200
    counted = [int(total(shop.scrape(), TOTAL)) for shop in shops]
    assert counted == [0, 1], f"a request to the second was counted as {counted}"

    for name in ("third", "fourth"):
        shop = open_shop(name=name, by_hand=PLAIN)
        shop.app.add_url_rule("/sold", "sold", shop.metrics.counter("sold", "Sold")(lambda: "sold"))
        assert shop.visit("/sold").status_code == 200
        assert total(shop.scrape(), "sold_total") == 1


@pytest.mark.trap("metrics are grouped by path: every id and every scanned address adds some 18 lines for ever")
def test_trap_31_bounded_series(open_shop: OpenShop) -> None:
    """Two hundred ids and two hundred unknown paths add fewer than fifty lines."""
    shop = open_shop(by_hand=PLAIN)
    shop.app.add_url_rule("/item/<int:number>", "item", lambda number: str(number))
    before = len(shop.scrape())

    for number in range(200):
        assert shop.visit(f"/item/{number}").status_code == 200
        assert shop.visit(f"/scan/{number}.php").status_code == 404
    added = len(shop.scrape()) - before

    assert added < 50, f"400 requests added {added} lines"


@pytest.mark.trap("requests answered by limiter or Talisman are missing in the histogram if those are made first")
def test_trap_33_refusals_are_measured(open_shop: OpenShop) -> None:
    """Every request is in the counter and in the histogram, whoever answered it."""
    order = ("talisman", "cors", "limiter", "metrics", "cache")
    shop = open_shop(limit=3, by_hand={**PLAIN, "order": order})
    shop.app.add_url_rule("/", "home", lambda: "home")
    assert shop.statuses(8) == [200] * 3 + [429] * 5

    found = shop.scrape()

    counted, measured = total(found, TOTAL), total(found, COUNT)
    assert (counted, measured) == (8, 8), f"{counted:.0f} requests counted, {measured:.0f} measured"
    assert total(found, COUNT, status="429") == 5


@pytest.mark.trap("under the reloader /metrics is 404; elsewhere anybody may read it")
def test_trap_35_endpoint(open_shop: OpenShop, monkeypatch: pytest.MonkeyPatch) -> None:
    """/metrics is the same in development; one setting asks for a token."""
    monkeypatch.setenv("WERKZEUG_RUN_MAIN", "true")
    shop = open_shop(by_hand=PLAIN)
    status = shop.visit("/metrics").status_code
    assert status == 200, f"under the reloader /metrics is answered {status}"

    closed = open_shop(name="closed", kit={"METRICS_TOKEN": "let-me-in-please"})
    assert closed.visit("/metrics").status_code in (401, 404)
    assert closed.visit("/metrics", Authorization="Bearer let-me-in-please").status_code == 200


@pytest.mark.trap("a stream's duration ends at its first byte, and one that breaks off counts as 200")
def test_trap_50_streams(
    open_shop: OpenShop,
    errors_logged: list[Any],
    http_sink: HttpSink,
    reported: Reported,
) -> None:
    """Duration and outcome of a stream are taken at its end; the cache lets it through in silence."""
    shop = open_shop(sentry_dsn=http_sink.dsn, by_hand=PLAIN)

    def slowly() -> Iterator[str]:
        yield "a"
        time.sleep(0.4)
        yield "b"

    def broken() -> Iterator[str]:
        yield "a"
        raise ValueError("the rest is lost")

    shop.app.add_url_rule("/stream", "stream", lambda: Response(slowly()))
    shop.app.add_url_rule("/broken", "broken", lambda: Response(broken()))
    cached = shop.cache.cached(timeout=60)(lambda: Response(iter(("a", "b"))))
    shop.app.add_url_rule("/cached", "cached", cached)

    assert shop.visit("/stream").text == "ab"
    seconds = total(shop.scrape(), SUM)
    assert seconds >= 0.4, f"a stream of 0.4 s was measured as {seconds:.2f} s"

    with pytest.raises(ValueError, match="the rest is lost"):
        shop.visit("/broken")
    found = shop.scrape()
    assert total(found, TOTAL, status="500") == 1
    assert total(found, EXCEPTIONS) == 1
    assert len(reported(at_least=1)) == 1

    errors_logged.clear()
    assert [shop.visit("/cached").text for _ in range(2)] == ["ab", "ab"]
    assert not errors_logged


@pytest.mark.trap("multi-process metrics: without the variable the application does not even start")
def test_trap_61_no_variable(serve_shop: ServeShop, crowd: Crowd, by_hand: bool) -> None:
    """Nothing has to be set: not to import the application, and not for sums over two workers."""
    code = (
        "from tests.traps.shops import Wanted, open_by_hand, open_with_kit;"
        f"open = {'open_by_hand' if by_hand else 'open_with_kit'};"
        "print(open(Wanted(by_hand={'metrics': 'gunicorn'})).visit('/healthz').status_code)"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    last = run.stderr.strip().rpartition("\n")[2]
    assert run.returncode == 0, f"without PROMETHEUS_MULTIPROC_DIR the import ends with {last}"

    server = serve_shop(VIEWS, by_hand={"metrics": "gunicorn"})
    crowd(server, "/", 20)
    assert reaches(server, TOTAL, 20, status="200")
