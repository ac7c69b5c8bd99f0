"""Traps of caching: entries that reach somebody they were not made for."""

from __future__ import annotations

import logging
import pickle
import threading
import time
from pathlib import Path
from typing import Any

import pytest
import redis
from flask import Response, abort, make_response, request

from tests.servers import HttpSink

from .conftest import Crowd, OpenShop, Reported, ServeShop

ONE, TWO = "https://one.example", "https://two.example"


@pytest.mark.trap("@cache.cached() serves one user's page to another user and to strangers")
def test_trap_03_private_pages(open_shop: OpenShop) -> None:
    """A page made for one caller reaches nobody else."""
    shop = open_shop()

    @shop.app.get("/me")
    @shop.cache.cached(timeout=60)
    def me() -> str:
        return request.headers.get("Authorization") or abort(401)

    alice, bob = (shop.visit("/me", Authorization=f"Bearer {name}").text for name in ("alice", "bob"))
    nobody = shop.visit("/me").status_code

    assert (alice, bob) == ("Bearer alice", "Bearer bob"), f"bob was served {bob!r}"
    assert nobody == 401, f"a stranger was answered {nobody}"


@pytest.mark.trap("@cache.cached() keys by the path alone: another tenant's or another page's content")
def test_trap_04_host_and_query(open_shop: OpenShop) -> None:
    """Hosts and query strings have pages of their own."""
    shop = open_shop()

    @shop.app.get("/list")
    @shop.cache.cached(timeout=60)
    def listing() -> str:
        return f"{request.host} {request.args.get('page')}"

    def page(host: str, number: int) -> str:
        return shop.visit(f"/list?page={number}", host=host).text

    assert page("a.example", 1) == "a.example 1"
    other = page("b.example", 1)
    assert other == "b.example 1", f"host b.example was served {other!r}"
    second = page("a.example", 2)
    assert second == "a.example 2", f"?page=2 was served {second!r}"
    assert page("a.example", 1) == "a.example 1"


@pytest.mark.trap("@cache.cached keeps 503, 401 and 404 for the whole timeout")
def test_trap_15_passing_errors(open_shop: OpenShop) -> None:
    """A failure of a moment is not kept, however it was answered."""
    shop = open_shop()
    up: list[bool] = []

    @shop.app.get("/aborted")
    @shop.cache.cached(timeout=60)
    def aborted() -> str:
        return "here" if up else abort(503)

    @shop.app.get("/returned")
    @shop.cache.cached(timeout=60)
    def returned() -> Any:
        return "here" if up else ("away", 503)

    paths = ("/aborted", "/returned")
    assert [shop.visit(path).status_code for path in paths] == [503, 503]
    up.append(True)
    after = [shop.visit(path).status_code for path in paths]

    assert after == [200, 200], f"after the dependency came back: {after}"


@pytest.mark.trap("@cache.cached over @cross_origin replays another origin's permission and another user's cookie")
def test_trap_18_headers_of_others(open_shop: OpenShop) -> None:
    """A cached page carries the headers of its reader's origin, and nobody's cookie."""
    shop = open_shop(kit={"ALLOWED_ORIGINS": [ONE, TWO]})

    @shop.app.get("/prices")
    @shop.cache.cached(timeout=60)
    @shop.cross_origin(origins=[ONE, TWO])
    def prices() -> str:
        return "prices"

    @shop.app.get("/welcome")
    @shop.cache.cached(timeout=60)
    def welcome() -> Response:
        answer = make_response("welcome")
        answer.set_cookie("visitor", request.headers["X-Visitor"])
        return answer

    allowed = [
        shop.visit("/prices", Origin=origin).headers["Access-Control-Allow-Origin"] for origin in (ONE, TWO)
    ]
    assert allowed == [ONE, TWO], f"{TWO} was told that {allowed[1]} may read"
    cookies = [shop.visit("/welcome", X_Visitor=visitor).headers["Set-Cookie"] for visitor in ("a", "b")]
    assert cookies == ["visitor=a; Path=/", "visitor=b; Path=/"], f"visitor b was given {cookies[1]!r}"


@pytest.mark.trap("@cache.cached above @limiter.limit: one client's 429 breaks the cached page for everybody")
def test_trap_14_limits_in_the_cache(
    open_shop: OpenShop,
    errors_logged: list[logging.LogRecord],
    http_sink: HttpSink,
    reported: Reported,
) -> None:
    """One client's refusal is nobody else's: the view runs once, nothing is logged or reported as an error."""
    shop = open_shop(sentry_dsn=http_sink.dsn)
    made: list[int] = []

    @shop.app.get("/item/<int:number>")
    @shop.cache.cached(timeout=60)
    @shop.limiter.limit("3/minute")
    def item(number: int) -> str:
        made.append(number)
        return f"item {number}"

    greedy = [shop.visit(f"/item/{number}", address="192.0.2.1").status_code for number in range(4)]
    assert greedy == [200, 200, 200, 429]
    others = [shop.visit("/item/3", address=f"192.0.2.{number}").status_code for number in range(2, 22)]

    assert others == [200] * 20
    assert made.count(3) == 1, f"the page was made {made.count(3)} times"
    assert not errors_logged, f"{len(errors_logged)} errors were logged"
    assert not reported(), "the refusal was reported to Sentry"


