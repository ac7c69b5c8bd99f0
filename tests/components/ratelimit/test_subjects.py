"""Whom a policy counts: addresses, users or API keys; at which cost; and who is never counted."""

from __future__ import annotations

from typing import Any

import pytest
from flask import Flask, request
from redis import Redis

from flask_prod import ProdKit
from flask_prod.core.errors import ConfigError
from tests.apps import MakeApp
from tests.servers import Valkey, free_port

ONLY = ("redis", "ratelimit")
SECRET = "sk-live-4711"


@pytest.fixture(params=["memory", "redis", "outage"])
def url(request: pytest.FixtureRequest, shared_valkey: Valkey) -> str:
    """Run the test without Redis, with a real one, and while it is away."""
    if request.param == "redis":
        return str(request.getfixturevalue("redis_url"))
    return "" if request.param == "memory" else f"redis://127.0.0.1:{free_port()}/0"


def shop(make_app: MakeApp, url: str, rule: str, **config: Any) -> tuple[ProdKit, Flask]:
    prod = ProdKit(only=ONLY)
    app = make_app(kit=prod, REDIS_URL=url, RATE_LIMIT_POLICIES={"export": rule}, **config)
    prod.limiter.identify(lambda: request.headers.get("X-User"))
    app.add_url_rule("/export", "export", prod.limit("export")(lambda: "ok"))
    app.add_url_rule("/", "index", lambda: "ok")
    return prod, app


def codes(
    app: Flask, times: int, address: str = "203.0.113.1", path: str = "/export", **headers: str
) -> list[int]:
    spelt = {name.replace("_", "-"): value for name, value in headers.items()}
    client = app.test_client()
    return [
        client.get(path, environ_base={"REMOTE_ADDR": address}, headers=spelt).status_code for _ in range(times)
    ]


def test_by_key(make_app: MakeApp, url: str) -> None:
    """An API key has one budget from wherever it comes, and who has none is counted by address."""
    app = shop(make_app, url, "2/1m by key")[1]

    assert codes(app, 2, X_API_Key="a") == [200, 200]
    assert codes(app, 1, "203.0.113.9", X_API_Key="a") == [429]
    assert codes(app, 1, X_API_Key="b") == [200]
    assert codes(app, 3, Authorization="Bearer c") == [200, 200, 429]
    assert codes(app, 3, "203.0.113.8") == [200, 200, 429]


def test_by_address(make_app: MakeApp, url: str) -> None:
    """Users behind one address share its budget; the client-wide limit goes on by user."""
    app = shop(make_app, url, "2/1m by address")[1]

    assert codes(app, 1, X_User="ada") + codes(app, 2, X_User="bob") == [200, 200, 429]
    assert codes(app, 1, "203.0.113.9", X_User="ada") == [200]


def test_by_user(make_app: MakeApp, url: str) -> None:
    """A user has one budget; who is not signed in is counted by address."""
    app = shop(make_app, url, "2/1m by user")[1]

    assert codes(app, 1, X_User="ada") + codes(app, 2, "203.0.113.9", X_User="ada") == [200, 200, 429]
    assert codes(app, 3) == [200, 200, 429]


def test_new_keys_do_not_evade_the_limit_by_address(make_app: MakeApp, url: str) -> None:
    """Whoever invents a key for each request still meets the client-wide limit."""
    app = shop(make_app, url, "2/1m by key", RATE_LIMIT_PUBLIC=5)[1]

    assert [codes(app, 1, X_API_Key=str(n))[0] for n in range(7)] == [200] * 5 + [429] * 2


def test_verified_keys(make_app: MakeApp) -> None:
    """What the application says about the key holds in place of headers."""
    prod, app = shop(make_app, "", "2/1m by key")
    prod.limiter.api_key(lambda: "known" if request.headers.get("X-API-Key") == "right" else None)

    assert codes(app, 3, X_API_Key="right") == [200, 200, 429]
    assert [codes(app, 1, X_API_Key=str(n))[0] for n in range(3)] == [200, 200, 429]


def test_the_header_is_a_setting(make_app: MakeApp) -> None:
    """RATE_LIMIT_KEY_HEADERS names others; those of the default are not looked at then."""
    app = shop(make_app, "", "1/1m by key", RATE_LIMIT_KEY_HEADERS=["X-Token"])[1]

    assert codes(app, 2, X_Token="a") + codes(app, 1, X_Token="b") == [200, 429, 200]
    assert codes(app, 1, X_API_Key="a") + codes(app, 1, X_API_Key="b") == [200, 429]


