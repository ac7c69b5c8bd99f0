"""What is declared belongs to no application, in whose context ever that is done."""

from __future__ import annotations

import pytest

from flask_prod import ProdKit
from flask_prod.components.metrics import MetricsFace
from tests.apps import MakeApp

from .conftest import Scrape


@pytest.fixture
def kit() -> ProdKit:
    return ProdKit(only=("metrics",))


@pytest.fixture
def metrics(kit: ProdKit) -> MetricsFace:
    face: MetricsFace = kit.get("metrics")
    return face


def test_series_held_by_a_module(kit: ProdKit, metrics: MetricsFace, make_app: MakeApp, scrape: Scrape) -> None:
    """A series taken in one application's context counts for whichever application uses it afterwards."""
    first, second = make_app(kit=kit), make_app(kit=kit)
    orders = metrics.business.counter("shop_orders_total", "Orders placed", ["channel"])
    with first.app_context():  # where a module happened to be imported
        web = orders.labels("web")
    with second.app_context():
        web.inc()

    assert scrape(first).total("shop_orders_total", {"channel": "web"}) == 0
    assert scrape(second).total("shop_orders_total", {"channel": "web"}) == 1


def test_series_taken_without_metrics(metrics: MetricsFace, make_app: MakeApp) -> None:
    """A module that holds a series can be imported in the context of an application that measures nothing."""
    orders = metrics.business.counter("shop_orders_total", "Orders placed", ["channel"])

    with make_app(without=("metrics",)).app_context():
        orders.labels(channel="web")


def test_decorators_of_a_series(kit: ProdKit, metrics: MetricsFace, make_app: MakeApp, scrape: Scrape) -> None:
    """The library's decorators work on a series too, before any application exists."""
    seconds = metrics.business.histogram("import_seconds", "Imports", ["source"])
    failures = metrics.business.counter("import_failures_total", "Imports that failed", ["source"])

    @seconds.labels("csv").time()
    @failures.labels("csv").count_exceptions()
    def read() -> None:
        raise ValueError("no csv")

    app = make_app(kit=kit)
    with app.app_context(), pytest.raises(ValueError, match="no csv"):
        read()

    seen = scrape(app)
    assert seen.total("import_seconds_count", {"source": "csv"}) == 1
    assert seen.total("import_failures_total", {"source": "csv"}) == 1


@pytest.mark.parametrize(
    ("values", "named"), [(("a", "b"), {}), ((), {}), ((), {"kanal": "a"}), (("a",), {"channel": "a"})]
)
def test_wrong_labels(
    kit: ProdKit,
    metrics: MetricsFace,
    make_app: MakeApp,
    scrape: Scrape,
    values: tuple[str, ...],
    named: dict[str, str],
) -> None:
    """Label values that do not fit are refused where they are given, not when somebody scrapes."""
    orders = metrics.business.counter("shop_orders_total", "Orders placed", ["channel"])
    app = make_app(kit=kit)

    with pytest.raises(ValueError, match=r"shop_orders_total has the labels \('channel',\)"):
        orders.labels(*values, **named)
    assert scrape(app).total("shop_orders_total") == 0


@pytest.mark.parametrize("value", ["half \ud800", "nul \0", 'a"b\\c\nd', "é 漢", "x" * 10_000])
def test_hostile_values(kit: ProdKit, metrics: MetricsFace, make_app: MakeApp, scrape: Scrape, value: str) -> None:
    """Whatever a client brings into a label, by JSON for instance, is counted and can be scraped."""
    orders = metrics.business.counter("shop_orders_total", "Orders placed", ["channel"])
    app = make_app(kit=kit)
    with app.app_context():
        orders.labels(value).inc()

    assert scrape(app).total("shop_orders_total") == 1


def test_info_of_each_application(kit: ProdKit, metrics: MetricsFace, make_app: MakeApp, scrape: Scrape) -> None:
    """A fact that is told in an application's context is that application's, and changes none of another's."""
    first = make_app(kit=kit)
    with first.app_context():
        metrics.info("shop_info", "About the shop", edition="first")
    second = make_app(kit=kit)
    with second.app_context():
        metrics.info("shop_info", "About the shop", edition="second")

    for app, mine, other in ((first, "first", "second"), (second, "second", "first")):
        assert scrape(app).total("shop_info", {"edition": mine}) == 1
        assert not scrape(app).has("shop_info", {"edition": other})


def test_other_options(metrics: MetricsFace) -> None:
    """A metric declared again with other buckets is refused: its numbers would fall into the first one's."""
    metrics.business.histogram("shop_value_euros", "Order value", buckets=[10, 50])
    metrics.business.histogram("shop_value_euros", "Order value", buckets=(10, 50))

    with pytest.raises(ValueError, match="another metric called shop_value_euros, with"):
        metrics.business.histogram("shop_value_euros", "Order value", buckets=[1, 2])
