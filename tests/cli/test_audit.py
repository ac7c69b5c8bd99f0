"""`flask prod audit`: what it prints, and how it exits."""

from __future__ import annotations

import json
from collections.abc import Callable

from click.testing import CliRunner, Result
from flask import Flask
from flask.cli import ScriptInfo

from flask_prod.cli import prod
from tests.apps import StartGunicorn
from tests.review.test_audit import OFFLINE
from tests.review.well import site

APP = """
from flask import Flask
from flask_prod import ProdKit

def create_app():
    app = Flask("shop")
    ProdKit(app, only=("health", "metrics", "headers", "problems"))

    @app.get("/debug/pprof/")
    def pool():
        return "10 connections"

    return app
"""


def run(*words: str, add: Callable[[Flask], object] = lambda _app: None) -> Result:
    """Run `flask prod audit` on a site with one more thing."""
    app = site(**OFFLINE)
    add(app)
    try:
        return CliRunner().invoke(prod, ["audit", *words], obj=ScriptInfo(create_app=lambda: app))
    finally:
        app.extensions["prod"].lifecycle.close()


def admin(app: Flask) -> None:
    """Leave an operations page open."""
    app.add_url_rule("/admin", "admin", lambda: "all orders")


def test_shut() -> None:
    """Where a stranger gets nothing, the exit code is 0 and one line says how much was asked."""
    done = run()

    assert done.exit_code == 0, done.output
    assert done.output.startswith("Nothing found (")


def test_open() -> None:
    """An open operations page fails a pipeline, and is told with its path; a silence has a reason."""
    found = run("--json", add=admin)
    silenced = run("--silence", "A01=behind the company's sign-in", add=admin)

    assert found.exit_code == 1
    assert [(one["id"], one["evidence"]) for one in json.loads(found.output)["findings"]] == [
        ("A01", "GET /admin")
    ]
    assert silenced.exit_code == 0
    assert "behind the company's sign-in" in silenced.output


def test_no_application() -> None:
    """Without an application, or a service that answers, nothing was audited: exit code 2."""
    bare = CliRunner().invoke(prod, ["audit"], obj=ScriptInfo(create_app=lambda: Flask("bare")))

    assert bare.exit_code == 2
    assert "has no kit" in bare.output
    assert run("--url", "http://127.0.0.1:1").exit_code == 2


def test_running_service(gunicorn: StartGunicorn) -> None:
    """--url asks a running service; what this machine may read, as metrics on loopback, is told as well."""
    server = gunicorn(source=APP, args=["-w", "1"], env={"SECURITY_FORCE_HTTPS": "false"})
    done = run("--url", f"http://127.0.0.1:{server.port}", "--json")
    places = {one["evidence"] for one in json.loads(done.output)["findings"] if one["id"] == "A01"}

    assert done.exit_code == 1
    assert places == {"GET /debug/pprof/", "GET /metrics"}
