"""A collector, and applications whose spans go there."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from flask import Flask

from flask_prod import ProdKit
from tests.apps import MakeApp
from tests.otlp import Collector

MakeTraced = Callable[..., Flask]


@pytest.fixture
def collector() -> Iterator[Collector]:
    """Run a collector that speaks HTTP."""
    with Collector() as running:
        yield running


@pytest.fixture
def make_traced(make_app: MakeApp, collector: Collector) -> MakeTraced:
    """Give a factory of applications that send every request's spans to the collector."""

    def make(kit: ProdKit | None = None, **config: Any) -> Flask:
        config = {"OTLP_ENDPOINT": collector.url, "TRACING_SAMPLING_RATE": 1.0, **config}
        if kit is not None:
            return make_app(kit=kit, **config)
        return make_app(only=("metrics", "proxy", "tracing", "problems", "health"), **config)

    return make


def flush(app: Flask) -> None:
    """Have every span sent that has ended."""
    running = app.extensions["prod"].contributions["tracing"].handle.running
    assert running is not None
    assert running.sender.force_flush(5000)


def spans_total(app: Flask, result: str) -> float:
    """Return how many spans came to this end."""
    text = app.test_client().get("/metrics").text
    wanted = f'flask_prod_spans_total{{result="{result}"}} '
    return sum(float(line.removeprefix(wanted)) for line in text.splitlines() if line.startswith(wanted))
