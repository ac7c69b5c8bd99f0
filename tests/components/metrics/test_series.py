"""How many series there can be, whatever is sent."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from flask import Flask

from flask_prod import ProdKit
from flask_prod.core.component import Event
from flask_prod.core.kit import _Installing
from tests.apps import MakeApp

from .conftest import Samples, Scrape


def keys(samples: Samples) -> set[tuple[str, frozenset[tuple[str, str]]]]:
    """Return the series of a scrape, the buckets of one histogram as one."""
    return {
        (sample.name, frozenset(item for item in sample.labels.items() if item[0] != "le"))
        for sample in samples.samples
    }


@pytest.mark.parametrize("several", [False, True])
def test_flood(
    make_app: MakeApp, scrape: Scrape, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, several: bool
) -> None:
    """10,000 paths, 500 methods and 1,000 hosts add ten series at most."""
    if several:
        monkeypatch.setenv("PROMETHEUS_MULTIPROC_DIR", str(tmp_path / "metrics"))
    app = make_app(only=("metrics", "proxy", "headers", "cors"), SECURITY_FORCE_HTTPS=False)
    app.add_url_rule("/item/<int:number>", "item", lambda number: str(number))
    client = app.test_client()
    client.get("/item/1")
    before = keys(scrape(app))

    for number in range(10_000):
        client.get(f"/{number}.php" if number % 2 else f"/item/{number}")
    for number in range(500):
        client.open("/item/1", method=f"METHOD{number}")
    for number in range(1000):
        client.get("/item/1", headers={"Host": f"host{number}.example", "Origin": f"https://{number}.example"})

    assert len(keys(scrape(app)) - before) <= 10
    assert scrape(app).total("flask_http_request_total") == 11_501


@pytest.fixture
def events(monkeypatch: pytest.MonkeyPatch) -> list[Event]:
    """The events that rooms emit."""
    told: list[Event] = []
    monkeypatch.setattr(_Installing, "emit", lambda self, event: told.append(event))
    return told


def test_one_warning(make_app: MakeApp, events: list[Event], scrape: Scrape) -> None:
    """A metric that overflows is told once, with its name and what to do."""
    kit = ProdKit(only=("metrics",))
    seen = kit.metrics.business.histogram("seen_seconds", "Seen", ["who", "what"])
    app = make_app(kit=kit, METRICS_MAX_SERIES=5)
    with app.app_context():
        for number in range(100):
            seen.labels(number, "a").observe(0.1)

    assert [event.name for event in events] == ["prod.metrics.overflow"]
    assert "seen_seconds" in events[0].message
    assert "METRICS_MAX_SERIES" in events[0].message
    assert scrape(app).total("seen_seconds_count", {"who": "__overflow__", "what": "__overflow__"}) == 95
    assert scrape(app).total("seen_seconds_count") == 100


def test_decorators(make_app: MakeApp, scrape: Scrape) -> None:
    """The exporter's decorators are bounded too."""
    kit = ProdKit(only=("metrics",))
    app = make_app(kit=kit, METRICS_MAX_SERIES=5)
    label: Any = {"who": lambda response: response.get_data(as_text=True)}
    counted = kit.metrics.counter("visits", "Visits", labels=label)
    app.add_url_rule("/<who>", "visit", counted(lambda who: who))
    for number in range(20):
        app.test_client().get(f"/{number}")

    assert scrape(app).total("visits_total", {"who": "__overflow__"}) == 15


def test_rooms(make_app: MakeApp, scrape: Scrape) -> None:
    """The metrics of rooms are bounded too."""
    app = make_app(only=("metrics",), METRICS_MAX_SERIES=5)
    meter = app.extensions["prod"].contributions["metrics"].meter
    for number in range(20):
        meter.counter("flask_prod_lookups_total", "Lookups", ["who"]).inc(str(number))

    assert scrape(app).total("flask_prod_lookups_total", {"who": "__overflow__"}) == 15


def test_predecessors_and_neighbours(
    make_app: MakeApp, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, scrape: Scrape
) -> None:
    """The bound holds over processes and over their successors: labels that are there go on, new ones overflow."""
    monkeypatch.setenv("PROMETHEUS_MULTIPROC_DIR", str(tmp_path / "metrics"))

    def visited(app: Flask, numbers: range) -> None:
        meter = app.extensions["prod"].contributions["metrics"].meter
        for number in numbers:
            meter.counter("visits_total", "Visits", ["who"]).inc(str(number))

    neighbour, first = make_app(only=("metrics",), METRICS_MAX_SERIES=10), make_app(only=("metrics",))
    visited(first, range(8))
    first.extensions["prod"].lifecycle.close()
    heir = make_app(only=("metrics",), METRICS_MAX_SERIES=10)
    visited(heir, range(16))
    visited(neighbour, range(100, 110))

    seen = scrape(neighbour)
    assert len([s for s in seen.samples if s.name == "visits_total"]) == 11
    assert seen.total("visits_total", {"who": "3"}) == 2
    assert seen.total("visits_total", {"who": "__overflow__"}) == 6 + 10
    assert seen.total("visits_total") == 34


def test_events_are_counted(make_app: MakeApp, scrape: Scrape) -> None:
    """Every event of a room is a number in the scrape, by its name."""
    app = make_app(only=("metrics",))
    listen = app.extensions["prod"].contributions["metrics"].on_event
    for _ in range(2):
        listen(Event("prod.breaker.opened", "Redis is away", severity="error"))

    assert scrape(app).total("flask_prod_events_total", {"event": "prod.breaker.opened", "severity": "error"}) == 2