@pytest.mark.trap("@cache.cached on a view for GET and POST answers the POST from the cache")
def test_trap_16_writes(open_shop: OpenShop) -> None:
    """A POST is never answered from the cache."""
    shop = open_shop()
    orders: list[str] = []

    @shop.app.route("/orders", methods=["GET", "POST"])
    @shop.cache.cached(timeout=60)
    def view() -> str:
        if request.method == "POST":
            orders.append("one")
        return f"{len(orders)} orders"

    shop.visit("/orders")
    shop.visit("/orders", "POST")

    assert orders == ["one"], "the POST was answered from the cache, and nothing was ordered"


class Planted:
    """Makes a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.path,)


@pytest.mark.trap("cache values are pickles: whoever can write to Redis runs code in the web process")
def test_trap_19_pickles(open_shop: OpenShop, redis_url: str, tmp_path: Path) -> None:
    """A pickle in the place of an entry is not opened; the page is made anew."""
    shop = open_shop(redis_url=redis_url)
    proof = tmp_path / "executed"

    @shop.app.get("/x")
    @shop.cache.cached(timeout=60)
    def x() -> str:
        return "x"

    assert shop.visit("/x").status_code == 200
    with redis.Redis.from_url(redis_url) as client:
        keys = [key for key in client.scan_iter() if client.type(key) == b"string"]
        assert keys, "nothing was cached"
        for prefix in (b"!", b""):
            for key in keys:
                client.set(key, prefix + pickle.dumps(Planted(proof)))
            answer = shop.visit("/x")

            assert not proof.exists(), "the planted pickle was executed"
            assert (answer.status_code, answer.text) == (200, "x")


@pytest.mark.trap("two applications on one Redis share cache entries and rate limits")
def test_trap_44_neighbours(open_shop: OpenShop, redis_url: str) -> None:
    """Two applications on one Redis, with the same path and the same client, know nothing of one another."""
    first, second = (open_shop(name=name, redis_url=redis_url, limit=3) for name in ("first", "second"))
    for shop in (first, second):
        shop.app.add_url_rule("/page", "page", shop.cache.cached(timeout=60)(lambda name=shop.app.name: name))

    assert first.visit("/page").text == "first"
    page = second.visit("/page", address="192.0.2.9").text
    assert page == "second", f"the second application answered {page!r}"
    assert first.statuses(3, "/page") == [200, 200, 429]
    assert second.statuses(3, "/page") == [200, 200, 200], "the second's budget was used up by the first"


@pytest.mark.trap("an expired page is made again by every request that waits for it")
def test_trap_46_stampede(open_shop: OpenShop) -> None:
    """Sixteen callers of a cold page that takes 0.3 s run its view once."""
    shop = open_shop()
    made: list[int] = []

    @shop.app.get("/slow")
    @shop.cache.cached(timeout=60)
    def slow() -> str:
        made.append(1)
        time.sleep(0.3)
        return "slow"

    answers: list[str] = []
    threads = [threading.Thread(target=lambda: answers.append(shop.visit("/slow").text)) for _ in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert answers == ["slow"] * 16
    assert len(made) == 1, f"the view ran {len(made)} times"


PRICES = """
import time
from pathlib import Path

PRICE = Path(__file__).with_name("price")

@app.get("/price")
def price():
    time.sleep(0.02)
    found = shop.cache.get("price")
    if found is None:
        found = PRICE.read_text() if PRICE.exists() else "old"
        shop.cache.set("price", found, timeout=60)
    return found

@app.post("/price")
def change():
    PRICE.write_text("new")
    shop.cache.delete("price")
    return "changed"
"""


@pytest.mark.trap("SimpleCache under several workers: a deletion reaches one of them, the others serve old data")
def test_trap_55_workers(serve_shop: ServeShop, crowd: Crowd, redis_url: str) -> None:
    """What one worker deletes no worker serves, also where each has a memory of its own."""
    # By hand as in every tutorial, with REDIS_URL there for whoever reads it.
    server = serve_shop(PRICES, env={"REDIS_URL": redis_url}, by_hand={"cache": {"CACHE_TYPE": "SimpleCache"}})
    assert {answer.text for answer in crowd(server, "/price", 40)} == {"old"}

    assert server.request("POST", "/price").text == "changed"
    after = {answer.text for answer in crowd(server, "/price", 40)}

    assert after == {"new"}, f"after the deletion: {', '.join(sorted(after))}"
    alone = serve_shop(PRICES)
    assert {answer.text for answer in crowd(alone, "/price", 40)} == {"old"}
    assert alone.request("POST", "/price").text == "changed"
    assert {answer.text for answer in crowd(alone, "/price", 40)} == {"new"}
