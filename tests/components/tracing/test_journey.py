"""One checkout from the caller through request, SQL, Redis, cache and job: one trace, and its id in every line."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import create_engine, text

from flask_prod.components.tracing.reference import SPANS
from tests.apps import StartGunicorn
from tests.otlp import Collector, Span
from tests.servers import Postgres, Process, wait_for

ROOT = Path(__file__).parents[3]
OWN = ("charge card", "render receipt")
TRACE, CALLER = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"

SHOP = """
import logging
from flask import Flask
from sqlalchemy import text
from flask_prod import ProdKit

prod = ProdKit()
app = Flask("shop")

@prod.job(queue="emails")
def receipt(order):
    prod.db.session.execute(text("SELECT total FROM orders WHERE id = :id"), {"id": order})
    prod.db.session.rollback()
    with prod.span("render receipt"):
        logging.getLogger("shop").warning("mailing %s", order)
    if order == 13:
        raise ValueError("no such address")

prod.init_app(app)

@app.post("/checkout/<int:order>")
@prod.limit("checkout", "1000/1h")
def checkout(order):
    prod.cache.get("price")
    with prod.span("charge card", order=order):
        insert = text("INSERT INTO orders (id, total) VALUES (:id, :total)")
        prod.db.session.execute(insert, {"id": order, "total": 4711})
        prod.db.session.commit()
    logging.getLogger("shop").warning("charged %s", order)
    receipt.dispatch(order)
    return {"id": order}

@app.get("/boom")
def boom():
    raise RuntimeError("boom")
"""


@pytest.fixture
def collector() -> Iterator[Collector]:
    """Run a collector for gRPC too."""
    with Collector(with_grpc=True) as running:
        yield running


@pytest.fixture(params=["sqlite", "postgresql"])
def database(request: pytest.FixtureRequest, tmp_path: Path, shared_postgres: Postgres) -> str:
    """Give a database with a table of orders."""
    server = request.param == "postgresql"
    url = request.getfixturevalue("postgres_url") if server else f"sqlite:///{tmp_path}/shop.db"
    engine = create_engine(url)
    with engine.begin() as connection:
        connection.execute(text("CREATE TABLE orders (id INTEGER PRIMARY KEY, total INTEGER)"))
    engine.dispose()
    return url


@pytest.fixture
def environ(collector: Collector, database: str, redis_url: str) -> dict[str, str]:
    """Give the settings that web and worker share."""
    grpc = database.startswith("postgresql")  # each of the two protocols once
    return {
        "ENVIRONMENT": "staging", "DATABASE_URL": database, "REDIS_URL": redis_url, "LOG_FORMAT": "json",
        "OTLP_ENDPOINT": collector.grpc_url if grpc else collector.url, "TRACING_SAMPLING_RATE": "0",
        "SECURITY_FORCE_HTTPS": "false", "WEB_CONCURRENCY": "2", "SERVICE_NAME": "shop",
    }  # fmt: skip


def lines(output: str) -> list[dict[str, Any]]:
    """Return the log lines of an output that are JSON."""
    return [json.loads(line) for line in output.splitlines() if line.startswith("{")]


def start_worker(tmp_path: Path, environ: dict[str, str]) -> Process:
    """Start `flask prod worker` on the same application."""
    (tmp_path / "app.py").write_text(SHOP)
    process = Process(tmp_path)
    path = os.pathsep.join((str(tmp_path), str(ROOT)))
    command = [sys.executable, "-m", "flask", "--app", "app:app", "prod", "worker"]
    process.launch(command, {**os.environ, **environ, "PYTHONPATH": path}, tmp_path)
    return process


def test_one_trace_from_the_caller_to_the_job(
    gunicorn: StartGunicorn, collector: Collector, environ: dict[str, str], database: str, tmp_path: Path
) -> None:
    """Each span has the parent that caused it, web and worker write the trace's id, and a crash names it too."""
    server = gunicorn(
        "app:app", source=SHOP, config="python:flask_prod.server.gunicorn_conf", env=environ, ready="/health/live"
    )
    worker = start_worker(tmp_path, environ)
    parent = {"traceparent": f"00-{TRACE}-{CALLER}-01"}
    answers = [server.request("POST", f"/checkout/{order}", headers=parent) for order in (7, 13)]
    crash = server.get("/boom", headers={**parent, "Accept": "application/json"})
    wait_for(lambda: sum(span.name == "render receipt" for span in collector.spans) == 2, 20, "both jobs")
    wait_for(lambda: any(span.name == "GET /boom" for span in collector.spans), 10, "the crash")
    worker.finish(10)
    server.stop()

    assert [answer.status for answer in answers] == [200, 200]
    assert {span.trace_id for span in collector.spans} == {TRACE}
    check_parents(collector.spans, "sqlite" if database.startswith("sqlite") else "postgresql")
    check_table(collector.spans)
    assert json.loads(crash.body)["trace_id"] == TRACE

    web, jobs = lines(server.stdout), lines(worker.stderr)
    request_ids = {answer.headers["X-Request-ID"] for answer in answers}
    for said, among in (("charged 7", web), ("mailing 7", jobs)):
        (line,) = [line for line in among if said in json.dumps(line)]
        assert line["trace_id"] == TRACE
        assert line["request_id"] in request_ids
    finished = [line for line in jobs if "receipt" in json.dumps(line) and "finished in" in json.dumps(line)]
    assert [line["trace_id"] for line in finished] == [TRACE]


