"""Limits that processes share: one round trip, exact counts, no neighbours."""

from __future__ import annotations

import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from urllib.error import HTTPError
from urllib.request import urlopen

import pytest
from redis import Redis

from flask_prod import ProdKit
from tests.apps import MakeApp, StartGunicorn
from tests.components.ratelimit.monitor import Monitor
from tests.servers import Valkey

ONLY = ("redis", "ratelimit")

SHOP = """
from flask import Flask
from flask_prod import ProdKit

prod = ProdKit(only=("redis", "ratelimit"))

def create_app():
    app = Flask("shop")

    @app.route("/")
    @prod.limit("exact", "37/1h")
    def index():
        return "ok"

    prod.init_app(app)
    return app
"""


def test_one_round_trip_for_all_limits_and_headers(make_app: MakeApp, valkey: Valkey) -> None:
    """A request under three limits, with headers, is one command; also the refused ones."""
    prod = ProdKit(only=ONLY)
    app = make_app(kit=prod, REDIS_URL=valkey.url, RATE_LIMIT_POLICIES={"a": "5/1m", "b": "9/1m block 1h"})
    view = prod.limiter.policy("a")(prod.limiter.policy("b")(lambda: "ok"))
    app.add_url_rule("/", "index", view)
    client = app.test_client()
    assert client.get("/").headers["RateLimit-Policy"].count(";q=") == 3

    with closing(Monitor(valkey)) as monitor:
        answers = [client.get("/") for _ in range(10)]
        commands = monitor.commands(valkey)

    assert commands == [b"EVALSHA"] * 10
    assert [answer.status_code for answer in answers] == [200] * 4 + [429] * 6


def test_a_restarted_server_gets_the_script_again(make_app: MakeApp, valkey: Valkey) -> None:
    """No error and no lost limit when Redis has forgotten the script."""
    app = make_app(only=ONLY, REDIS_URL=valkey.url, RATE_LIMIT_PUBLIC=3)
    app.add_url_rule("/", "index", lambda: "ok")
    client = app.test_client()
    assert client.get("/").status_code == 200
    valkey.stop()
    valkey.start()

    assert [client.get("/").status_code for _ in range(4)] == [200, 200, 200, 429]
    assert valkey.command("EXISTS", "shop:test:limit:{127.0.0.1}:public") == b":1"
    assert app.extensions["prod"].contributions["redis"].handle.breaker.failures == 0


@pytest.mark.parametrize("other", [{"SERVICE_NAME": "blog"}, {"ENVIRONMENT": "development"}])
def test_services_and_environments_do_not_meet(make_app: MakeApp, redis_url: str, other: dict[str, str]) -> None:
    """Two applications on one Redis have budgets of their own, in our limits and in Flask-Limiter's."""
    clients = []
    for config in ({}, other):
        prod = ProdKit(only=ONLY)
        app = make_app(kit=prod, REDIS_URL=redis_url, RATE_LIMIT_PUBLIC=4, **config)
        app.add_url_rule("/", "index", lambda: "ok")
        app.add_url_rule("/lib", "lib", prod.limiter.limit("1/minute")(lambda: "ok"))
        clients.append(app.test_client())

    for client in clients:
        assert [client.get("/lib").status_code for _ in range(2)] == [200, 429]
        assert [client.get("/").status_code for _ in range(3)] == [200, 200, 429]


def test_every_key_is_in_the_namespace_and_expires(make_app: MakeApp, redis_url: str) -> None:
    """Nothing of ours is without a prefix or stays for ever."""
    prod = ProdKit(only=ONLY)
    app = make_app(kit=prod, REDIS_URL=redis_url, RATE_LIMIT_PUBLIC=1, RATE_LIMIT_POLICIES={"a": "1/1m block 1h"})
    app.add_url_rule("/", "index", prod.limiter.limit("9/minute")(prod.limiter.policy("a")(lambda: "ok")))
    for _ in range(3):
        app.test_client().get("/")

    with Redis.from_url(redis_url) as redis:
        keys = [key for key in redis.scan_iter() if not key.endswith(b":probe")]
        assert len(keys) >= 3
        assert all(key.startswith(b"shop:test:limit") for key in keys)
        assert all(0 < redis.ttl(key) <= 3600 for key in keys)


def test_four_processes_and_64_clients_count_exactly(gunicorn: StartGunicorn, redis_url: str) -> None:
    """Of 200 requests at once, to four workers with threads, exactly the points pass."""
    server = gunicorn(
        source=SHOP,
        args=["-w", "4", "-k", "gthread", "--threads", "8"],
        env={"REDIS_URL": redis_url, "RATE_LIMIT_PUBLIC": "", "ENVIRONMENT": "test"},
        ready="/ready",
    )
    barrier = threading.Barrier(64)

    def come(number: int) -> int:
        if number < 64:
            barrier.wait(20)
        try:
            with urlopen(server.url, timeout=20) as answer:
                return int(answer.status)
        except HTTPError as error:
            with error:
                return error.code

    with ThreadPoolExecutor(64) as pool:
        seen = Counter(pool.map(come, range(200)))

    assert seen == {200: 37, 429: 163}


def test_code_resets_by_scan(make_app: MakeApp, redis_url: str) -> None:
    """A reset of everything leaves the keys of others alone."""
    prod = ProdKit(only=ONLY)
    app = make_app(kit=prod, REDIS_URL=redis_url, RATE_LIMIT_PUBLIC=1)
    app.add_url_rule("/", "index", prod.limiter.limit("1/minute")(lambda: "ok"))
    client = app.test_client()
    assert [client.get("/").status_code for _ in range(2)] == [200, 429]

    with Redis.from_url(redis_url) as redis:
        redis.set("blog:test:limit:x", 1)
        with app.app_context():
            assert prod.limiter.reset() >= 2
        assert redis.exists("blog:test:limit:x")
    assert client.get("/").status_code == 200
