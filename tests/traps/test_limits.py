"""Traps of rate limits: who is counted, what is counted, and what a refusal says."""

from __future__ import annotations

import pytest
from flask import redirect

from .conftest import Crowd, OpenShop, ServeShop
from .shops import Shop

APP = "https://app.example.com"
README = ["200 per day", "50 per hour"]


def pages(shop: Shop, *paths: str) -> None:
    """Give the shop pages that say where they are."""
    for path in paths:
        shop.app.add_url_rule(path, path.strip("/") or "home", lambda path=path: path)


@pytest.mark.trap("behind a proxy all clients share one rate limit: the proxy's")
def test_trap_06_clients_behind_a_proxy(open_shop: OpenShop) -> None:
    """Two clients behind one proxy have a budget each."""
    # Flask-Limiter's first example says nothing about proxies.
    shop = open_shop(limit=3, hops=1, by_hand={"hops": 0})
    pages(shop, "/")

    greedy = shop.statuses(4, X_Forwarded_For="192.0.2.1")
    other = shop.statuses(1, X_Forwarded_For="192.0.2.2")

    assert greedy == [200, 200, 200, 429]
    assert other == [200], f"another client's first visit was answered {other[0]}"


@pytest.mark.trap("counting by the first X-Forwarded-For address, the common remedy, lets everybody pass")
def test_trap_07_forged_addresses(open_shop: OpenShop) -> None:
    """Without a proxy forwarded addresses mean nothing; behind one only the address that it wrote counts."""
    shop = open_shop(limit=4, by_hand={"by_forwarded": True})
    pages(shop, "/")

    direct = [shop.visit("/", X_Forwarded_For=f"192.0.2.{number}").status_code for number in range(5)]
    assert direct == [200] * 4 + [429], "a new X-Forwarded-For was a new client, with no proxy in front"

    behind = open_shop(name="behind", limit=4, hops=1, by_hand={"by_forwarded": True})
    pages(behind, "/")
    sent = [f"192.0.2.{number}, 198.51.100.7" for number in range(5)]
    statuses = [behind.visit("/", X_Forwarded_For=addresses).status_code for addresses in sent]
    assert statuses == [200] * 4 + [429], "what a client wrote in front of the proxy's entry was believed"


@pytest.mark.trap("CORS preflights use up the client's limit, then are refused themselves")
def test_trap_24_preflights(open_shop: OpenShop) -> None:
    """Preflights neither count nor are they limited."""
    shop = open_shop(limit=4, origins=[APP])
    pages(shop, "/")

    answers = [(shop.preflight("/").status_code, shop.visit("/", Origin=APP).status_code) for _ in range(4)]
    assert [got for _, got in answers] == [200] * 4, f"preflight and GET in turn: {answers}"

    asked = {shop.preflight("/").status_code for _ in range(20)}
    assert asked <= {200, 204}, f"preflights were answered {asked}"


@pytest.mark.trap("default limits hold for /metrics and probes too: scrapes get 429 within minutes")
def test_trap_25_probes_are_not_limited(open_shop: OpenShop) -> None:
    """Probes and scrapes are never limited."""
    shop = open_shop(kit={"RATELIMIT_DEFAULT": README}, by_hand={"limits": README, "metrics": "plain"})

    for path in ("/healthz", "/metrics"):
        statuses = shop.statuses(300, path)
        assert set(statuses) == {200}, f"{path} was answered 429 after {statuses.index(429)} times"


@pytest.mark.trap(
    "default_limits count per endpoint, do not hold for decorated views, and never for unknown paths"
)
def test_trap_26_one_budget(open_shop: OpenShop) -> None:
    """A client has one budget over all paths, decorated and unknown ones included."""
    shop = open_shop(limit=3)
    pages(shop, "/a", "/b")
    shop.app.add_url_rule("/own", "own", shop.limiter.limit("100/minute")(lambda: "own"))

    statuses = [shop.visit(path).status_code for path in ("/a", "/b", "/a", "/b")]
    assert statuses == [200, 200, 200, 429], f"/a /b /a /b: {statuses}"
    decorated = [shop.visit("/own", address="192.0.2.1").status_code for _ in range(4)]
    assert decorated == [200, 200, 200, 429]
    scanner = [shop.visit(f"/guess/{number}", address="192.0.2.2").status_code for number in range(10)]
    assert 429 in scanner, f"ten unknown paths: {scanner}"


