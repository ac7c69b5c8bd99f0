"""Examples of prometheus-flask-exporter's README (0.23), on `prod.metrics`; more are in components/metrics."""

from __future__ import annotations

from typing import Any

from flask import request
from flask.sansio.scaffold import Scaffold
from flask.testing import FlaskClient
from prometheus_client.parser import text_string_to_metric_families

from flask_prod import ProdKit
from tests.apps import MakeApp

from .conftest import Example


def samples(client: FlaskClient) -> dict[tuple[str, ...], float]:
    """Return what a scrape finds: name and `label=value`, sorted, to number."""
    found = {}
    for family in text_string_to_metric_families(client.get("/metrics").text):
        for sample in family.samples:
            labels = sorted(f"{name}={value}" for name, value in sample.labels.items())
            found[(sample.name, *labels)] = sample.value
    return found


def test_usage(example: Example) -> None:
    """README, Usage: info, do_not_track, and the four decorators with labels of every kind.

    The README's `by_type` reads `view_args["type"]` where its route has `item_type`; here it is the latter.
    """

    def declare(prod: ProdKit, app: Scaffold) -> None:
        metrics = prod.metrics
        metrics.info("app_info", "Application info", version="1.0.3")

        @app.route("/main")
        def main() -> str:
            return ""

        @app.route("/skip")
        @metrics.do_not_track()
        def skip() -> str:
            return ""

        @app.route("/types/<item_type>")
        @metrics.do_not_track()
        @metrics.counter(
            "invocation_by_type",
            "Number of invocations by type",
            labels={"item_type": lambda: (request.view_args or {})["item_type"]},
        )
        def by_type(item_type: str) -> str:
            return ""

        @app.route("/long-running")
        @metrics.gauge("in_progress", "Long running requests in progress")
        def long_running() -> str:
            return str(samples_inside(metrics)["in_progress"])

        @app.route("/status/<int:status>")
        @metrics.do_not_track()
        @metrics.summary(
            "requests_by_status", "Request latencies by status", labels={"status": lambda r: r.status_code}
        )
        @metrics.histogram(
            "requests_by_status_and_path",
            "Request latencies by status and path",
            labels={"status": lambda r: r.status_code, "path": lambda: request.path},
        )
        def echo_status(status: int) -> tuple[str, int]:
            return f"Status: {status}", status

    client = example(declare)
    for path in ("/main", "/skip", "/types/a", "/types/a", "/types/b", "/status/200", "/status/418"):
        client.get(path)
    assert client.get("/long-running").text == "1.0"
    seen = samples(client)

    assert seen[("app_info", "version=1.0.3")] == 1
    assert seen[("invocation_by_type_total", "item_type=a")] == 2
    assert seen[("invocation_by_type_total", "item_type=b")] == 1
    assert seen[("in_progress",)] == 0
    assert seen[("requests_by_status_count", "status=418")] == 1
    assert seen[("requests_by_status_and_path_count", "path=/status/200", "status=200")] == 1
    # Only /main and /long-running are in the default metrics; the rest asked to be left out.
    assert seen[("flask_http_request_total", "method=GET", "status=200")] == 2


def samples_inside(metrics: Any) -> dict[str, float]:
    """Return the metrics without labels, as a view sees them."""
    text, _ = metrics.generate_metrics()
    return {
        sample.name: sample.value for family in text_string_to_metric_families(text) for sample in family.samples
    }


