"""Limits as clients meet them."""

from __future__ import annotations

from typing import Any

import pytest
from flask import Flask, jsonify, request
from flask.testing import FlaskClient
from flask_limiter import RateLimitExceeded

from flask_prod import ProdKit
from flask_prod.core.component import Component, Contribution, Event, Installed
from flask_prod.core.settings import Section
from tests.apps import MakeApp

ONLY = ("redis", "ratelimit")


def get(client: FlaskClient, path: str = "/", address: str = "203.0.113.1", **headers: str) -> Any:
    return client.get(path, environ_base={"REMOTE_ADDR": address}, headers=headers)


def shop(make_app: MakeApp, **config: Any) -> tuple[ProdKit, Flask]:
    prod = ProdKit(only=ONLY)
    app = make_app(kit=prod, **config)
    app.add_url_rule("/", "index", lambda: "ok")
    app.add_url_rule("/other", "other", lambda: "ok")
    return prod, app


def test_the_client_wide_limit_counts_the_whole_application(make_app: MakeApp) -> None:
    """Views, other views and unknown paths share one budget per client; other clients have their own."""
    client = shop(make_app, RATE_LIMIT_PUBLIC=3)[1].test_client()

    assert [get(client, path).status_code for path in ("/", "/other", "/nope", "/")] == [200, 200, 404, 429]
    assert get(client, "/nope").status_code == 429
    assert get(client, address="203.0.113.2").status_code == 200


def test_scanners_are_limited(make_app: MakeApp) -> None:
    """Ten unknown paths reach the limit."""
    client = shop(make_app, RATE_LIMIT_PUBLIC=5)[1].test_client()

    assert [get(client, f"/scan{n}").status_code for n in range(10)] == [404] * 5 + [429] * 5


def test_empty_means_no_limit(make_app: MakeApp) -> None:
    """An empty RATE_LIMIT_PUBLIC limits nobody and says nothing."""
    client = shop(make_app, RATE_LIMIT_PUBLIC="")[1].test_client()
    answers = [get(client) for _ in range(150)]

    assert {answer.status_code for answer in answers} == {200}
    assert not [name for name, _ in answers[-1].headers if "ratelimit" in name.lower()]


def test_switched_off(make_app: MakeApp) -> None:
    """RATE_LIMIT_ENABLED=false limits nothing: not ours, not Flask-Limiter's."""
    prod, app = shop(make_app, RATE_LIMIT_ENABLED=False, RATE_LIMIT_PUBLIC=1)
    app.add_url_rule("/one", "one", prod.limiter.limit("1/minute")(lambda: "ok"))
    client = app.test_client()

    assert {get(client, path).status_code for path in ("/", "/one") for _ in range(5)} == {200}


def test_retry_after_is_for_refusals_alone(make_app: MakeApp) -> None:
    """A 200 says what is left; only a 429 says when to come again."""
    client = shop(make_app, RATE_LIMIT_PUBLIC=1)[1].test_client()
    passed, refused = get(client), get(client)

    assert passed.headers["X-RateLimit-Remaining"] == "0"
    assert "Retry-After" not in passed.headers
    assert 1 <= int(refused.headers["Retry-After"]) <= 121
    assert len(refused.headers.getlist("Retry-After")) == 1
    assert refused.headers["RateLimit"].startswith('"public";r=0;t=')


def test_a_handler_of_the_user_answers_and_keeps_the_headers(make_app: MakeApp) -> None:
    """Handlers for 429 or RateLimitExceeded draw the answer; what it says about limits stays."""
    app = shop(make_app, RATE_LIMIT_PUBLIC=1)[1]

    @app.errorhandler(RateLimitExceeded)
    def too_many(error: RateLimitExceeded) -> Any:
        return jsonify(error=error.description, points=error.limit.limit.amount), 429

    client = app.test_client()
    get(client)
    answer = get(client)

    assert answer.json["points"] == 1
    assert "1 requests in 1m at most" in answer.json["error"]
    assert int(answer.headers["Retry-After"]) >= 1
    assert answer.headers["X-RateLimit-Limit"] == "1"