def check_parents(spans: list[Span], system: str) -> None:
    """Tell whether each span of the first checkout hangs where it belongs."""
    root = next(
        s for s in spans if s.name == "POST /checkout/<int:order>" and s.attributes["url.path"].endswith("7")
    )
    assert (root.kind, root.parent) == ("server", CALLER)
    below = {span.span_id: span for span in spans}

    def path(span: Span) -> list[str]:
        names = [span.name]
        while span.parent in below:
            span = below[span.parent]
            names.insert(0, span.name)
        return names

    paths = [path(span)[1:] for span in spans if below_root(span, root, below)]
    expected = [
        ["EVALSHA"],
        ["cache get"],
        ["charge card"],
        ["charge card", "INSERT orders"],
        ["send app.receipt"],
        ["send app.receipt", "EVALSHA"],
        ["send app.receipt", "process app.receipt"],
        ["send app.receipt", "process app.receipt", "SELECT orders"],
        ["send app.receipt", "process app.receipt", "render receipt"],
    ]
    assert [one for one in expected if one not in paths] == []
    insert = next(span for span in spans if span.name == "INSERT orders")
    assert insert.attributes["db.system.name"] == system
    assert "4711" not in str(insert.attributes)
    failed = [span for span in spans if span.name == "process app.receipt" and span.status == "error"]
    assert [span.attributes["error.type"] for span in failed] == ["ValueError"]
    assert {span.resource["service.name"] for span in spans} == {"shop"}


def below_root(span: Span, root: Span, below: dict[str, Span]) -> bool:
    """Tell whether *span* hangs under *root*."""
    while span.parent in below:
        span = below[span.parent]
        if span is root:
            return True
    return False


def check_table(spans: list[Span]) -> None:
    """Hold every span that was seen to the documentation's table: its kind, and no attribute beyond those told."""
    for span in spans:
        row = next(row for row in SPANS if row.matches(span.name, span.kind))
        assert span.name in OWN or set(span.attributes) <= set(row.attributes), span


PLAIN = """
import os, time
from flask import Flask
from flask_prod import ProdKit

app = Flask("shop")
ProdKit(app, only=("tracing", "health"))

@app.get("/")
def home():
    time.sleep(0.02)
    return str(os.getpid())
"""


@pytest.mark.parametrize("protocol", ["http", "grpc"])
def test_preloaded_workers_send_their_own(gunicorn: StartGunicorn, collector: Collector, protocol: str) -> None:
    """With gunicorn's preload each worker has a thread and a connection of its own, and loses no span."""
    server = gunicorn(
        "app:app", source=PLAIN, config="python:flask_prod.server.gunicorn_conf", args=["--preload"],
        ready="/health/live", env={
            "ENVIRONMENT": "staging", "WEB_CONCURRENCY": "2", "WEB_THREADS": "1", "TRACING_SAMPLING_RATE": "1",
            "OTLP_ENDPOINT": collector.url if protocol == "http" else collector.grpc_url,
        },
    )  # fmt: skip
    with ThreadPoolExecutor(4) as pool:
        pids = list(pool.map(lambda _: server.get("/").body, range(60)))
    server.term()
    server.wait(10)

    assert len(set(pids)) == 2
    assert [span.name for span in collector.spans] == ["GET /"] * 60
