"""Limits that count chosen answers only."""

from __future__ import annotations

import threading
from collections import Counter
from contextlib import closing
from typing import Any

import pytest
from flask import Flask, Response, abort, jsonify, request

from flask_prod import ProdKit
from flask_prod.components.ratelimit.chosen import read_chosen
from tests.apps import MakeApp
from tests.components.ratelimit.monitor import Monitor
from tests.servers import Valkey, free_port

ONLY = ("redis", "ratelimit")


@pytest.fixture(params=["memory", "redis", "outage"])
def url(request: pytest.FixtureRequest, shared_valkey: Valkey) -> str:
    """Run the test without Redis, with a real one, and while it is away."""
    if request.param == "redis":
        return str(request.getfixturevalue("redis_url"))
    return "" if request.param == "memory" else f"redis://127.0.0.1:{free_port()}/0"


def shop(make_app: MakeApp, url: str, count: Any, rule: str = "3/15m block 1h") -> Flask:
    prod = ProdKit(only=ONLY)
    app = make_app(kit=prod, REDIS_URL=url, RATE_LIMIT_PUBLIC=1000)

    @app.route("/login")
    @prod.limit("signin", rule, count=count)
    def login() -> Any:
        password = request.args.get("password")
        if password == "crash":
            raise RuntimeError("crash")
        if password != "right":
            abort(401)
        return jsonify(ok=True)

    return app


def left(answer: Any) -> list[str]:
    return [item for item in answer.headers["RateLimit"].split(", ") if "signin" in item]


@pytest.mark.parametrize(
    "count", [401, (401, 403), "4xx", "401,5xx", lambda response: response.status_code == 401]
)
def test_only_failed_sign_ins_count(make_app: MakeApp, url: str, count: Any) -> None:
    """Right passwords cost nothing; the third wrong one is the last, then even the right one is refused."""
    client = shop(make_app, url, count).test_client()
    assert [client.get("/login?password=right").status_code for _ in range(5)] == [200] * 5
    wrong = [client.get("/login?password=wrong") for _ in range(3)]

    assert [answer.status_code for answer in wrong] == [401] * 3
    assert [left(answer)[0].split(";")[1] for answer in wrong] == ["r=2", "r=1", "r=0"]
    assert "Retry-After" not in wrong[2].headers
    refused = client.get("/login?password=right")
    assert refused.status_code == 429
    assert 3590 <= int(refused.headers["Retry-After"]) <= 3600


def test_a_function_sees_the_views_response(make_app: MakeApp) -> None:
    """Body and headers, not the status alone; of a crash the status."""
    seen: list[Any] = []

    def failed(response: Response) -> bool:
        seen.append((response.status_code, response.is_json and response.json))
        return response.status_code >= 500

    client = shop(make_app, "", failed).test_client()
    client.get("/login?password=right")
    client.get("/login?password=crash")

    assert seen[0] == (200, {"ok": True})
    assert seen[1][0] == 500
    assert left(client.get("/login?password=right"))[0].startswith('"signin";r=2')


def test_a_function_that_fails_counts(make_app: MakeApp) -> None:
    """The answer stays as it is, and what cannot be told is counted: the safe side."""

    def broken(_: Response) -> bool:
        raise KeyError("mine")

    client = shop(make_app, "", broken).test_client()
    assert [client.get("/login?password=right").status_code for _ in range(4)] == [200] * 3 + [429]


def test_a_second_round_trip_only_when_it_counts(make_app: MakeApp, valkey: Valkey) -> None:
    """One before the view, one after it for a failed sign-in; none more."""
    client = shop(make_app, valkey.url, 401, "50/1m").test_client()
    client.get("/login")
    with closing(Monitor(valkey)) as monitor:
        for password in ("right", "wrong", "right"):
            client.get(f"/login?password={password}")
        assert monitor.commands(valkey) == [b"EVALSHA"] * 4


def test_an_outage_while_the_view_works(make_app: MakeApp, valkey: Valkey) -> None:
    """The answer is as it was, and counts in this process."""
    prod = ProdKit(only=ONLY)
    app = make_app(kit=prod, REDIS_URL=valkey.url, RATE_LIMIT_PUBLIC="")

    @app.route("/login")
    @prod.limit("signin", "3/15m", count=401)
    def login() -> Any:
        valkey.stop()
        abort(401)

    answers = [app.test_client().get("/login") for _ in range(4)]
    assert [answer.status_code for answer in answers] == [401] * 3 + [429]
    assert left(answers[2]) == ['"signin";r=0;t=' + left(answers[2])[0].split("t=")[1]]


def test_concurrent_failures_overrun_by_those_in_flight_at_most(make_app: MakeApp, redis_url: str) -> None:
    """Requests that were checked before the last point was taken still pass: at most those under way just then."""
    prod = ProdKit(only=ONLY)
    app = make_app(kit=prod, REDIS_URL=redis_url, RATE_LIMIT_PUBLIC="")
    threads = 8
    together = threading.Barrier(threads)

    @app.route("/login")
    @prod.limit("signin", "3/15m", count=401)
    def login() -> Any:
        together.wait(10)
        abort(401)

    seen: list[int] = []

    def come() -> None:
        seen.append(app.test_client().get("/login").status_code)

    workers = [threading.Thread(target=come) for _ in range(threads)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()

    assert Counter(seen) == {401: threads}  # 3 points and 8 in flight: the bound is 3 - 1 + 8
    assert app.test_client().get("/login").status_code == 429


@pytest.mark.parametrize("count", ["", "40", "often", 600, (401, "x"), ()])
def test_what_is_no_status_is_refused_at_once(count: Any) -> None:
    """A mistake in the decorator fails at import."""
    with pytest.raises(ValueError, match="count"):
        read_chosen(count)
