"""Dashboards: each panel says what it shows, in words that Prometheus understands, of what the service tells."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

import pytest
import yaml
from flask import Flask

from flask_prod import ProdKit
from flask_prod.core.errors import MissingExtra
from flask_prod.core.kit import state_of
from flask_prod.deploy.alerts import recordings
from flask_prod.deploy.dashboards import Board, Panel, boards, dashboard_files
from flask_prod.deploy.dashboards.panel import WIDTH
from flask_prod.deploy.own import Own
from flask_prod.deploy.plan import Plan
from flask_prod.deploy.reading import read_plan
from tests.apps import MakeApp
from tests.components.metrics.reference import everything

from .asking import prometheus
from .conftest import ROOT
from .tools import program

UNITS = {
    *("reqps", "Bps", "ops", "cps", "short", "s", "bytes", "percentunit", "percent", "celsius", "currencyEUR"),
    *("currencyUSD", "currencyGBP", "currencyJPY", "currencyCHF", "lengthm", "massg", "joule", "watt"),
}
"""Grafana's names of the units that are used; one that it does not know is shown as text behind the number."""

PROMETHEUS = frozenset({"up", "ALERTS"})
"""Series that Prometheus makes itself."""

ROOMS = {
    *("metrics", "proxy", "tracing", "logs", "error_tracking", "headers", "cors", "redis", "ratelimit", "cache"),
    *("database", "backups", "jobs", "health"),
}
VALUES = {
    "state": ("in_use", "max", "waiting", "dead"),
    "status": ("200", "429", "500"),
    "result": ("hit", "miss"),
}
"""Values of labels by which expressions choose; what is not here is called x."""

OWN = (
    Own("shop_baskets", "summary", (), "Items in a basket"),
    Own("shop_order_value_euros", "histogram", ("channel",), "Value of an order"),
    Own("shop_orders_total", "counter", (), "Orders placed"),
    Own("shop_refunds", "counter", ("job",), "Refunds, by who asked for them"),
    Own("shop_stock_units", "gauge", ("product",), "Units left"),
    Own("shop_temperature_celsius", "gauge", (), "In the store room"),
)


@pytest.fixture
def plan(tmp_path: Path) -> Iterator[Plan]:
    """Give the plan of an application with everything, and metrics of its own of every kind."""
    app = everything(tmp_path)
    found = read_plan(state_of(app), "shop:app", "shop")
    values = {**found.values, "JOBS_OUTBOX": "always"}
    yield replace(found, own_metrics=OWN, rooms=found.rooms | ROOMS, values=values)
    app.extensions["prod"].lifecycle.close()


