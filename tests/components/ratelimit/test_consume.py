"""Counting from code, and what a refusal says."""

from __future__ import annotations

from typing import Any

import pytest

from flask_prod import ProdKit
from flask_prod.components.ratelimit import Decision
from flask_prod.core.errors import NotInstalled
from tests.apps import MakeApp
from tests.servers import Valkey, free_port

ONLY = ("redis", "ratelimit")


def kit(make_app: MakeApp, url: str = "", **config: Any) -> tuple[ProdKit, Any]:
    prod = ProdKit(only=ONLY)
    app = make_app(kit=prod, REDIS_URL=url, **config)
    app.add_url_rule("/login", "login", prod.limit("auth")(lambda: "ok"))
    app.add_url_rule("/mine", "mine", prod.limit("mine", "4/1m", cost=2)(lambda: "ok"))
    return prod, app


@pytest.mark.parametrize("store", ["memory", "redis"])
def test_code_counts_with_views(
    make_app: MakeApp, request: pytest.FixtureRequest, shared_valkey: Valkey, store: str
) -> None:
    """One counter for both: what a job takes, a view misses."""
    prod, app = kit(make_app, request.getfixturevalue("redis_url") if store == "redis" else "")
    shared = store == "redis"
    with app.app_context():
        first = prod.limiter.consume("auth", "127.0.0.1", cost=4)
    assert first == Decision("auth", allowed=True, remaining=1, retry_after=0, shared=shared)

    assert [app.test_client().get("/login").status_code for _ in range(2)] == [200, 429]
    with app.app_context():
        refused = prod.limiter.consume("auth", "127.0.0.1")
        assert (refused.allowed, refused.remaining, refused.shared) == (False, 0, shared)
        assert 3598 <= refused.retry_after <= 3600
        assert prod.limiter.consume("auth", "email:ada@example.com").remaining == 4


def test_policies_of_decorators_have_a_name_too(make_app: MakeApp) -> None:
    """A rule that a view spells is known to `consume`, at the cost of the rule rather than of that view."""
    prod, app = kit(make_app)
    with app.app_context():
        assert prod.limiter.consume("mine", "user:1").remaining == 3
        with pytest.raises(ValueError, match="There is no policy 'nope'; there are public"):
            prod.limiter.consume("nope", "user:1")


@pytest.mark.parametrize("config", [{"RATE_LIMIT_ENABLED": False}, {"RATE_LIMIT_POLICIES": {"auth": ""}}])
def test_what_is_off_allows(make_app: MakeApp, config: dict[str, Any]) -> None:
    """A policy that is switched off allows everything."""
    prod, app = kit(make_app, **config)
    with app.app_context():
        assert all(prod.limiter.consume("auth", "x").allowed for _ in range(20))


@pytest.mark.parametrize(
    ("fail", "allowed"), [("local", [True] * 5 + [False]), ("open", [True] * 6), ("closed", [False] * 6)]
)
def test_while_redis_is_away(make_app: MakeApp, fail: str, allowed: list[bool]) -> None:
    """The same holds as for requests; closed says when to ask again."""
    prod, app = kit(make_app, f"redis://127.0.0.1:{free_port()}/0", RATE_LIMIT_FAIL=fail)
    with app.app_context():
        decisions = [prod.limiter.consume("auth", "x") for _ in range(6)]

    assert [decision.allowed for decision in decisions] == allowed
    assert not any(decision.shared for decision in decisions)
    assert fail != "closed" or decisions[0].retry_after == 2


def test_outside_of_an_application(make_app: MakeApp) -> None:
    """There is nothing to count for; the error says so."""
    with pytest.raises(NotInstalled):
        ProdKit(only=ONLY).limiter.consume("auth", "x")


def test_a_refusal_is_a_problem_of_its_own_type(make_app: MakeApp) -> None:
    """The document names the type that IETF draft 10 registers, and the limit."""
    prod = ProdKit(only=(*ONLY, "problems"))
    app = make_app(kit=prod, RATE_LIMIT_PUBLIC=1)
    app.add_url_rule("/", "index", lambda: "ok")
    client = app.test_client()
    client.get("/")
    answer = client.get("/")

    assert (answer.status_code, answer.content_type) == (429, "application/problem+json")
    assert answer.get_json()["type"] == "https://iana.org/assignments/http-problem-types#quota-exceeded"
    assert answer.get_json()["violated-policies"] == ["public"]
    assert answer.get_json()["status"] == 429
    assert answer.headers["Retry-After"] in answer.get_json()["detail"]


def test_a_refusal_of_the_library_has_the_type_too(make_app: MakeApp) -> None:
    """Whoever limits, clients read one kind of document."""
    prod = ProdKit(only=(*ONLY, "problems"))
    app = make_app(kit=prod)
    app.add_url_rule("/lib", "lib", prod.limiter.limit("1/minute")(lambda: "ok"))
    client = app.test_client()
    client.get("/lib")

    assert client.get("/lib").get_json()["violated-policies"] == ["1 per 1 minute"]


def test_a_closed_limit_is_a_problem_too(make_app: MakeApp) -> None:
    """The 503 of a critical view says that it is a matter of time."""
    prod = ProdKit(only=(*ONLY, "problems"))
    app = make_app(kit=prod, REDIS_URL=f"redis://127.0.0.1:{free_port()}/0")
    app.add_url_rule("/pay", "pay", prod.limit("pay", "1/1m", critical=True)(lambda: "ok"))
    answer = app.test_client().get("/pay")

    assert (answer.status_code, answer.headers["Retry-After"]) == (503, "2")
    assert answer.get_json()["type"].endswith("#temporary-reduced-capacity")
