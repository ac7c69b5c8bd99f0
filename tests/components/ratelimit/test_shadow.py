"""Shadow mode: what would be refused is counted and told, and passes."""

from __future__ import annotations

from typing import Any

import pytest
from flask import Flask

from flask_prod import ProdKit
from flask_prod.core.component import Event
from tests.apps import MakeApp
from tests.components.ratelimit.test_limits import Ears
from tests.servers import Valkey, free_port


@pytest.fixture(params=["memory", "redis", "outage"])
def url(request: pytest.FixtureRequest, shared_valkey: Valkey) -> str:
    """Run the test without Redis, with a real one, and while it is away."""
    if request.param == "redis":
        return str(request.getfixturevalue("redis_url"))
    return "" if request.param == "memory" else f"redis://127.0.0.1:{free_port()}/0"


def shop(
    make_app: MakeApp, monkeypatch: pytest.MonkeyPatch, url: str, **config: Any
) -> tuple[ProdKit, Flask, list[Event]]:
    registry = __import__("flask_prod.core.registry", fromlist=["x"]).BUILT_IN
    monkeypatch.setitem(registry, "ears", f"{Ears.__module__}:Ears")
    prod = ProdKit(only=("metrics", "redis", "ratelimit", "ears"))
    app = make_app(kit=prod, REDIS_URL=url, **config)
    app.add_url_rule("/", "index", lambda: "ok")
    heard = app.extensions["prod"].contributions["ears"].handle
    return prod, app, heard


def shadowed(app: Flask) -> list[str]:
    text = app.test_client().get("/metrics").text
    return [line for line in text.splitlines() if line.startswith("flask_prod_limit") and "policy=" in line]


def test_a_policy_in_shadow_mode_refuses_nobody(
    make_app: MakeApp, monkeypatch: pytest.MonkeyPatch, url: str
) -> None:
    """Two of five would have been refused: a metric says so, one event does, and no header."""
    prod, app, heard = shop(make_app, monkeypatch, url, RATE_LIMIT_PUBLIC=100)
    app.add_url_rule("/new", "new", prod.limit("new", "3/1m block 1h shadow")(lambda: "ok"))
    client = app.test_client()
    answers = [client.get("/new") for _ in range(5)]

    assert [answer.status_code for answer in answers] == [200] * 5
    assert answers[-1].headers["RateLimit-Policy"] == '"public";q=100;w=60'
    assert answers[-1].headers["X-RateLimit-Remaining"] == "95"
    assert shadowed(app) == ['flask_prod_limit_shadowed_total{policy="new"} 2.0']
    told = [event for event in heard if event.name.startswith("prod.limit.")]
    assert [(event.name, event.fields["policy"]) for event in told] == [("prod.limit.shadowed", "new")]
    assert "nobody was refused" in told[0].message


def test_other_limits_still_refuse(make_app: MakeApp, monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    """A limit in shadow mode neither refuses nor spares."""
    prod, app, _ = shop(make_app, monkeypatch, url, RATE_LIMIT_PUBLIC="")
    app.add_url_rule("/new", "new", prod.limit("new", "1/1m shadow")(prod.limit("old", "3/1m")(lambda: "ok")))
    client = app.test_client()

    assert [client.get("/new").status_code for _ in range(5)] == [200] * 3 + [429] * 2


def test_all_in_shadow_mode(make_app: MakeApp, monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    """Nothing refuses, not even Flask-Limiter or what is critical, and no answer tells of limits."""
    prod, app, heard = shop(make_app, monkeypatch, url, RATE_LIMIT_PUBLIC=1, RATE_LIMIT_SHADOW=True)
    app.add_url_rule("/lib", "lib", prod.limiter.limit("1/minute")(lambda: "ok"))
    app.add_url_rule("/pay", "pay", prod.limit("pay", "1/1m", critical=True)(lambda: "ok"))
    client = app.test_client()
    answers = [client.get(path) for path in ("/", "/lib", "/lib", "/pay", "/pay")]

    assert [answer.status_code for answer in answers] == [200] * 5
    assert not [name for answer in answers for name, _ in answer.headers if "ratelimit" in name.lower()]
    told = {event.fields["policy"] for event in heard if event.name == "prod.limit.shadowed"}
    assert "public" in told
    with app.app_context():
        assert [prod.limiter.consume("pay", "user:1").allowed for _ in range(3)] == [True] * 3
    assert any("1 per 1 minute" in line for line in shadowed(app))
