"""`flask prod config`: effective settings, their origin, and no secret."""

from __future__ import annotations

import json
from typing import Any

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


def test_explain(make_app: MakeApp, monkeypatch: pytest.MonkeyPatch) -> None:
    """One setting: its value, who said so, who was not heard, its default, its sentence, when it can change."""
    monkeypatch.setenv("LOG_SLOW_REQUEST", "2m")
    monkeypatch.setenv("WEB_THREADS", "8")
    app = make_app(only=("logs",), LOG_SLOW_REQUEST=90)
    told = run(app, "--explain", "log_slow_request").output.splitlines()

    assert told == [
        "LOG_SLOW_REQUEST",
        "A request that takes longer is logged as a warning; 0 never warns.",
        "  value       90s",
        "  from        app.config",
        "  overridden  2m (environment)",
        "  default     1s",
        "  may be      a duration such as 30s, 5m or 1h, zero or more",
        "  section     Log",
        "  a change    takes effect while the service runs",
    ]
    server = json.loads(run(app, "--explain", "WEB_THREADS", "--json").output)
    assert (server["value"], server["origin"], server["live"]) == ("8", "environment", False)
    version = json.loads(run(app, "--explain", "APP_VERSION", "--json").output)
    assert (version["key"], version["others"], version["origin"]) == (
        "SERVICE_VERSION",
        ["APP_VERSION"],
        "default",
    )


def test_explain_hides_secrets(make_app: MakeApp, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a secret every source's value is a fingerprint, also of those that were overridden."""
    monkeypatch.setenv("HEALTH_TOKEN", f"{CANARY}-environment")
    app = make_app(only=("health",), HEALTH_TOKEN=f"{CANARY}-config")
    answers = [run(app, "--explain", "HEALTH_TOKEN", *words).output for words in ((), ("--json",))]

    assert all(CANARY not in answer and answer.count("secret:") >= 2 for answer in answers)


def test_explain_unknown(make_app: MakeApp) -> None:
    """A name that is no setting is told with the one it resembles."""
    app = make_app(only=("health",))

    assert (
        "HEALTH_TIMEUT is not a setting; did you mean HEALTH_TIMEOUT?"
        in run(app, "--explain", "HEALTH_TIMEUT").output
    )
    assert run(app, "--explain", "XYZZY").exit_code == 1


def test_secret_in_another_setting(make_app: MakeApp) -> None:
    """A secret that also stands in a setting of another kind is starred there; so is an address's password."""
    more: dict[str, Any] = {"IGNORE_SETTINGS": ["sftp://a:hunter2@b"]}
    app = make_app(only=("health",), HEALTH_TOKEN=CANARY, SERVICE_VERSION=f"v-{CANARY}", **more)
    output = run(app).output + run(app, "--explain", "SERVICE_VERSION").output + run(app, "--json").output

    assert CANARY not in output
    assert "hunter2" not in output
