"""What an application says of its queries, as its operators see it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from flask import Flask
from sqlalchemy import text

from flask_prod import ProdKit
from tests.apps import MakeApp

SLOW = "WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM c WHERE x < :most) SELECT max(x) FROM c"


def shop(make_app: MakeApp, folder: Path, **config: Any) -> Flask:
    """Build an application with a view that asks as often as it is told, and one that is slow."""
    prod = ProdKit(only=["database", "metrics", "logs"])
    logs = {"LOG_OUTPUT": str(folder / "log"), "LOG_FORMAT": "json", "LOG_LEVEL": "INFO"}
    app = make_app(kit=prod, **{"DATABASE_URL": f"sqlite:///{folder}/shop.db", **logs, **config})

    @app.get("/ask/<int:times>")
    def ask(times: int) -> str:
        for number in range(times):
            prod.db.session.execute(text("SELECT :n"), {"n": f"canary-{number}"})
        return "asked"

    @app.get("/slow")
    def slow() -> str:
        return str(prod.db.session.scalar(text(SLOW), {"most": 300_000}))

    return app


def lines(folder: Path, event: str) -> list[dict[str, Any]]:
    """Return the lines of one event."""
    found = [json.loads(line) for line in (folder / "log").read_text().splitlines()]
    assert "canary" not in str(found)
    return [line for line in found if line.get("event") == event]


def test_line_of_a_request(make_app: MakeApp, tmp_path: Path) -> None:
    """A request's line says how often it asked and how long that took; one that never asked says nothing of it."""
    client = shop(make_app, tmp_path).test_client()

    client.get("/ask/3")
    client.get("/ask/0")

    asked, idle = lines(tmp_path, "request")
    assert asked["db_queries"] == 3
    assert 0 < asked["db_ms"] < asked["duration_ms"]
    assert not {"db_queries", "db_ms"} & idle.keys()


def test_slow_query(make_app: MakeApp, tmp_path: Path) -> None:
    """LOG_SLOW_QUERY decides what is slow; the line goes with its request's id."""
    client = shop(make_app, tmp_path, LOG_SLOW_QUERY="5ms").test_client()

    request_id = client.get("/slow").headers["X-Request-ID"]

    (line,) = lines(tmp_path, "prod.database.slow_query")
    assert (line["request_id"], line["fields"]["route"]) == (request_id, "/slow")
    assert line["fields"]["statement"].startswith("WITH RECURSIVE c(x) AS (SELECT ?")
    assert line["fields"]["seconds"] > 0.005


def test_no_query_is_slow(make_app: MakeApp, tmp_path: Path) -> None:
    """With LOG_SLOW_QUERY=0 none is."""
    shop(make_app, tmp_path, LOG_SLOW_QUERY=0).test_client().get("/slow")

    assert not lines(tmp_path, "prod.database.slow_query")


def test_repeated_query(make_app: MakeApp, tmp_path: Path) -> None:
    """In development a request that asks the same too often has a line for it, and only that request."""
    client = shop(make_app, tmp_path, ENVIRONMENT="development").test_client()

    client.get("/ask/10")
    request_id = client.get("/ask/25").headers["X-Request-ID"]

    (line,) = lines(tmp_path, "prod.database.repeated_query")
    assert (line["request_id"], line["fields"]["count"]) == (request_id, 25)
    assert "test_app.py" in line["fields"]["at"]


def test_metrics(make_app: MakeApp, tmp_path: Path) -> None:
    """Queries are counted by operation, table and role; a statement without SQLAlchemy's knowledge has `other`."""
    client = shop(make_app, tmp_path).test_client()

    client.get("/ask/4")

    page = client.get("/metrics").text
    assert 'flask_prod_database_query_seconds_count{operation="SELECT",role="primary",table="other"} 4.0' in page
