"""One failing checkout, followed from the buyer's error page through everything that remembers it, and back."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from tests.otlp import Collector
from tests.sample_app.conftest import StartShop
from tests.sample_app.shop import Shop
from tests.servers import HttpSink, Process, free_port


class Remembered:
    """A shop whose carrier is away, and all that its failing checkout left behind."""

    def __init__(self, shop: Shop, log: Path, sentry: HttpSink, traces: Collector) -> None:
        self.shop, self.log, self.sentry, self.traces = shop, log, sentry, traces
        self.answer = shop.api("POST", "/checkout", {"address": "1 Pier Road"}, shop.buyer())
        self.problem: Mapping[str, Any] = self.answer.json

    def lines(self) -> list[dict[str, Any]]:
        """Return the lines of the log that carry the request's id."""
        lines = map(json.loads, self.log.read_text().splitlines())
        return [
            line for line in lines if self.problem["request_id"] in (line.get("request_id"), line.get("trace_id"))
        ]

    def report(self) -> dict[str, Any]:
        """Return the error report of the checkout."""
        for sent in self.sentry.wait_for(1, 15):
            for line in sent.body.splitlines():
                event = json.loads(line)
                if event.get("transaction") == "/api/checkout" and "exception" in event:
                    return dict(event)
        raise AssertionError("no report of the checkout")


@pytest.fixture
def remembered(
    start_shop: StartShop, redis_url: str, tmp_path: Path, http_sink: HttpSink, wait_for: Callable[..., Any]
) -> Iterator[Remembered]:
    """Run web, worker, Sentry and collector, let one checkout fail, and wait for the job that it leaves."""
    log = tmp_path / "shop.log"
    with Collector() as traces:
        shop = start_shop(
            REDIS_URL=redis_url,
            CARRIER_URL=f"http://127.0.0.1:{free_port()}/check",
            LOG_OUTPUT=str(log),
            LOG_LEVEL="INFO",
            SENTRY_DSN=http_sink.dsn,
            TRACING_ENABLED="true",
            TRACING_SAMPLING_RATE="1",
            OTLP_ENDPOINT=traces.url,
        )
        (tmp_path / "worker").mkdir()
        worker = Process(tmp_path / "worker")
        worker.launch(
            [sys.executable, "-m", "flask", "--app", "sample_app", "prod", "worker"], shop.env, shop.folder
        )
        try:
            story = Remembered(shop, log, http_sink, traces)
            wait_for(lambda: any("finished" in line.get("message", "") for line in story.lines()), 20, "the job")
            worker.finish()
            shop.stop()
            yield story
        finally:
            worker.finish()


def test_one_story(remembered: Remembered) -> None:
    """The id on the buyer's page leads to log lines, trace, error report, job and SQL; each leads back to it."""
    problem = remembered.problem
    request_id, trace_id = problem["request_id"], problem["trace_id"]
    assert (remembered.answer.status, problem["title"]) == (502, "Bad Gateway")
    assert remembered.answer.headers["X-Request-ID"] == request_id

    lines = remembered.lines()
    request = next(line for line in lines if line.get("event") == "request")
    job = next(line for line in lines if "finished" in line.get("message", ""))
    assert (request["status"], request["trace_id"], request["error"]) == (502, trace_id, "CarrierAway")
    assert {line["trace_id"] for line in lines} == {trace_id}
    assert (job["job"], job["request_id"]) == ("sample_app.jobs.send_apology", request_id)

    report = remembered.report()
    assert report["tags"]["request_id"] == request_id
    assert report["contexts"]["trace"]["trace_id"] == trace_id
    assert [one["type"] for one in report["exception"]["values"]][-1] == "CarrierAway"

    spans = [span for span in remembered.traces.spans if span.trace_id == trace_id]
    named = {span.name: span for span in spans}
    server = named["POST /api/checkout"]
    assert (server.kind, server.attributes["request_id"], server.status) == ("server", request_id, "error")
    assert named["ask the carrier"].parent == server.span_id
    assert any(span.attributes.get("db.operation.name") == "SELECT" for span in spans)
    consumer = next(span for span in spans if span.kind == "consumer")
    producer = next(span for span in spans if span.kind == "producer")
    assert consumer.parent == producer.span_id


def test_command_tells_the_story(remembered: Remembered) -> None:
    """`flask prod trace` finds all lines by the request's id, and by the trace's."""
    for name in ("request_id", "trace_id"):
        told = subprocess.run(
            [sys.executable, "-m", "flask", "--app", "sample_app", "prod", "trace", remembered.problem[name]],
            env=remembered.shop.env, cwd=remembered.shop.folder, capture_output=True, text=True, timeout=60,
        )  # fmt: skip
        assert told.returncode == 0, told.stderr
        assert "POST /api/checkout" in told.stdout
        assert "CarrierAway" in told.stdout
        assert "send_apology" in told.stdout
