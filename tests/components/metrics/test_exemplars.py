"""Exemplars: which requests stand for their bucket, over several processes too, and what that may cost."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from flask import Flask
from prometheus_client.openmetrics.parser import text_string_to_metric_families
from prometheus_client.samples import Exemplar

from flask_prod.components.metrics import exemplars
from flask_prod.components.metrics.engine import HttpMetrics
from flask_prod.components.metrics.exemplars import Exemplars
from flask_prod.core.record import RequestRecord, current_record
from tests.apps import MakeApp

OPENMETRICS = {"Accept": "application/openmetrics-text; version=1.0.0"}


def shown(app: Flask) -> dict[str, Exemplar]:
    """Return the exemplars that a scrape in OpenMetrics shows, by upper bound; the scrape must parse."""
    answer = app.test_client().get("/metrics", headers=OPENMETRICS)
    assert answer.content_type.startswith("application/openmetrics-text")
    return {
        sample.labels["le"]: sample.exemplar
        for family in text_string_to_metric_families(answer.text)
        for sample in family.samples
        if sample.exemplar is not None
    }


def ended(trace_id: str, duration: float, sampled: bool = True) -> RequestRecord:
    environ = {"REQUEST_METHOD": "GET", "wsgi.url_scheme": "http", "SERVER_NAME": "shop"}
    record = RequestRecord(environ, "id", 0.0)
    record.route, record.status, record.duration = "/", 200, duration
    record.trace_id, record.sampled = trace_id, sampled
    return record


def recorder(app: Flask) -> HttpMetrics:
    observer: Any = app.extensions["prod"].contributions["metrics"].observe
    http: HttpMetrics = observer.__self__
    return http


@pytest.mark.parametrize("several", [False, True])
def test_trace_of_a_bucket(
    make_app: MakeApp, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, several: bool
) -> None:
    """Each bucket points at the trace of the sampled request that it counted last; others leave no mark."""
    if several:
        monkeypatch.setenv("PROMETHEUS_MULTIPROC_DIR", str(tmp_path / "metrics"))
    app = make_app(only=("metrics",))
    http = recorder(app)
    for record in (
        ended("a" * 32, 0.2), ended("b" * 32, 0.2), ended("c" * 32, 0.2, sampled=False), ended("d" * 32, 3.0),
    ):  # fmt: skip
        http.observe(record)

    found = shown(app)

    assert {bound: one.labels["trace_id"][0] for bound, one in found.items()} == {"0.25": "b", "5.0": "d"}
    assert found["0.25"].value == 0.2
    assert "trace_id" not in app.test_client().get("/metrics").text


def test_several_processes(make_app: MakeApp, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whichever process is scraped shows the newest trace of all."""
    monkeypatch.setenv("PROMETHEUS_MULTIPROC_DIR", str(tmp_path / "metrics"))
    first, second = make_app(only=("metrics",)), make_app(only=("metrics",))
    recorder(first).observe(ended("a" * 32, 0.2))
    recorder(second).observe(ended("b" * 32, 0.2))
    for app in (first, second):
        app.extensions["prod"].contributions["metrics"].handle.sample()

    assert shown(first) == shown(second)
    assert shown(first)["0.25"].labels == {"trace_id": "b" * 32}


def test_real_request(make_app: MakeApp) -> None:
    """A request that tracing keeps is told from the others by its record alone."""

    app = make_app(only=("metrics",))

    @app.get("/")
    def home() -> str:
        record = current_record()
        assert record is not None
        record.trace_id, record.sampled = "e" * 32, True
        return "home"

    app.test_client().get("/")

    assert [one.labels for one in shown(app).values()] == [{"trace_id": "e" * 32}]


def test_users_own(make_app: MakeApp, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An exemplar that the application gives is shown, over several processes as well."""
    monkeypatch.setenv("PROMETHEUS_MULTIPROC_DIR", str(tmp_path / "metrics"))
    app = make_app(only=("metrics",))
    metrics = app.extensions["prod"].contributions["metrics"].handle
    from prometheus_client import Counter

    metrics.instruments.series(Counter, "orders", "Orders").metric.inc(exemplar={"order": "7"})
    text = app.test_client().get("/metrics", headers=OPENMETRICS).text

    assert 'orders_total 1.0 # {order="7"} 1.0' in text


def test_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    """So many are remembered; the oldest goes first."""
    monkeypatch.setattr(exemplars, "MOST", 3)
    kept = Exemplars()
    for key in "abcad":
        kept.keep(key, Exemplar({}, 1.0, 1.0))

    assert sorted(kept.with_files([])) == ["a", "c", "d"]


def test_files(tmp_path: Path) -> None:
    """What is written is read back, broken files and full disks are passed over."""
    kept = Exemplars()
    kept.keep("a", Exemplar({"trace_id": "1"}, 0.5, 7.0))
    kept.write(tmp_path / "one.json")
    (tmp_path / "two.json").write_bytes(b'{"a": [{')
    kept.keep("a", Exemplar({"trace_id": "2"}, 0.5, 8.0))
    kept.write(tmp_path / "missing" / "three.json")

    assert Exemplars().with_files(sorted(tmp_path.iterdir())) == {"a": Exemplar({"trace_id": "1"}, 0.5, 7.0)}
    assert [path.name for path in sorted(tmp_path.iterdir())] == ["one.json", "two.json"]
