"""The default metrics: what is counted, timed, and under which labels."""

from __future__ import annotations

import random
import shutil
import string
import subprocess
import time
from collections.abc import Iterator
from typing import Any

import pytest
from flask import Flask, Response, abort

from flask_prod import ProdKit
from tests.apps import MakeApp

from .conftest import Scrape

ONLY = ("metrics",)
TOTAL = "flask_http_request_total"
COUNT = "flask_http_request_duration_seconds_count"
EXCEPTIONS = "flask_http_request_exceptions_total"


@pytest.fixture
def shop(make_app: MakeApp) -> Flask:
    app = make_app(only=ONLY, PROPAGATE_EXCEPTIONS=False)

    @app.get("/product/<int:number>")
    def product(number: int) -> str:
        return f"product {number}"

    @app.get("/boom")
    def boom() -> str:
        raise ValueError("boom")

    @app.get("/slow")
    def slow() -> Response:
        def body() -> Iterator[str]:
            yield "a"
            time.sleep(0.2)
            yield "b"

        return Response(body())

    @app.get("/cut")
    def cut() -> Response:
        def body() -> Iterator[str]:
            yield "a"
            raise ValueError("cut")

        return Response(body())

    return app


def test_default_metrics(shop: Flask, scrape: Scrape) -> None:
    """Requests appear under the exporter's names, grouped by route template."""
    client = shop.test_client()
    for number in range(3):
        client.get(f"/product/{number}")

    seen = scrape(shop)

    labels = {"method": "GET", "url_rule": "/product/<int:number>", "status": "200"}
    assert seen.total(COUNT, labels) == 3
    assert seen.total(TOTAL, {"method": "GET", "status": "200"}) == 3
    assert seen.total("flask_prod_http_response_bytes_total", labels) == 27
    assert seen.has("flask_exporter_info")
    assert seen.has("flask_prod_build_info", {"service": "shop", "environment": "test"})


def test_histogram_counts_every_request(shop: Flask, scrape: Scrape) -> None:
    """The histogram and the counter agree, whatever was answered by whom."""

    @shop.get("/no")
    def no() -> str:
        abort(429)

    client = shop.test_client()
    for path in ("/product/1", "/no", "/no", "/nothing", "/boom"):
        client.get(path)

    seen = scrape(shop)

    assert seen.total(COUNT) == seen.total(TOTAL) == 5
    assert seen.total(TOTAL, {"status": "429"}) == 2


def test_exceptions(shop: Flask, scrape: Scrape) -> None:
    """A crash is counted though the application's own handler answered it, and once."""
    shop.register_error_handler(Exception, lambda error: ({"error": "sorry"}, 500))

    shop.test_client().get("/boom")

    assert scrape(shop).total(EXCEPTIONS, {"method": "GET", "status": "500"}) == 1


def test_client_errors(shop: Flask, scrape: Scrape) -> None:
    """A 404 is no exception, and what matched no route shares one label."""
    shop.test_client().get("/nothing")

    seen = scrape(shop)

    assert seen.total(EXCEPTIONS) == 0
    assert seen.total(COUNT, {"url_rule": "unmatched", "status": "404"}) == 1


def test_streams(shop: Flask, scrape: Scrape) -> None:
    """A streamed answer is timed to its last byte, and counts as a 500 when it breaks off by an exception."""
    client = shop.test_client()
    with client.get("/slow") as streamed:
        assert streamed.data == b"ab"
    with client.get("/cut") as answer, pytest.raises(ValueError, match="cut"):
        _ = answer.data

    seen = scrape(shop)

    assert seen.total("flask_http_request_duration_seconds_sum", {"url_rule": "/slow"}) >= 0.2
    assert seen.total(EXCEPTIONS, {"status": "500"}) == 1
    assert seen.total(TOTAL, {"status": "500"}) == 1


def test_in_flight(shop: Flask, scrape: Scrape) -> None:
    """A request counts as in flight while it runs; the scrape itself does not."""
    during: list[float] = []

    @shop.get("/look")
    def look() -> str:
        during.append(scrape(shop).total("flask_prod_http_requests_in_flight"))
        return ""

    shop.test_client().get("/look")

    assert during == [1]
    assert scrape(shop).total("flask_prod_http_requests_in_flight") == 0


def test_do_not_track(make_app: MakeApp, scrape: Scrape) -> None:
    """The exporter's decorators keep a view out of the default metrics."""
    kit = ProdKit(only=ONLY)
    metrics: Any = kit.get("metrics")
    app = make_app(kit=kit)
    app.add_url_rule("/quiet", "quiet", metrics.do_not_track()(lambda: "quiet"))
    app.add_url_rule("/silent", "silent", metrics.exclude_all_metrics()(lambda: "silent"))

    client = app.test_client()
    assert client.get("/quiet").text + client.get("/silent").text == "quietsilent"

    assert scrape(app).total(TOTAL) == 0


def test_series_stay_bounded(shop: Flask, scrape: Scrape) -> None:
    """Random paths, methods and hosts add next to nothing."""
    chance = random.Random(46)
    client = shop.test_client()
    client.get("/product/1")
    before = len(scrape(shop).samples)

    for number in range(300):
        word = "".join(chance.choices(string.ascii_lowercase, k=8))
        client.get(f"/{word}")
        client.get(f"/product/{number}", headers={"Host": f"{word}.example"})
        client.open("/product/1", method=word.upper())

    assert len(scrape(shop).samples) - before <= 10


def test_names_are_valid(shop: Flask) -> None:
    """promtool has nothing to say against names, types and help texts."""
    client = shop.test_client()
    client.get("/product/1")
    client.get("/boom")
    page = client.get("/metrics").data

    promtool = shutil.which("promtool")
    if promtool is None:
        from prometheus_client.parser import text_string_to_metric_families

        assert all(family.documentation for family in text_string_to_metric_families(page.decode()))
        return
    result = subprocess.run([promtool, "check", "metrics"], input=page, capture_output=True, check=False)
    assert (result.returncode, result.stdout + result.stderr) == (0, b"")


def test_buckets(make_app: MakeApp, scrape: Scrape) -> None:
    """METRICS_BUCKETS replaces the histogram's bounds."""
    app = make_app(only=ONLY, METRICS_BUCKETS=[0.1, 1])
    app.test_client().get("/")

    bounds = {s.labels["le"] for s in scrape(app).samples if s.name.endswith("seconds_bucket")}

    assert bounds == {"0.1", "1.0", "+Inf"}