def test_default_metrics(example: Example) -> None:
    """README, Default metrics: their names. Durations are by the route's rule, not by path as there."""

    def declare(prod: ProdKit, app: Scaffold) -> None:
        @app.route("/product/<int:number>")
        def product(number: int) -> str:
            return str(10 // number)

    client = example(declare, PROPAGATE_EXCEPTIONS=False)
    for number in (1, 2, 0):
        client.get(f"/product/{number}")
    seen = samples(client)
    rule = "url_rule=/product/<int:number>"

    assert seen[("flask_http_request_duration_seconds_count", "method=GET", "status=200", rule)] == 2
    assert seen[("flask_http_request_total", "method=GET", "status=200")] == 2
    assert seen[("flask_http_request_total", "method=GET", "status=500")] == 1
    assert seen[("flask_http_request_exceptions_total", "method=GET", "status=500")] == 1
    assert any(name[0] == "flask_exporter_info" for name in seen)


def test_one_wrapper_for_several_views(example: Example) -> None:
    """README, Default metrics: a wrapper that is made once and added to some of the endpoints."""

    def declare(prod: ProdKit, app: Scaffold) -> None:
        by_path_counter = prod.metrics.counter(
            "by_path_counter", "Request count by request paths", labels={"path": lambda: request.path}
        )

        @app.route("/simple")
        @by_path_counter
        def simple_get() -> str:
            return ""

        @app.route("/plain")
        @by_path_counter
        def plain() -> str:
            return ""

        @app.route("/not/tracked/by/path")
        def not_tracked_by_path() -> str:
            return ""

    client = example(declare)
    for path in ("/simple", "/plain", "/plain", "/not/tracked/by/path"):
        client.get(path)
    counted = {name[1]: value for name, value in samples(client).items() if name[0] == "by_path_counter_total"}

    assert counted == {"path=/simple": 1, "path=/plain": 2}


def test_default_of_ones_own(example: Example) -> None:
    """README, Default metrics: `register_default` tracks every view, but what is excluded from all metrics."""
    kits: list[ProdKit] = []

    def declare(prod: ProdKit, app: Scaffold) -> None:
        kits.append(prod)

        @app.route("/simple")
        def simple_get() -> str:
            return ""

        @app.route("/left-out")
        @prod.metrics.exclude_all_metrics()
        def left_out() -> str:
            return ""

    client = example(declare)
    metrics = kits[0].metrics
    metrics.register_default(
        metrics.counter(
            "by_path_counter", "Request count by request paths", labels={"path": lambda: request.path}
        ),
        app=client.application,
    )
    for path in ("/simple", "/simple", "/left-out"):
        client.get(path)
    counted = {name[1]: value for name, value in samples(client).items() if name[0] == "by_path_counter_total"}

    assert counted == {"path=/simple": 2}


def test_all_metrics_excluded(example: Example) -> None:
    """README, Default metrics: `exclude_all_metrics` leaves a view out of the default metrics and its own."""

    def declare(prod: ProdKit, app: Scaffold) -> None:
        @app.route("/quiet")
        @prod.metrics.exclude_all_metrics()
        @prod.metrics.counter("inherited", "What somebody else decided", labels={"path": lambda: request.path})
        def quiet() -> str:
            return ""

    client = example(declare)
    client.get("/quiet")
    seen = samples(client)

    assert ("inherited_total", "path=/quiet") not in seen
    assert ("flask_http_request_total", "method=GET", "status=200") not in seen


def test_labels_and_initial_values(example: Example) -> None:
    """README, Labels and Initial metric values: constants show as zero at once unless told not to."""

    def declare(prod: ProdKit, app: Scaffold) -> None:
        metrics = prod.metrics

        @app.route("/")
        @metrics.counter("no_labels", "Without labels")
        @metrics.counter("static_only", "Constants", labels={"kind": "shop"})
        @metrics.counter(
            "late", "Constants, but late", labels={"kind": "shop"}, initial_value_when_only_static_labels=False
        )
        @metrics.counter(
            "mixed",
            "All three kinds",
            labels={"kind": "shop", "path": lambda: request.path, "status": lambda r: r.status_code},
        )
        def view() -> str:
            return ""

    client = example(declare)
    before = samples(client)
    client.get("/")
    after = samples(client)

    assert before[("no_labels_total",)] == before[("static_only_total", "kind=shop")] == 0
    assert not any(name[0] in ("late_total", "mixed_total") for name in before)
    assert after[("no_labels_total",)] == after[("static_only_total", "kind=shop")] == 1
    assert after[("late_total", "kind=shop")] == 1
    assert after[("mixed_total", "kind=shop", "path=/", "status=200")] == 1


def test_initial_value_in_the_context_of_another(make_app: MakeApp) -> None:
    """Who builds an application while another one's context is open finds its zeros all the same."""
    other, prod = make_app(), ProdKit()
    with other.app_context():
        app = make_app(kit=prod)

        @app.get("/")
        @prod.metrics.counter("static_only", "Constants", labels={"kind": "shop"})
        def home() -> str:
            return ""

    assert samples(app.test_client())[("static_only_total", "kind=shop")] == 0


def test_dynamic_info(example: Example) -> None:
    """README, Application information: the value of an `info` may be set later."""
    infos: list[Any] = []

    def declare(prod: ProdKit, app: Scaffold) -> None:
        infos.append(prod.metrics.info("dynamic_info", "Something dynamic"))

    client = example(declare)
    assert samples(client)[("dynamic_info",)] == 1
    with client.application.app_context():
        infos[0].set(42.1)

    assert samples(client)[("dynamic_info",)] == 42.1
