"""What deployment files ask of metrics, asked of the sample shop while it is watched by a real Prometheus."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.deploy.conftest import ROOT
from tests.deploy.tools import program
from tests.deploy.watching import KEY, Watched, watched
from tests.servers import Postgres, wait_for

pytestmark = pytest.mark.deploy

SELDOM = {"status"}
"""Labels whose values need not be there: a shop that works answers nothing with 500."""

OF_THE_CLUSTER = {"rollouts_pod_template_hash", "namespace", "pod", "environment"}
"""Labels that Kubernetes' Prometheus adds, or that it sends along."""

NOT_YET = {
    "flask_prod_cors_preflights_total", "flask_prod_csp_reports_total", "flask_prod_error_reports_total",
    "flask_prod_database_query_errors_total", "flask_prod_database_reads_total", "flask_prod_fallbacks_total",
    "flask_prod_https_enforced_total", "flask_prod_limit_shadowed_total", "flask_prod_redis_pool_waits_total",
    "flask_prod_spans_total", "flask_http_request_exceptions_total", "flask_prod_database_pool_wait_seconds",
    "flask_prod_database_replica_lag_seconds", "flask_prod_database_replica_in_rotation",
}  # fmt: skip
"""Series that dashboards and runbooks may ask for and that begin with something that has not happened here."""


@pytest.fixture(scope="module")
def running(
    rendered: Path,
    shared_postgres: Postgres,
    tmp_path_factory: pytest.TempPathFactory,
    pytestconfig: pytest.Config,
) -> Iterator[Watched]:
    """Run the shop, after some traffic, and those who watch it."""
    folder = tmp_path_factory.mktemp("watched")
    with (
        shared_postgres.database() as database,
        watched(rendered, folder, lambda name: program(name, pytestconfig), database) as found,
    ):
        yield found


def selectors(expr: str) -> Iterator[Any]:
    """Yield what an expression asks of Prometheus; a syntax error is one."""
    parser = pytest.importorskip("promql_parser")
    found: list[Any] = []
    parser.walk(parser.parse(expr), lambda node: found.append(node))
    return (node for node in found if isinstance(node, parser.VectorSelector))


def asked_for(node: Any) -> str:
    """Return a selector without what need not be there."""
    kept = [one for one in node.matchers.matchers if one.name not in SELDOM | OF_THE_CLUSTER]
    ops = {"Equal": "=", "NotEqual": "!=", "Re": "=~", "NotRe": "!~"}
    pairs = ",".join(f'{one.name}{ops[str(one.op).rpartition(".")[2]]}"{one.value}"' for one in kept)
    return f"{node.name}{{{pairs}}}"


def missing(running: Watched, expressions: list[str]) -> set[str]:
    """Return the selectors of these expressions that find nothing."""
    wanted = {asked_for(node) for expr in expressions for node in selectors(expr)}
    return {one for one in wanted if not running.prometheus.count(f"last_over_time({one}[2m])")}


def names(found: set[str]) -> set[str]:
    """Return the names of metrics in selectors, as they are declared."""
    return {re.sub(r"_(bucket|sum|count)$", "", one.partition("{")[0]) for one in found}


def in_yaml(path: Path, key: str) -> Iterator[str]:
    """Yield the texts below a key anywhere in a file of several documents."""
    documents: list[Any] = list(yaml.safe_load_all(path.read_text()))
    while documents:
        one = documents.pop()
        if isinstance(one, dict):
            yield from (value for name, value in one.items() if name == key and isinstance(value, str))
            documents += one.values()
        elif isinstance(one, list):
            documents += one


def test_rules_are_evaluated(running: Watched, rendered: Path) -> None:
    """Prometheus loads every rule, and evaluates each without an error."""
    files = (rendered / "monitoring/prometheus/rules").glob("*.yml")
    written = [
        rule for file in files for group in yaml.safe_load(file.read_text())["groups"] for rule in group["rules"]
    ]
    wait_for(lambda: all(rule["health"] != "unknown" for rule in running.rules()), 20, "all rules to be evaluated")

    assert len(running.rules()) == len(written)
    assert [(rule["name"], rule.get("lastError")) for rule in running.rules() if rule["health"] != "ok"] == []


def test_rules_know_what_they_ask_for(running: Watched, rendered: Path) -> None:
    """Each metric of a rule is in the shop's page, with the labels, and values of labels, by which it chooses."""
    files = sorted((rendered / "monitoring/prometheus/rules").glob("*.yml"))
    expressions = [expr for path in files for expr in in_yaml(path, "expr")]

    assert len(expressions) > 60
    assert missing(running, expressions) == set()


def test_labels_that_series_are_told_apart_by(running: Watched, rendered: Path) -> None:
    """What rules group by, and descriptions show, are labels of the series that come out."""
    for rule in running.rules():
        if rule["type"] != "recording":
            continue
        level = rule["name"].partition(":")[0]
        for label in re.findall("url_rule|instance|status|queue|state|pool|job", level):
            found = running.prometheus.query(rule["name"])["data"]["result"]
            assert found, rule["name"]
            assert all(label in one["metric"] for one in found), (rule["name"], label)