@pytest.fixture
def known(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Mapping[str, frozenset[str]]:
    """Return the names of all series that a service with everything and several processes tells, with labels."""
    monkeypatch.setenv("PROMETHEUS_MULTIPROC_DIR", str(tmp_path / "metrics"))
    app = everything(tmp_path / "known")
    app.test_client().get("/", base_url="http://shop.example")
    metrics = app.extensions["prod"].contributions["metrics"].handle
    metrics.sample()
    found = {series: frozenset(row.labels) for row in metrics.instruments.rows() for series in series_of(row)}
    told = re.findall(r"^# TYPE (\S+) gauge$", metrics.render()[0].decode(), re.MULTILINE)
    app.extensions["prod"].lifecycle.close()
    return {**dict.fromkeys(told, frozenset()), **found}


def series_of(row: Any) -> Iterator[str]:
    """Yield the names of the series that Prometheus makes of a metric."""
    if row.kind in ("histogram", "summary"):
        yield from (f"{row.name}_count", f"{row.name}_sum")
    if row.kind == "histogram":
        yield f"{row.name}_bucket"
    if row.kind == "counter":
        yield f"{row.name.removesuffix('_total')}_total"
    if row.kind == "gauge":
        yield row.name


def panels(found: Iterable[Board]) -> Iterator[Panel]:
    for board in found:
        for row in board.rows:
            yield from row.panels


def expressions(found: Iterable[Board]) -> list[str]:
    return [query.expr for panel in panels(found) for query in panel.queries]


def test_words(plan: Plan) -> None:
    """Each panel has a title of its own in its dashboard, a sentence that explains it, and a unit."""
    for board in boards(plan):
        titles = [panel.title for panel in panels([board])]
        assert len(set(titles)) == len(titles), board.name
    for panel in panels(boards(plan)):
        assert re.fullmatch(r"[A-Z0-9].*[^.]", panel.title), panel.title
        assert panel.description.endswith("."), panel.title
        assert " " in panel.description, panel.title
        assert panel.unit in UNITS, panel.title
        assert panel.queries, panel.title


def test_laid_out(plan: Plan) -> None:
    """Panels are inside the dashboard, and none covers another."""
    for board in boards(plan):
        for row in board.rows:
            taken: set[tuple[int, int]] = set()
            for panel, column, line in row.placed(7):
                assert line >= 7
                cells = {
                    (x, y) for x in range(column, column + panel.width) for y in range(line, line + panel.height)
                }
                assert max(x for x, _ in cells) < WIDTH, panel.title
                assert not cells & taken, panel.title
                taken |= cells


def test_names(plan: Plan, known: Mapping[str, frozenset[str]]) -> None:
    """Every series that is asked for is one that the service tells, that is recorded, or that Prometheus makes."""
    recorded = {rule.record for rule in recordings(plan)}
    own = {series for one in OWN for series in series_of(one)}

    assert names(expressions(boards(plan))) - own - recorded - PROMETHEUS - set(known) == set()


def names(found: Iterable[str]) -> set[str]:
    """Return the names of all series in expressions: what stands in front of a brace."""
    return {name for expr in found for name in re.findall(r"([a-zA-Z_:][a-zA-Z0-9_:]*)\{", expr)}


def test_labels(plan: Plan, known: Mapping[str, frozenset[str]]) -> None:
    """Labels that tell series apart, or choose among them, are labels that these series have."""
    everywhere = {"job", "instance", "environment", "le"}
    for panel in panels(boards(plan)):
        for query in panel.queries:
            found = names([query.expr])
            if not found <= set(known):
                continue  # recorded, of Prometheus itself, or the application's own
            there = {f"exported_{one}" if one == "job" else one for name in found for one in known[name]}
            grouped = re.findall(r"by \(([^)]*)\)", query.expr)
            asked = {one.strip() for group in grouped for one in group.split(",")}
            asked |= set(re.findall(r"\{\{(\w+)\}\}", query.legend))
            asked |= {
                one for group in re.findall(r"\{([^}]*)\}", query.expr) for one in re.findall(r"(\w+)[=!]", group)
            }
            assert asked <= there | everywhere, (panel.title, asked - there - everywhere)


def test_own_metrics(plan: Plan) -> None:
    """The business dashboard is made of what the application declares: sums, rates, averages, levels, revenue."""
    (board,) = (board for board in boards(plan) if board.name == "business")
    found = {panel.title: panel for panel in panels([board])}

    revenue = found["Revenue (Shop order value euros)"]
    assert revenue.unit == "currencyEUR"
    assert revenue.queries[0].expr.startswith("sum (increase(shop_order_value_euros_sum{")
    assert found["Orders per minute"].queries[0].expr.startswith("60 * sum (rate(shop_orders_total{")
    assert found["Refunds per minute"].queries[0].legend == "{{exported_job}}"
    assert "Baskets: spread" not in found
    assert found["Temperature"].unit == "celsius"


def test_same_label(plan: Plan) -> None:
    """Two metrics that would be called alike are called by their whole names."""
    twins = (Own("orders_total", "counter", (), "Orders"), Own("shop_orders", "gauge", (), "Orders that wait"))
    (board,) = (board for board in boards(replace(plan, own_metrics=twins)) if board.name == "business")

    assert [row.title for row in board.rows] == ["In the time shown", "Orders total", "Shop orders"]


def test_only_what_there_is(make_app: MakeApp) -> None:
    """An application without jobs, database, cache, limits and metrics of its own gets no dashboards of those."""
    app = make_app(only=("metrics", "health"))
    plan = read_plan(state_of(app), "shop:app", "shop")

    assert [board.name for board in boards(plan)] == ["service", "slo", "resources"]
    assert [
        expr for expr in expressions(boards(plan)) if re.search("flask_prod_(jobs|database|redis|limit)", expr)
    ] == []
    assert boards(replace(plan, rooms=frozenset({"health"}))) == ()


def test_declared_metrics_are_found() -> None:
    """The plan knows the metrics that an application has declared, and none of the rooms'."""
    app = Flask("shop")
    app.config["ENVIRONMENT"] = "test"
    prod = ProdKit(only=("metrics",))
    prod.metrics.business.counter("orders", "Orders placed.", ["channel"])
    prod.metrics.info("shop_build_info", "Which shop", color="red")
    prod.init_app(app)
    plan = read_plan(state_of(app), "shop:app", "shop")
    app.extensions["prod"].lifecycle.close()

    assert plan.own_metrics == (Own("orders", "counter", ("channel",), "Orders placed"),)
    assert plan.own_metrics[0].total == "orders_total"


def test_long_names(plan: Plan) -> None:
    """A dashboard's uid fits into Grafana's forty characters, and two long names of services stay two."""
    long = [replace(plan, service=_called(plan, f"{'a-long-name-' * 4}{number}")) for number in range(1, 3)]
    long[0] = replace(long[0], service=_called(plan, "a-long-name-of-the-first-service-of-all"))
    uids = {board.uid(one) for one in (plan, *long) for board in boards(one)}

    assert max(map(len, uids)) <= 40
    assert len(uids) == 3 * len(boards(plan))


def _called(plan: Plan, name: str) -> Any:
    from msgspec.structs import replace as changed

    return changed(plan.service, service_name=name)


def test_sdk_is_missing(plan: Plan, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without Grafana's SDK the error says what to install."""
    monkeypatch.setitem(sys.modules, "grafana_foundation_sdk", None)
    for name in [name for name in sys.modules if name.startswith("grafana_foundation_sdk.")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.delitem(sys.modules, "flask_prod.deploy.dashboards.grafana", raising=False)

    with pytest.raises(MissingExtra, match=r"pip install 'flask-prod\[deploy\]'"):
        dashboard_files(plan)


def resolved(expr: str) -> str:
    """Return an expression as Grafana sends it when all is chosen."""
    for name, value in {
        "$__rate_interval": "1m",
        "$__range": "3h",
        "$instance": ".*",
        "$environment": ".*",
    }.items():
        expr = expr.replace(name, value)
    assert "$" not in expr
    return expr


@pytest.mark.deploy
def test_expressions(plan: Plan) -> None:
    """The grammar of PromQL accepts every expression."""
    parser = pytest.importorskip("promql_parser")
    for expr in expressions(boards(plan)):
        parser.parse(resolved(expr))


@pytest.mark.deploy
def test_asked(
    plan: Plan, known: Mapping[str, frozenset[str]], tmp_path: Path, pytestconfig: pytest.Config
) -> None:
    """A real Prometheus with two web instances and a worker answers every expression, with numbers."""
    binary = program("prometheus", pytestconfig)
    own = {series: frozenset(one.labels) for one in OWN for series in series_of(one)}
    page = "".join(sorted(line for name, labels in {**known, **own}.items() for line in lines_of(name, labels)))
    recorded = {rule.record for rule in recordings(plan)}
    asked = [resolved(expr) for expr in expressions(boards(plan))]
    (tmp_path / "prometheus").mkdir()
    with prometheus(binary, tmp_path / "prometheus", page.encode(), {"shop": 2, "shop-worker": 1}) as server:
        wrong = {expr: found["error"] for expr in asked if (found := server.query(expr))["status"] != "success"}
        empty = [expr for expr in asked if not names([expr]) & {"ALERTS", *recorded} and not server.count(expr)]

    assert wrong == {}
    assert empty == []


def lines_of(name: str, labels: frozenset[str]) -> Iterator[str]:
    """Yield a page's lines of one series: for each value of a label that an expression chooses by."""
    values = {label: VALUES.get(label, ("x",)) for label in sorted(labels)}
    if name.endswith("_bucket"):
        values["le"] = ("1.0", "+Inf")
    for chosen in product(*values.values()):
        pairs = ",".join(f'{label}="{value}"' for label, value in zip(values, chosen, strict=True))
        yield f"{name}{{{pairs}}} 1\n"


@pytest.fixture(scope="module")
def documents(rendered: Path) -> Mapping[str, Any]:
    """Give the shop's dashboards as Grafana reads them, by file."""
    files = sorted((rendered / "monitoring/grafana/dashboards").glob("*.json"))
    return {path.stem: json.loads(path.read_text()) for path in files}


@pytest.mark.deploy
def test_documents(documents: Mapping[str, Any]) -> None:
    """Each file has a uid, panels with ids of their own that lie apart, and the data source chosen above."""
    assert set(documents) == {"business", "cache", "database", "jobs", "limits", "resources", "service", "slo"}
    assert len({one["uid"] for one in documents.values()}) == len(documents)
    for name, one in documents.items():
        assert len({panel["id"] for panel in one["panels"]}) == len(one["panels"]), name
        assert [v["name"] for v in one["templating"]["list"]] == ["datasource", "environment", "instance"]
        cells: set[tuple[int, int]] = set()
        for panel in one["panels"]:
            place = panel["gridPos"]
            mine = {(place["x"] + x, place["y"] + y) for x in range(place["w"]) for y in range(place["h"])}
            assert not mine & cells, (name, panel["title"])
            cells |= mine
            if panel["type"] == "row":
                continue
            assert panel["datasource"]["uid"] == "${datasource}"
            assert [target["refId"] for target in panel["targets"]] == list("ABCDEFGHIJ")[: len(panel["targets"])]
            assert all(target["datasource"]["uid"] == "${datasource}" for target in panel["targets"])
            assert panel["options"]


@pytest.mark.deploy
def test_model(documents: Mapping[str, Any]) -> None:
    """Grafana's own model of a dashboard reads each file without losing anything."""
    dashboard = pytest.importorskip("grafana_foundation_sdk.models.dashboard")
    plugins = pytest.importorskip("grafana_foundation_sdk.cog.plugins")
    encoder = pytest.importorskip("grafana_foundation_sdk.cog.encoder")
    plugins.register_default_plugins()
    for name, one in documents.items():
        again = dashboard.Dashboard.from_json(one)
        assert json.loads(encoder.JSONEncoder(sort_keys=True).encode(again)) == one, name


@pytest.mark.deploy
def test_links(documents: Mapping[str, Any]) -> None:
    """Every dashboard leads to the others with what is chosen, and to a page of runbooks that is there."""
    for name, one in documents.items():
        others, *runbook = one["links"]
        assert (others["tags"], others["includeVars"], others["keepTime"]) == (["shop"], True, True)
        assert "shop" in one["tags"]
        for link in runbook:
            assert (ROOT / "docs/runbooks" / link["url"].rpartition("/")[2]).is_file(), name


@pytest.mark.deploy
def test_provisioning(rendered: Path) -> None:
    """Grafana finds the files where compose puts them, and Prometheus and Jaeger by names that panels can use."""
    folder = rendered / "monitoring/grafana/provisioning"
    (provider,) = yaml.safe_load((folder / "dashboards/dashboards.yml").read_text())["providers"]
    compose = yaml.safe_load((rendered / "compose/compose.yaml").read_text())
    mounts = dict(one.split(":")[1::-1] for one in compose["services"]["grafana"]["volumes"])

    assert mounts[provider["options"]["path"]] == "../monitoring/grafana/dashboards"
    assert mounts["/etc/grafana/provisioning"] == "../monitoring/grafana/provisioning"
    sources = yaml.safe_load((folder / "datasources/datasources.yml").read_text())["datasources"]
    hosts = {one["url"].split("/")[2].split(":")[0] for one in sources}
    assert hosts <= set(compose["services"])
    uids = {one["uid"] for one in sources}
    (prometheus,) = (one for one in sources if one["type"] == "prometheus")
    leads = prometheus["jsonData"].get("exemplarTraceIdDestinations", [])
    assert {one["datasourceUid"] for one in leads} <= uids
