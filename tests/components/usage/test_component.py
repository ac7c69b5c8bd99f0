"""The room in an application: from a request to the command's table, and what faults cost."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result
from flask import Flask, g

from flask_prod import ProdKit
from tests.apps import MakeApp, StartGunicorn
from tests.servers import Valkey, wait_for

SHOP = """
import os
from flask import Flask
from flask_prod import ProdKit

def create_app():
    app = Flask("shop")
    app.config["ENVIRONMENT"] = "test"
    app.add_url_rule("/item/<int:number>", "item", lambda number: str(number))
    ProdKit(app, only=("metrics", "redis", "usage"))
    return app
"""


def ask(app: Flask, *options: str) -> Result:
    """Run the command."""
    (command,) = app.extensions["prod"].contributions["usage"].commands
    return app.test_cli_runner().invoke(command, options)


def told(app: Flask, *options: str) -> dict[str, Any]:
    """Return what the command says to a program."""
    answer = ask(app, "--json", *options)
    assert answer.exit_code == 0, answer.output
    found: dict[str, Any] = json.loads(answer.stdout)
    return found


@pytest.fixture
def app(make_app: MakeApp, tmp_path: Path) -> Flask:
    app = make_app(only=("usage",), USAGE_FILE=str(tmp_path / "usage.sqlite3"))
    app.add_url_rule("/item/<int:number>", "item", lambda number: str(number))
    return app


def visit(app: Flask, *paths: str, **headers: str) -> None:
    for path in paths:
        app.test_client().get(path, headers={name.replace("_", "-"): text for name, text in headers.items()})


def test_by_route(app: Flask) -> None:
    """The command tells how often each route was used, by its template."""
    visit(app, "/item/1", "/item/2", "/nowhere")
    app.extensions["prod"].lifecycle.close()

    rows = told(app)["rows"]

    assert [(row["route"], row["requests"]) for row in rows] == [("/item/<int:number>", 2), ("unmatched", 1)]
    assert rows[0]["bytes"] == 2
    assert rows[0]["seconds"] >= 0


def test_by_key(app: Flask) -> None:
    """A caller is told by the fingerprint of its key, and the key is nowhere."""
    visit(app, "/item/1", X_API_Key="canary-9f31")
    visit(app, "/item/1")
    app.extensions["prod"].lifecycle.close()

    rows = told(app, "--by", "key")["rows"]

    assert sorted(row["key"].partition(":")[0] for row in rows) == ["anonymous", "key"]
    assert "canary" not in json.dumps(rows)


def test_table(app: Flask) -> None:
    """People get a table with a total."""
    visit(app, "/item/1", "/item/2", "/nowhere")
    app.extensions["prod"].lifecycle.close()

    lines = ask(app, "--since", "2h").output.splitlines()

    assert lines[2].split() == ["route", "requests", "errors", "refused", "bytes", "seconds"]
    assert lines[5].split()[:2] == ["total", "3"]


def test_nothing_yet(app: Flask, tmp_path: Path) -> None:
    """Where nothing was counted the command says so, and where it looked."""
    said = ask(app).output

    assert said.startswith("Nothing was counted since")
    assert f" in {tmp_path / 'usage.sqlite3'}. " in said


@pytest.mark.parametrize(
    ("options", "words"), [(["--since", "soon"], "a duration such as"), (["--by", "client"], "USAGE_CLIENTS")]
)
def test_mistakes(app: Flask, options: list[str], words: str) -> None:
    """A wrong option is answered with what to write."""
    answer = ask(app, *options)

    assert answer.exit_code != 0
    assert words in answer.output


def test_named_caller(tmp_path: Path) -> None:
    """The application names the caller, from what it knows at the end of the view."""
    prod = ProdKit(only=("usage",))
    prod.usage.key(lambda: g.get("partner"))
    app = Flask("shop")
    app.config.update(ENVIRONMENT="test", USAGE_FILE=str(tmp_path / "usage.sqlite3"))

    @app.get("/<name>")
    def partner(name: str) -> str:
        g.partner = name
        return name

    prod.init_app(app)
    visit(app, "/acme", "/acme", "/globex")
    app.extensions["prod"].lifecycle.close()

    assert [(row["key"], row["requests"]) for row in told(app, "--by", "key")["rows"]] == [
        ("acme", 2),
        ("globex", 1),
    ]


def test_switched_off(make_app: MakeApp, tmp_path: Path) -> None:
    """Without USAGE_ENABLED nothing is counted and no file is made."""
    app = make_app(only=("usage",), USAGE_ENABLED=False, USAGE_FILE=str(tmp_path / "usage.sqlite3"))
    visit(app, "/")
    app.extensions["prod"].lifecycle.close()

    assert list(tmp_path.glob("usage*")) == []


def test_workers(gunicorn: StartGunicorn, valkey: Valkey, make_app: MakeApp) -> None:
    """Two workers add up in Redis, through an outage, and hand on the rest when they end."""
    server = gunicorn(
        source=SHOP, args=["-w", "2", "-k", "gthread"], env={"REDIS_URL": valkey.url}, ready="/item/0",
        config="python:flask_prod.server.gunicorn_conf",
    )  # fmt: skip
    before = 1
    for number in range(20):
        assert server.get(f"/item/{number}").status == 200
    valkey.pause()
    began = time.monotonic()
    for number in range(20):
        assert server.get(f"/item/{number}").status == 200
    assert time.monotonic() - began < 5
    valkey.resume()
    server.term()
    server.wait()

    app = make_app(only=("redis", "usage"), REDIS_URL=valkey.url)

    def requests() -> float:
        return float(sum(row["requests"] for row in told(app)["rows"]))

    wait_for(lambda: requests() >= 40 + before)
    assert requests() <= 40 + before + 5  # what was asked until the server was ready