def test_no_key_is_in_redis_in_clear(make_app: MakeApp, redis_url: str, caplog: pytest.LogCaptureFixture) -> None:
    """Neither the names of counters nor the line about a breach show a key; `status` finds it all the same."""
    prod = ProdKit(only=(*ONLY, "logs"))
    app = make_app(kit=prod, REDIS_URL=redis_url, LOG_OUTPUT="stderr", RATE_LIMIT_POLICIES={"k": "1/1m by key"})
    app.add_url_rule("/export", "export", prod.limit("k")(lambda: "ok"))
    assert codes(app, 2, X_API_Key=SECRET) == [200, 429]

    with Redis.from_url(redis_url) as redis:
        keys = list(redis.scan_iter())
        assert any(b"key:sha256-" in key for key in keys)
        assert not any(SECRET.encode() in key for key in keys)
    assert SECRET not in caplog.text
    with app.app_context():
        assert prod.limiter.status(f"key:{SECRET}").policies["k"].remaining == 0
        assert prod.limiter.reset(f"key:{SECRET}", "k") == 1
    assert codes(app, 1, X_API_Key=SECRET) == [200]


def test_a_prefix_is_shared(make_app: MakeApp, redis_url: str) -> None:
    """Two policies with one prefix have one budget, under that name."""
    prod = ProdKit(only=ONLY)
    rules = {"login": "3/1m prefix signin", "otp": "3/1m prefix signin"}
    app = make_app(kit=prod, REDIS_URL=redis_url, RATE_LIMIT_POLICIES=rules)
    app.add_url_rule("/login", "login", prod.limit("login")(lambda: "ok"))
    app.add_url_rule("/otp", "otp", prod.limit("otp")(lambda: "ok"))

    assert codes(app, 2, path="/login") + codes(app, 2, path="/otp") == [200, 200, 200, 429]
    with Redis.from_url(redis_url) as redis:
        assert redis.exists("shop:test:limit:{203.0.113.1}:signin")


def test_a_request_may_say_what_it_costs(make_app: MakeApp, url: str) -> None:
    """A function of the request: nothing is free, and more than there is takes all there is."""
    prod = ProdKit(only=ONLY)
    app = make_app(kit=prod, REDIS_URL=url)
    price = prod.limit("export", "10/1m", cost=lambda: int(request.args["rows"]))
    app.add_url_rule("/export", "export", price(lambda: "ok"))
    client = app.test_client()

    def left(rows: int, address: str = "127.0.0.1") -> tuple[int, str]:
        answer = client.get(f"/export?rows={rows}", environ_base={"REMOTE_ADDR": address})
        return answer.status_code, answer.headers["RateLimit"].split('"export";r=')[1].split(";")[0]

    assert [left(rows) for rows in (4, 0, -5, 5, 2, 1)] == [
        (200, "6"),
        (200, "6"),
        (200, "6"),
        (200, "1"),
        (429, "1"),
        (200, "0"),
    ]
    assert left(0) == (200, "0")
    assert left(1000, "127.0.0.2") == (200, "0")


def test_the_cost_of_a_policy(make_app: MakeApp) -> None:
    """A rule may name a cost; a decorator's wins."""
    prod = ProdKit(only=ONLY)
    app = make_app(kit=prod, RATE_LIMIT_PUBLIC="", RATE_LIMIT_POLICIES={"export": "10/1m cost 4"})
    app.add_url_rule("/a", "a", prod.limit("export")(lambda: "ok"))
    app.add_url_rule("/b", "b", prod.limit("export", cost=1)(lambda: "ok"))
    client = app.test_client()

    assert [client.get(path).headers["X-RateLimit-Remaining"] for path in ("/a", "/b", "/a")] == ["6", "5", "1"]


def test_exempt_networks(make_app: MakeApp, url: str) -> None:
    """Who comes from one is never limited: not by us, not by Flask-Limiter, and hears nothing of limits."""
    prod, app = shop(make_app, url, "1/1m", RATE_LIMIT_EXEMPT="10.0.0.0/8,192.0.2.7", RATE_LIMIT_PUBLIC=3)
    app.add_url_rule("/lib", "lib", prod.limiter.limit("1/minute")(lambda: "ok"))

    for address in ("10.9.8.7", "::ffff:10.9.8.7", "192.0.2.7"):
        assert codes(app, 5, address) + codes(app, 3, address, path="/lib") == [200] * 8
    assert codes(app, 2) + codes(app, 2, "192.0.2.8", path="/lib") == [200, 429, 200, 429]
    answer = app.test_client().get("/", environ_base={"REMOTE_ADDR": "10.9.8.7"})
    assert not [name for name, _ in answer.headers if "ratelimit" in name.lower()]


def test_a_network_that_is_none_is_told_at_start(make_app: MakeApp) -> None:
    """The message names the key and the text."""
    with pytest.raises(ConfigError, match=r"RATE_LIMIT_EXEMPT: 10\.0\.0\.0/99 is neither"):
        make_app(only=ONLY, RATE_LIMIT_EXEMPT="10.0.0.0/99")