def test_kubernetes_knows_what_it_asks_for(running: Watched, rendered: Path) -> None:
    """So is each metric that autoscaling and the analysis of a rollout ask for."""
    analyses = sorted((rendered / "kubernetes").rglob("analysis.yaml"))
    asked = [re.sub(r"\{\{[^}]*\}\}", "x", expr) for path in analyses for expr in in_yaml(path, "query")]
    adapters = sorted((rendered / "kubernetes").rglob("prometheus-adapter*.yaml"))
    asked += [expr for path in adapters for expr in in_yaml(path, "seriesQuery")]

    assert len(asked) >= 4
    assert missing(running, asked) == set()


def test_dashboards_know_what_they_ask_for(running: Watched, rendered: Path) -> None:
    """So is what dashboards show, unless it begins with something that has not happened."""
    expressions = []
    for path in (rendered / "monitoring/grafana/dashboards").glob("*.json"):
        for panel in json.loads(path.read_text())["panels"]:
            expressions += [target["expr"] for target in panel.get("targets", ())]
    plain = [
        re.sub(r"\$\w+", ".*", expr.replace("$__rate_interval", "1m").replace("$__range", "1h"))
        for expr in expressions
    ]

    assert len(plain) > 50
    assert names(missing(running, plain)) - NOT_YET - {"ALERTS"} == set()


def test_runbooks_know_what_they_ask_for(running: Watched) -> None:
    """So is what runbooks look at."""
    text = "".join(path.read_text() for path in sorted((ROOT / "docs/runbooks").glob("*.md")))
    expressions = re.findall(r"```promql\n(.*?)\n```", text, re.DOTALL)

    assert len(expressions) > 30
    assert names(missing(running, expressions)) - NOT_YET == set()


def test_each_process_counts_what_it_does(running: Watched) -> None:
    """Requests are counted by the web instance and jobs by the worker, each in its own page."""
    ask = running.prometheus.query
    finished = ask("sum by (job) (flask_prod_jobs_finished_total) > 0")["data"]["result"]

    assert [one["metric"]["job"] for one in finished] == ["shop-worker"]
    assert running.prometheus.count('flask_http_request_total{job="shop"} > 0')
    assert not running.prometheus.count('flask_http_request_total{job="shop-worker"} > 0')


@pytest.mark.parametrize(
    ("cause", "effect", "silent"),
    [
        ("DatabasePoolExhausted", "DatabasePoolBusy", True),
        ("ErrorRateHigh", "ErrorBudgetBurnSlow", True),
        ("ErrorRateHigh", "MemoryHigh", False),
        ("NoInstance", "NoTraffic", True),
        ("InstanceDown", "MemoryHigh", True),
        ("DependencyDegraded", "CacheMissesHigh", True),
        ("DependencyDegraded", "NoJobWorkers", False),
        ("DatabaseRefuses", "HealthCheckFailing", True),
    ],
)
def test_consequences_are_not_told(running: Watched, cause: str, effect: str, silent: bool) -> None:
    """What follows from another alert is silent while that one fires, for the same service only."""
    rules = {rule["name"]: rule["labels"] for rule in running.rules() if rule["type"] == "alerting"}

    def alert(name: str, service: str) -> dict[str, str]:
        more = {"component": "redis"} if name == "DependencyDegraded" else {"instance": "10.0.0.1:8000"}
        return {**rules[name], **more, "alertname": name, "service": service}

    mine, other = f"{cause}-{effect}".lower(), "another"
    found = wait_for(
        lambda: running.inhibited(alert(cause, mine), alert(effect, mine), alert(effect, other)), 5, "an answer"
    )
    assert found == [False, silent, False]


def test_warnings_become_tickets(running: Watched) -> None:
    """A warning is written where tickets go, with its words and a link to its runbook; nobody is called."""

    def told() -> list[dict[str, Any]]:
        found = (
            part for request in list(running.told["tickets"].requests) for part in request.json["attachments"]
        )
        return [part for part in found if "shop: No backup is known" in part["title"]]

    (message, *_) = wait_for(told, 30, "a ticket")
    assert message["title"].startswith("FIRING ")
    assert "The service has not seen a single backup" in message["text"]
    assert "database.md#nobackup|runbook>" in message["text"]
    assert "No backup is known" not in str([one.json for one in running.told["pager"].requests])


def test_instance_that_is_gone_calls_somebody(running: Watched) -> None:
    """A web server that is stopped reaches the pager through Prometheus and Alertmanager, with its runbook.

    The last test of this module: nothing is watched afterwards.
    """

    def told() -> list[dict[str, Any]]:
        found = [request.json for request in list(running.told["pager"].requests)]
        return [
            one for one in found if one["payload"]["summary"] == "shop: An instance does not answer Prometheus"
        ]

    assert told() == []
    running.shop.stop()
    (call, *_) = wait_for(told, 30, "the pager to be called")
    assert call["routing_key"] == KEY
    assert call["event_action"] == "trigger"
    assert call["payload"]["severity"] == "critical"
    words = call["payload"]["custom_details"]["alerts"]
    assert f":{running.shop.port} of shop has not answered a scrape for a minute." in words
    assert "instances.md#instancedown" in words
