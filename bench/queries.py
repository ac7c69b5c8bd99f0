"""What it costs to measure a query: a row by its primary key from an SQLite file, fifty times in a request.

`bare` is SQLAlchemy's own engine in bare Flask. `by_hand` has a histogram by the first word of the statement and
its table, and opens spans as OpenTelemetry's instrumentation does where there are traces. The kit's also counts
errors and the queries of each request, and knows slow ones. All three read a file of the same content.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from time import perf_counter
from typing import Any

from flask import Flask
from sqlalchemy import Column, Engine, Integer, MetaData, String, Table, create_engine, event, insert, select

from bench.apps import TRACED
from bench.measure import Figures, instructions, times

NAMES = {"bare": "query.bare", "by_hand": "query.by_hand", "kit": "query.kit"}
ASKED = 50
"""Queries in a request: what the request itself costs is a fiftieth."""

MOST = 15.0
"""Microseconds that measuring a query may cost."""

metadata = MetaData()
item = Table(
    "item", metadata, Column("id", Integer, primary_key=True), Column("name", String), Column("price", Integer)
)


def build(name: str) -> Flask:
    """Build the application of one name in `NAMES`."""
    url = f"sqlite:///{Path(os.environ['PROMETHEUS_MULTIPROC_DIR'])}/items.sqlite3"
    filled = create_engine(url)
    metadata.create_all(filled)
    with filled.begin() as connection:
        connection.execute(insert(item), [{"id": n, "name": f"Teapot {n}"} for n in range(1, 100)])
    filled.dispose()
    app, engine = {"bare": _bare, "by_hand": _by_hand, "kit": _kit}[name.removeprefix("query.")](url)
    _route(app, engine)
    return app


def query_instructions(
    environ: Callable[[], dict[str, str]], names: Sequence[str] = tuple(NAMES)
) -> Figures | str:
    """Count the instructions of one query."""
    counted = instructions(environ, [NAMES[name] for name in names], counted=40)
    return counted if isinstance(counted, str) else {name: counted[NAMES[name]] / ASKED for name in names}


def query_times(environ: Callable[[], dict[str, str]]) -> Figures:
    """Return the median microseconds of one query, the applications taking turns."""
    taken = times(environ, tuple(NAMES.values()), per_round=10)
    return {name: taken[app] / ASKED for name, app in NAMES.items()}


def told(figures: Figures) -> str:
    """Return the sentence about what the kit adds."""
    return f"the kit adds {figures['kit'] - figures['bare']:.1f} us to a query; {MOST:g} us may be"


def _route(app: Flask, engine: Callable[[], Engine]) -> None:
    asked = select(item).where(item.c.id == 7)

    @app.get("/api/items/<int:number>")
    def view(number: int) -> dict[str, Any]:
        with engine().connect() as connection:
            for _ in range(ASKED - 1):
                connection.execute(asked).one()
            return dict(connection.execute(asked).one()._mapping)


def _bare(url: str) -> tuple[Flask, Callable[[], Engine]]:
    engine = create_engine(url)
    return Flask("bare"), lambda: engine


def _kit(url: str) -> tuple[Flask, Callable[[], Engine]]:
    from flask_prod import ProdKit

    app = Flask("kit")
    app.config.update(
        DATABASE_URL=url, OTLP_ENDPOINT=os.environ.get("BENCH_OTLP", ""), TRACING_SAMPLING_RATE=TRACED
    )
    prod = ProdKit(app, only=["metrics", "tracing", "database"])
    return app, lambda: prod.db.engine


def _by_hand(url: str) -> tuple[Flask, Callable[[], Engine]]:
    from prometheus_client import Histogram

    app, engine = Flask("by_hand"), create_engine(url)
    seconds = Histogram("database_query_seconds", "Seconds of queries", ["operation", "table"])
    span = _tracing(app)

    def before(_connection: Any, _cursor: Any, statement: str, _values: Any, context: Any, _many: bool) -> None:
        context.span = span(statement)
        context.began = perf_counter()

    def after(_connection: Any, _cursor: Any, statement: str, _values: Any, context: Any, _many: bool) -> None:
        table = re.search(r"(?:FROM|INTO|UPDATE)\s+(\w+)", statement)
        labels = (statement.split()[0], table[1] if table else "")
        seconds.labels(*labels).observe(perf_counter() - context.began)
        if context.span is not None:
            context.span.end()

    event.listen(engine, "before_cursor_execute", before)
    event.listen(engine, "after_cursor_execute", after)
    return app, lambda: engine


def _tracing(app: Flask) -> Callable[[str], Any]:
    """Return what opens a span as OpenTelemetry's instrumentation of SQLAlchemy does, if there is a collector."""
    if "BENCH_OTLP" not in os.environ:
        return lambda statement: None
    from opentelemetry import trace

    from bench.by_hand import trace_requests

    trace_requests(app, {"endpoint": os.environ["BENCH_OTLP"], "ratio": TRACED})
    tracer = trace.get_tracer("bench")

    def span(statement: str) -> Any:
        opened = tracer.start_span(statement.split()[0], kind=trace.SpanKind.CLIENT)
        if opened.is_recording():
            opened.set_attribute("db.system.name", "sqlite")
            opened.set_attribute("db.query.text", statement)
        return opened

    return span