def test_forwarded_addresses_are_not_believed(make_app: MakeApp) -> None:
    """Without trusted proxies an X-Forwarded-For of one's own buys no budget."""
    client = shop(make_app, RATE_LIMIT_PUBLIC=2)[1].test_client()
    answers = [get(client, **{"X-Forwarded-For": f"198.51.100.{n}"}) for n in range(4)]

    assert [answer.status_code for answer in answers] == [200, 200, 429, 429]


def test_ipv6_counts_by_network(make_app: MakeApp) -> None:
    """Addresses of one /64 are one client."""
    client = shop(make_app, RATE_LIMIT_PUBLIC=2)[1].test_client()
    answers = [get(client, address=f"2001:db8:0:7::{n}").status_code for n in (1, 2, 3)]

    assert answers == [200, 200, 429]
    assert get(client, address="2001:db8:0:8::1").status_code == 200


def test_known_users_have_their_own_limit(make_app: MakeApp) -> None:
    """Who is identified counts as a user wherever he comes from, in place of his address."""
    prod, app = shop(make_app, RATE_LIMIT_PUBLIC=1, RATE_LIMIT_AUTHENTICATED=3)

    @prod.limiter.identify
    def who() -> str | None:
        return request.headers.get("X-User")

    client = app.test_client()
    ada = [get(client, address=f"203.0.113.{n}", **{"X-User": "ada"}) for n in range(4)]

    assert [answer.status_code for answer in ada] == [200, 200, 200, 429]
    assert ada[0].headers["RateLimit-Policy"] == '"authenticated";q=3;w=60'
    assert get(client, **{"X-User": "bob"}).status_code == 200
    assert [get(client).status_code for _ in range(2)] == [200, 429]


def test_a_policy_blocks_as_long_as_it_says(make_app: MakeApp) -> None:
    """The sixth sign-in in fifteen minutes is shut out for an hour; the rest of the shop is not."""
    prod, app = shop(make_app)
    app.add_url_rule("/login", "login", prod.limiter.policy("auth")(lambda: "ok"))
    client = app.test_client()
    answers = [get(client, "/login") for _ in range(6)]

    assert [answer.status_code for answer in answers] == [200] * 5 + [429]
    assert 3590 <= int(answers[-1].headers["Retry-After"]) <= 3600
    assert get(client).status_code == 200
    assert get(client).headers["X-RateLimit-Remaining"] == "93"


def test_a_policy_is_shared_by_its_views(make_app: MakeApp) -> None:
    """Two views under one name have one budget; costs differ by view."""
    prod, app = shop(make_app, RATE_LIMIT_POLICIES={"export": "10/1m"})
    app.add_url_rule("/csv", "csv", prod.limiter.policy("export")(lambda: "ok"))
    app.add_url_rule("/pdf", "pdf", prod.limiter.policy("export", cost=5)(lambda: "ok"))
    client = app.test_client()
    left = [get(client, path).headers["X-RateLimit-Remaining"] for path in ("/csv", "/pdf", "/csv")]

    assert left == ["9", "4", "3"]
    assert get(client, "/pdf").status_code == 429
    assert get(client, "/csv").status_code == 200


def test_code_can_look_and_reset(make_app: MakeApp) -> None:
    """`status` counts nothing, `reset` lifts a block."""
    prod, app = shop(make_app, RATE_LIMIT_PUBLIC=50, RATE_LIMIT_POLICIES={"once": "1/1m block 1h"})
    app.add_url_rule("/once", "once", prod.limiter.policy("once")(lambda: "ok"))
    client = app.test_client()
    assert [get(client, "/once").status_code for _ in range(2)] == [200, 429]
    with app.app_context():
        before = prod.limiter.status("203.0.113.1").policies
        assert (before["once"].remaining, before["once"].points) == (0, 1)
        assert 3590 <= before["once"].blocked <= 3600
        assert before["public"].remaining == 49
        assert prod.limiter.reset("203.0.113.1", "once") == 1
    assert get(client, "/once").status_code == 200
    with app.app_context():
        assert prod.limiter.reset() > 0
        assert prod.limiter.status("203.0.113.1").policies["public"].remaining == 50


