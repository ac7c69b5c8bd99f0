"""Metrics declared at module level, before any application exists."""

from __future__ import annotations

import pytest
from flask import Flask

from flask_prod import ConfigError, NotInstalled, ProdKit
from flask_prod.components.metrics import MetricsFace
from tests.apps import MakeApp

from .conftest import Scrape

ONLY = ("metrics",)


@pytest.fixture
def kit() -> ProdKit:
    return ProdKit(only=ONLY)


@pytest.fixture
def metrics(kit: ProdKit) -> MetricsFace:
    face: MetricsFace = kit.get("metrics")
    return face


def test_decorators(kit: ProdKit, metrics: MetricsFace, make_app: MakeApp, scrape: Scrape) -> None:
    """The exporter's four decorators work unchanged on views that are decorated before the application exists."""

    @metrics.counter("views", "Views", labels={"status": lambda answer: answer.status_code, "kind": "shop"})
    @metrics.gauge("views_running", "Views running")
    @metrics.histogram("view_seconds", "View duration", buckets=[1, 2])
    @metrics.summary("view_summary_seconds", "View duration")
    def view() -> str:
        return "seen"

    app = make_app(kit=kit)
    app.add_url_rule("/", "view", view)

    assert app.test_client().get("/").text == "seen"

    seen = scrape(app)
    assert seen.total("views_total", {"status": "200", "kind": "shop"}) == 1
    assert seen.total("view_seconds_count") == seen.total("view_summary_seconds_count") == 1
    assert seen.has("views_running")


def test_two_applications(kit: ProdKit, metrics: MetricsFace, make_app: MakeApp, scrape: Scrape) -> None:
    """Two applications of one process share neither default metrics nor declared ones."""
    orders = metrics.business.counter("shop_orders_total", "Orders placed")
    first, second = make_app(kit=kit), make_app(kit=kit)

    first.test_client().get("/")
    with first.app_context():
        orders.inc(2)

    assert scrape(first).total("shop_orders_total") == 2
    assert scrape(second).total("shop_orders_total") == 0
    assert scrape(first).total("flask_http_request_total") == 1
    assert scrape(second).total("flask_http_request_total") == 0


def test_business_metrics(kit: ProdKit, metrics: MetricsFace, make_app: MakeApp, scrape: Scrape) -> None:
    """A shop counts orders, observes their value and sets its stock, in a request or a job."""
    orders = metrics.business.counter("shop_orders_total", "Orders placed", ["channel"])
    value = metrics.business.histogram("shop_order_value_euros", "Order value", buckets=[10, 100])
    average = metrics.business.summary("shop_basket_items", "Items per order")
    stock = metrics.business.gauge("shop_inventory_level", "Items in stock", ["sku"])
    web = orders.labels("web")
    app = make_app(kit=kit)

    assert scrape(app).has("shop_orders_total", {"channel": "web"}), "a child made in advance shows as zero"
    with app.app_context():
        web.inc()
        orders.labels(channel="phone").inc()
        value.observe(50)
        average.observe(3)
        stock.labels("A1").set(7)

    seen = scrape(app)
    assert seen.total("shop_orders_total") == 2
    assert seen.total("shop_order_value_euros_bucket", {"le": "100.0"}) == 1
    assert seen.total("shop_basket_items_sum") == 3
    assert seen.total("shop_inventory_level", {"sku": "A1"}) == 7


def test_timers(kit: ProdKit, metrics: MetricsFace, make_app: MakeApp, scrape: Scrape) -> None:
    """The library's context managers and decorators work on a declared metric before any application exists."""
    seconds = metrics.business.summary("import_seconds", "Import duration")
    failures = metrics.business.counter("import_failures_total", "Imports that failed")

    @seconds.time()
    @failures.count_exceptions()
    def fail() -> None:
        raise ValueError("no")

    app = make_app(kit=kit)
    with app.app_context(), pytest.raises(ValueError, match="no"):
        fail()

    assert scrape(app).total("import_seconds_count") == scrape(app).total("import_failures_total") == 1


def test_info(kit: ProdKit, metrics: MetricsFace, make_app: MakeApp, scrape: Scrape) -> None:
    """`info` reports its labels, and lets a later value stand."""
    fact = metrics.info("shop_info", "About the shop", version="1.2", major=1)
    metrics.info("shop_place", "Where", ("city",), ("Bonn",))
    app = make_app(kit=kit)

    assert scrape(app).total("shop_info", {"version": "1.2", "major": "1"}) == 1
    with app.app_context():
        fact.set(2)

    assert scrape(app).total("shop_info") == 2
    assert scrape(app).total("shop_place", {"city": "Bonn"}) == 1


def test_register_default(kit: ProdKit, metrics: MetricsFace, make_app: MakeApp, scrape: Scrape) -> None:
    """`register_default` wraps every view of an application."""
    app = make_app(kit=kit)
    app.add_url_rule("/a", "a", lambda: "a")
    app.add_url_rule("/b", "b", lambda: "b")
    metrics.register_default(metrics.counter("hits", "Hits", labels={"status": lambda r: r.status_code}), app=app)

    client = app.test_client()
    client.get("/a")
    client.get("/b")

    assert scrape(app).total("hits_total") == 2


def test_same_name_twice(kit: ProdKit, metrics: MetricsFace, make_app: MakeApp) -> None:
    """The same declaration twice is one metric; a different one of that name is refused."""
    metrics.business.counter("shop_orders_total", "Orders placed")
    metrics.business.counter("shop_orders_total", "Orders placed")

    with pytest.raises(
        ValueError,
        match="another metric called shop_orders_total: a Counter",
    ):
        metrics.business.gauge("shop_orders_total", "Orders placed")


def test_name_of_ours(kit: ProdKit, metrics: MetricsFace, make_app: MakeApp) -> None:
    """A declaration that takes the name of a default metric stops the start with its name."""
    metrics.business.gauge("flask_http_request_total", "Mine")

    with pytest.raises(ConfigError, match="flask_http_request_total"):
        make_app(kit=kit)


def test_without_application(metrics: MetricsFace) -> None:
    """Counting outside of any application says what to do."""
    orders = metrics.business.counter("shop_orders_total", "Orders placed")

    with pytest.raises(NotInstalled, match="app_context"):
        orders.inc()


def test_overflow(kit: ProdKit, metrics: MetricsFace, make_app: MakeApp, scrape: Scrape) -> None:
    """Label values beyond METRICS_MAX_SERIES are counted together, under a label that says so."""
    seen = metrics.business.counter("seen_total", "Seen", ["who"])
    app = make_app(kit=kit, METRICS_MAX_SERIES=3)

    with app.app_context():
        for number in range(10):
            seen.labels(number).inc()

    assert scrape(app).total("seen_total", {"who": "__overflow__"}) == 7
    assert scrape(app).total("seen_total") == 10


def test_generate_metrics(kit: ProdKit, metrics: MetricsFace, make_app: MakeApp) -> None:
    """The exporter's `generate_metrics` and `registry` are those of the current application."""
    app: Flask = make_app(kit=kit)
    metrics.init_app(app)
    metrics.export_defaults(app=app)

    with app.app_context():
        text, content_type = metrics.generate_metrics()
        assert metrics.registry.get_sample_value("flask_prod_http_requests_in_flight") == 0

    assert "flask_exporter_info" in text
    assert content_type.startswith("text/plain")
    assert list(metrics.registry.collect()) == []
