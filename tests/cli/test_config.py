"""`flask prod config`: effective settings, their origin, and no secret."""

from __future__ import annotations

import json

import pytest
from click.testing import CliRunner, Result
from flask import Flask
from flask.cli import ScriptInfo

from flask_prod.cli import prod
from tests.apps import MakeApp

CANARY = "canary-4b1d9c"


def run(app: Flask, *words: str) -> Result:
    """Run `flask prod config` on *app*."""
    return CliRunner().invoke(prod, ["config", *words], obj=ScriptInfo(create_app=lambda: app))


def test_origins(make_app: MakeApp, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each setting is shown with its value and the place that won."""
    monkeypatch.setenv("HEALTH_TIMEOUT", "3s")
    rows = {r["key"]: r for r in json.loads(run(make_app(only=("health",), HEALTH_INTERVAL=7), "--json").output)}

    assert rows["HEALTH_TIMEOUT"] == {"key": "HEALTH_TIMEOUT", "value": "3.0", "origin": "environment"}
    assert rows["HEALTH_INTERVAL"]["origin"] == "app.config"
    assert rows["SHUTDOWN_SECONDS"]["origin"] == "profile test of flask-prod"
    assert rows["HEALTH_PATH"]["origin"] == "default"


def test_filter(make_app: MakeApp) -> None:
    """A prefix, in any case, shows only what begins so; one that fits nothing is told."""
    app = make_app(only=("health",))
    table = run(app, "health_t", "SHUTDOWN").output

    assert [line.split()[0] for line in table.splitlines()[1:]] == [
        "SHUTDOWN_SECONDS",
        "HEALTH_TIMEOUT",
        "HEALTH_TOKEN",
    ]
    assert run(app, "NOTHING").exit_code == 1


@pytest.mark.parametrize("words", [(), ("--json",)])
def test_no_secret(make_app: MakeApp, monkeypatch: pytest.MonkeyPatch, words: tuple[str, ...]) -> None:
    """Of secrets only a fingerprint is shown, of addresses no password, and foreign variables not at all."""
    for name in ("AWS_SECRET_ACCESS_KEY", "STRIPE_KEY", "MY_PASSWORD", "HEALTH_TOKEN", "SECRET_KEY"):
        monkeypatch.setenv(name, f"{CANARY}-and-thirty-two-characters-more")
    monkeypatch.setenv("REDIS_URL", f"redis://shop:{CANARY}@127.0.0.1:1/0?password={CANARY}")
    result = run(make_app(only=("health", "redis")), *words)

    assert result.exit_code == 0
    assert CANARY not in result.output
    assert "secret:" in result.output
    assert "redis://***@127.0.0.1:1/0" in result.output