def test_two_applications_do_not_share_limits(make_app: MakeApp) -> None:
    """One kit serves several applications, each with budgets and numbers of its own."""
    prod = ProdKit(only=ONLY)
    clients = []
    for limit in (1, 2):
        app = make_app(kit=prod, RATE_LIMIT_PUBLIC=limit)
        app.add_url_rule("/", "index", lambda: "ok")
        clients.append(app.test_client())

    assert [get(clients[0]).status_code for _ in range(2)] == [200, 429]
    assert [get(clients[1]).status_code for _ in range(3)] == [200, 200, 429]


class Ears(Component[Section, list[Event]]):
    """A third party's room that keeps what it hears."""

    name = "ears"

    def install(self, app: Flask, settings: Section, kit: Installed) -> Contribution[list[Event]]:
        heard: list[Event] = []
        return Contribution(handle=heard, on_event=heard.append)


def listen(monkeypatch: pytest.MonkeyPatch, make_app: MakeApp, **config: Any) -> tuple[Flask, list[Event]]:
    monkeypatch.setitem(
        __import__("flask_prod.core.registry", fromlist=["x"]).BUILT_IN, "ears", f"{__name__}:Ears"
    )
    app = make_app(only=(*ONLY, "ears"), **config)
    app.add_url_rule("/", "index", lambda: "ok")
    heard: list[Event] = app.extensions["prod"].contributions["ears"].handle
    return app, heard


def test_breaches_are_told_once_per_client_and_minute(make_app: MakeApp, monkeypatch: pytest.MonkeyPatch) -> None:
    """A flood from many addresses is a bounded number of lines."""
    app, heard = listen(monkeypatch, make_app, RATE_LIMIT_PUBLIC=1)
    client = app.test_client()
    for number in range(100):
        for _ in range(4):
            get(client, address=f"203.0.113.{number}")

    breaches = [event for event in heard if event.name == "security.limit_breached"]
    assert len(breaches) == 30
    assert len({event.fields["client"] for event in breaches}) == 30
    assert breaches[0].severity == "warning"


@pytest.mark.parametrize(
    ("environ", "warned"),
    [
        ({"WEB_CONCURRENCY": "4"}, True),
        ({"SERVER_SOFTWARE": "gunicorn/27.0.1"}, True),
        ({"SERVER_SOFTWARE": "gunicorn/27.0.1", "WEB_CONCURRENCY": "1"}, False),
        ({}, False),
    ],
)
def test_several_workers_without_redis_are_warned_of(
    make_app: MakeApp, monkeypatch: pytest.MonkeyPatch, environ: dict[str, str], warned: bool
) -> None:
    """Each worker would count by itself: that is said once, at the start."""
    for name, value in environ.items():
        monkeypatch.setenv(name, value)
    app, heard = listen(monkeypatch, make_app)
    for _ in range(3):
        get(app.test_client())

    assert [event.name for event in heard] == ["prod.limit.unshared"] * warned


def test_odd_methods_do_not_grow_memory(make_app: MakeApp) -> None:
    """A client that invents methods makes no plans."""
    app = shop(make_app, RATE_LIMIT_PUBLIC=100_000)[1]
    client = app.test_client()
    for number in range(200):
        client.open("/nope", method=f"X{number}")
        client.open("/", method=f"X{number}")

    assert len(app.extensions["prod"].contributions["ratelimit"].handle._plans) <= 2