VIEW = """
import time

@app.get("/")
def home():
    time.sleep(0.05)
    return "home"
"""


@pytest.mark.trap("limits are kept in each worker's memory: the real limit is the number of workers times higher")
def test_trap_27_workers_share(serve_shop: ServeShop, crowd: Crowd, redis_url: str) -> None:
    """Two workers let five requests a minute pass, not ten; where they cannot share, the start says so."""
    # By hand as in Flask-Limiter's first example, with REDIS_URL there for whoever reads it.
    server = serve_shop(VIEW, limit=5, env={"REDIS_URL": redis_url})
    passed = [answer.status for answer in crowd(server, "/", 40)].count(200)

    assert passed == 5, f"two workers with a limit of 5 let {passed} pass"
    assert "prod.limit.unshared" not in server.stdout
    alone = serve_shop(VIEW, limit=5)
    assert "prod.limit.unshared" in alone.stdout


@pytest.mark.trap("a 429 is HTML without Retry-After; with headers on, every 200 carries one")
def test_trap_48_refusals(open_shop: OpenShop) -> None:
    """A 429 says when to come again, in JSON for a program; a 200 says nothing of it."""
    shop = open_shop(limit=1)
    pages(shop, "/")

    passed, refused = (shop.visit("/", Accept="application/json") for _ in range(2))

    assert (passed.status_code, refused.status_code) == (200, 429)
    assert "Retry-After" not in passed.headers
    assert "Retry-After" in refused.headers, f"a 429 as {refused.mimetype}, without Retry-After"
    assert 0 < int(refused.headers["Retry-After"]) <= 120
    assert refused.is_json
    assert refused.json is not None
    assert refused.json["status"] == 429


@pytest.mark.trap("the order of Limiter and Talisman decides whether redirects to https use up the limit")
def test_trap_62_redirects(open_shop: OpenShop) -> None:
    """A visit that begins at http:// costs one request, as one that begins at https:// does."""
    order = ("metrics", "limiter", "talisman", "cors", "cache")
    shop = open_shop(limit=4, by_hand={"talisman": {}, "order": order})
    pages(shop, "/")

    visits = [[shop.visit("/", scheme=scheme).status_code for scheme in ("http", "https")] for _ in range(4)]

    assert {first for first, _ in visits} <= {302, 308}, f"four visits, http then https: {visits}"
    assert [second for _, second in visits] == [200] * 4


@pytest.mark.parametrize("order", ["cors first", "talisman first"])
@pytest.mark.trap("nothing: this works by hand and has to go on working")
def test_trap_60_headers_on_every_status(open_shop: OpenShop, order: str) -> None:
    """Whatever the status, an allowed origin may read the answer, and it carries the security headers."""
    both = ("cors", "talisman") if order == "cors first" else ("talisman", "cors")
    shop = open_shop(
        limit=6, origins=[APP], by_hand={"talisman": {}, "order": ("metrics", *both, "limiter", "cache")}
    )
    pages(shop, "/")
    shop.app.add_url_rule("/boom", "boom", lambda: str(1 / 0))
    shop.app.add_url_rule("/away", "away", lambda: redirect("/"))

    answers = [shop.visit("/", scheme="http", Origin=APP)]
    visits = (("/", "GET"), ("/nope", "GET"), ("/", "DELETE"), ("/boom", "GET"), ("/away", "GET"))
    answers += [shop.visit(path, method, Origin=APP) for path, method in visits]
    answers += [shop.visit("/", Origin=APP) for _ in range(7)]

    statuses = [answer.status_code for answer in answers]
    assert {200, 404, 405, 500, 302, 429} <= set(statuses)
    for answer in answers:
        said = f"{answer.status_code} without it"
        assert answer.headers.get("Access-Control-Allow-Origin") == APP, said
        assert answer.headers.get("X-Content-Type-Options") == "nosniff", said
