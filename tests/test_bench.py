"""The benchmarks measure what they say: three applications that give the same answer with everything on."""

from __future__ import annotations

import json
import threading
from pathlib import Path

import pytest

from bench.__main__ import _row, gate
from bench.apps import build
from bench.child import HEADERS, _stop_clocks
from bench.measure import NAMES, Child, surroundings
from bench.queries import told
from bench.routing import chosen
from bench.sink import Sink


@pytest.mark.parametrize("shared", [False, True], ids=["memory", "redis"])
@pytest.mark.parametrize("name", NAMES)
def test_child_serves(name: str, shared: bool, redis_url: str) -> None:
    """Each application starts in a process of its own and answers the benchmark's request with 200."""
    with Sink() as sink, surroundings(redis_url if shared else None, sink.dsn) as environ:
        child = Child(name, environ())
        seconds = child.serve(3)
        said = child.end()

    assert 0 < seconds < 5, said


def test_row() -> None:
    """A result has the figures and their ratios to bare Flask, and is plain JSON."""
    row = _row("request.memory", {"bare": 100.0, "by_hand": 650.0, "kit": 140.0}, "instructions")

    assert (row["ratio_by_hand"], row["ratio_kit"]) == (6.5, 1.4)
    assert set(json.loads(json.dumps(row))) == {
        "name", "bare", "by_hand", "kit", "unit", "ratio_by_hand", "ratio_kit",
    }  # fmt: skip


def test_words_about_queries() -> None:
    """What measuring a query, and choosing a server, adds is told in microseconds beside what it may be."""
    figures = {"bare": 30.0, "by_hand": 60.0, "kit": 37.25}

    assert told(figures) == "the kit adds 7.2 us to a query; 15 us may be"
    assert chosen(figures) == "choosing a server costs a read 7.2 us; 10 us may be"


def test_row_of_a_gate() -> None:
    """Where the libraries by hand are not counted, the kit's ratio is what it was."""
    row = _row("request.memory", {"bare": 100.0, "kit": 140.0}, "instructions")

    assert (row["ratio_kit"], "by_hand" in row, "ratio_by_hand" in row) == (1.4, False, False)


def test_clocks_stop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is counted has no thread that works by the clock, and is ready all the same."""
    monkeypatch.setenv("PROMETHEUS_MULTIPROC_DIR", str(tmp_path))
    monkeypatch.setenv("BENCH_SENTRY_DSN", "")
    app = build("health.ready")
    client, lifecycle = app.test_client(), app.extensions["prod"].lifecycle
    try:
        client.get("/health/ready", headers=HEADERS)
        running = {thread.name for thread in threading.enumerate()}
        _stop_clocks(app)
        left = {thread.name for thread in threading.enumerate()}
        answer = client.get("/health/ready", headers=HEADERS)
    finally:
        lifecycle.close()

    clocks = {"flask-prod-ticker", "flask-prod-health"}
    assert (clocks <= running, clocks & left, answer.status_code) == (True, set(), 200)


def test_gate(capsys: pytest.CaptureFixture[str]) -> None:
    """A request dearer than its floor and five per cent is told and fails; without a figure nothing is."""
    rows = [_row("request.memory", {"bare": 100.0, "by_hand": 650.0, "kit": 179.0}, "instructions")]

    assert gate(rows, {"request.memory": 1.71}) == 0
    assert gate(rows, {"request.memory": 1.7}) == 1
    assert "request.memory costs 1.79x bare Flask; bench/floor.json allows 1.7x." in capsys.readouterr().out
    assert gate([{"name": "request.memory", "note": "needs valgrind"}], {"request.memory": 1.7}) == 0
