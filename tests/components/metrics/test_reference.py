"""The names of all metrics: as the page says, and as Prometheus wants them."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from flask import Flask
from prometheus_client.openmetrics.parser import text_string_to_metric_families

from flask_prod import ProdKit
from tests import debian
from tests.apps import MakeApp

from .reference import PAGE, everything, renewed


@pytest.fixture(params=[False, True], ids=["one process", "several"])
def app(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> Iterator[Flask]:
    """An application with all that measures, in one process and as one of several."""
    if request.param:
        monkeypatch.setenv("PROMETHEUS_MULTIPROC_DIR", str(tmp_path / "metrics"))
    app = everything(tmp_path)
    app.test_client().get("/", base_url="http://shop.example")
    yield app
    app.extensions["prod"].lifecycle.close()


def test_page(tmp_path: Path) -> None:
    """docs/metrics.md has today's table; `python -m tests.components.metrics.reference` renews it."""
    page = PAGE.read_text()

    assert renewed(page, tmp_path) == page


def test_command(make_app: MakeApp) -> None:
    """`flask prod metrics` lists the rooms' metrics and the application's own."""
    kit = ProdKit(only=("metrics",))
    kit.metrics.business.counter("shop_orders_total", "Orders placed.", ["channel"])
    app = make_app(kit=kit)
    (command,) = app.extensions["prod"].contributions["metrics"].commands

    text = app.test_cli_runner().invoke(command).output
    table = app.test_cli_runner().invoke(command, ["--markdown"]).output

    assert "application:\n  shop_orders_total{channel}\n      counter. Orders placed\n" in text
    assert "metrics:\n  flask_exporter_info{version}" in text
    assert "| `flask_http_request_total` | counter | `method`, `status` |" in table
    assert "shop_orders" not in table


def test_promtool(app: Flask, pytestconfig: pytest.Config) -> None:
    """`promtool check metrics` has nothing to say."""
    try:
        promtool = debian.provide(["promtool"], "prometheus", debian.kept(pytestconfig))
    except debian.Missing as reason:
        pytest.skip(str(reason))
    page = app.test_client().get("/metrics")

    said = subprocess.run(
        [promtool, "check", "metrics"], input=page.data, capture_output=True, check=False, timeout=30
    )

    assert (said.returncode, said.stdout, said.stderr) == (0, b"", b"")


def test_openmetrics(app: Flask) -> None:
    """The page in OpenMetrics is parsed by a strict parser."""
    accept = {"Accept": "application/openmetrics-text; version=1.0.0"}
    text = app.test_client().get("/metrics", headers=accept).text

    names = {family.name for family in text_string_to_metric_families(text)}

    assert {"flask_http_request", "flask_http_request_duration_seconds", "flask_prod_build_info"} <= names
