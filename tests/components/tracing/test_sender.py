"""A collector that misbehaves costs requests nothing, and is told of once."""

from __future__ import annotations

import logging
import os
import threading
import time

import pytest
from flask import Flask

from tests.apps import MakeApp
from tests.otlp import Collector
from tests.servers import wait_for

from .conftest import MakeTraced, flush, spans_total

LOGGERS = "opentelemetry"


def sender(app: Flask) -> object:
    """Return what sends the application's spans."""
    return app.extensions["prod"].contributions["tracing"].handle.running.sender


def test_outage_is_told_once(
    make_traced: MakeTraced, collector: Collector, caplog: pytest.LogCaptureFixture
) -> None:
    """A refusing collector makes one line, a gauge, a failed count and a warning in health; its return another."""
    collector.mode = 400
    app = make_traced()
    events: list[str] = []
    app.extensions["prod"].contributions["tracing"].handle._emit = lambda event: events.append(event.name)
    client = app.test_client()
    with caplog.at_level(logging.INFO):
        for _ in range(3):
            client.get("/x")
            flush(app)
        assert events == ["prod.tracing.degraded"]
        assert spans_total(app, "failed") == 3
        assert 'flask_prod_degraded{component="tracing"} 1.0' in client.get("/metrics").text
        assert app.extensions["prod"].contributions["tracing"].checks[0].probe().status == "warn"

        collector.mode = "ok"
        client.get("/x")
        flush(app)

    assert events == ["prod.tracing.degraded", "prod.tracing.recovered"]
    assert 'flask_prod_degraded{component="tracing"} 0.0' in client.get("/metrics").text
    assert app.extensions["prod"].contributions["tracing"].checks[0].probe().status == "ok"
    assert [record.getMessage() for record in caplog.records if record.name.startswith(LOGGERS)] == []


@pytest.mark.parametrize(("silence", "told"), [(0.0, 4), (60.0, 2)])
def test_flapping_collector_does_not_flood(
    make_traced: MakeTraced, collector: Collector, monkeypatch: pytest.MonkeyPatch, silence: float, told: int
) -> None:
    """Each outage is told once, and at most one in a minute, however often it comes and goes."""
    monkeypatch.setattr("flask_prod.components.tracing.sender._SILENCE", silence)
    app = make_traced()
    events: list[str] = []
    app.extensions["prod"].contributions["tracing"].handle._emit = lambda event: events.append(event.name)

    for mode in (400, 400, "ok", 400, 400, "ok"):
        collector.mode = mode
        app.test_client().get("/x")
        flush(app)

    assert events == ["prod.tracing.degraded", "prod.tracing.recovered"] * (told // 2)


@pytest.mark.parametrize("mode", ["hang", 429, 503, "refuse"])
def test_end_of_a_process_is_not_held_up(make_traced: MakeTraced, collector: Collector, mode: str | int) -> None:
    """Whatever the collector does, closing takes no longer than the second it may."""
    app = make_traced()
    if mode == "refuse":
        collector.stop()
    else:
        collector.mode = mode
    for _ in range(250):
        app.test_client().get("/x")

    began = time.monotonic()
    app.extensions["prod"].lifecycle.close()

    assert time.monotonic() - began < 1.6


def test_queue_is_bounded_and_drops_are_counted(make_traced: MakeTraced, collector: Collector) -> None:
    """A hanging collector fills a queue of a thousand; what comes then is dropped and counted."""
    collector.mode = "hang"
    app = make_traced()
    client = app.test_client()
    for _ in range(1300):
        client.get("/x")

    dropped = spans_total(app, "dropped")
    waiting = len(sender(app)._waiting) + sender(app)._sending  # type: ignore[attr-defined]
    assert waiting <= 1000
    failed = spans_total(app, "failed")  # on a busy machine some batches are given up meanwhile
    assert dropped + failed + waiting == 1300
    assert dropped > 0


def test_large_spans_are_bounded_by_size(make_traced: MakeTraced, collector: Collector) -> None:
    """Spans with much text fill the queue sooner: five megabytes are the most that waits."""
    collector.mode = "hang"
    app = make_traced()

    @app.get("/")
    def view() -> str:
        from opentelemetry import trace

        for _ in range(20):
            with trace.get_tracer("shop").start_as_current_span("x") as span:
                for number in range(20):
                    span.set_attribute(f"a{number}", "x" * 2000)
        return "x"

    for _ in range(20):
        app.test_client().get("/")

    assert sender(app)._size <= 5 * 1024**2  # type: ignore[attr-defined]
    assert spans_total(app, "dropped") > 0
    assert spans_total(app, "dropped") + spans_total(app, "failed") >= 100


def test_what_waits_is_sent_at_the_end(make_traced: MakeTraced, collector: Collector) -> None:
    """A process that ends sends what it has, without waiting for its turn."""
    app = make_traced()
    for _ in range(250):
        app.test_client().get("/x")
    app.extensions["prod"].lifecycle.close()

    assert len(collector.spans) == 250


def test_forked_child_has_a_thread_of_its_own(make_traced: MakeTraced, collector: Collector) -> None:
    """A child neither sends its parent's spans again nor loses its own."""
    app = make_traced()
    app.test_client().get("/parent")
    wait_for(lambda: len(collector.spans) == 1, 5)
    collector.mode = 429
    app.test_client().get("/parent")
    collector.mode = "ok"

    pid = os.fork()
    if pid == 0:
        try:
            app.test_client().post("/child")
            app.extensions["prod"].lifecycle.close()
        finally:
            os._exit(0)
    os.waitpid(pid, 0)
    flush(app)

    assert sorted(span.name for span in collector.spans) == ["GET", "GET", "POST"]


def test_no_thread_before_the_start(make_app: MakeApp) -> None:
    """A preloading master has neither thread nor connection: they are born in each worker."""
    before = set(threading.enumerate())
    app = make_app(only=("tracing",), OTLP_ENDPOINT="http://127.0.0.1:9", TRACING_SAMPLING_RATE=1)

    assert set(threading.enumerate()) == before
    assert app.extensions["prod"].contributions["tracing"].handle.running is None


def test_library_variables_say_how_many_and_when(
    make_traced: MakeTraced, collector: Collector, monkeypatch: pytest.MonkeyPatch
) -> None:
    """OTEL_BSP_MAX_EXPORT_BATCH_SIZE and OTEL_BSP_SCHEDULE_DELAY are honoured; nonsense is not."""
    monkeypatch.setenv("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", "2")
    monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "60000")
    app = make_traced()
    app.test_client().get("/x")
    time.sleep(1.5)
    assert collector.spans == []
    app.test_client().get("/x")
    collector.wait_for(2, 5)

    monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "soon")
    second = make_traced()
    second.test_client().get("/x")
    assert sender(second)._pause == 1.0  # type: ignore[attr-defined]
