"""What `prod.cache` has beyond Flask-Caching: tags, `remember`, numbers, patterns, warming, commands, figures."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from flask import Flask

from flask_prod import ProdKit
from flask_prod.components.cache import CacheFace
from tests.servers import wait_for

from .conftest import MakeShop, backend_of


@pytest.fixture
def cache(shop: tuple[Flask, CacheFace]) -> Iterator[CacheFace]:
    """Give the cache within a context of its application."""
    app, face = shop
    with app.app_context():
        yield face


class Shelf:
    """A function with a result per product that counts its calls."""

    def __init__(self) -> None:
        self.calls: list[Any] = []

    def product(self, number: int, currency: str = "EUR") -> dict[str, Any]:
        self.calls.append((number, currency))
        return {"number": number, "currency": currency, "call": len(self.calls)}


def test_function_is_kept_by_its_arguments(cache: CacheFace) -> None:
    """However they are passed, the same arguments give the same result; others do not (inside requests, too)."""
    shelf = Shelf()

    @cache.cached(ttl="5m", tags=["products", "product:{number}"])
    def product(number: int, currency: str = "EUR") -> Any:
        return shelf.product(number, currency)

    for _ in range(2):
        assert [product(1)["call"], product(number=1)["call"], product(1, currency="EUR")["call"]] == [1, 1, 1]
        assert [product(2)["call"], product(1, "USD")["call"]] == [2, 3]
    with pytest.raises(TypeError):
        product(1, nothing=1)  # type: ignore[call-arg]

    cache.invalidate("product:1")
    assert [product(1)["call"], product(2)["call"], product(1, "USD")["call"]] == [4, 2, 5]
    cache.invalidate("products")
    assert [product(2)["call"], product(1)["call"]] == [6, 7]


def test_tag_must_name_an_argument(cache: CacheFace) -> None:
    """A tag or key with an argument that the function does not have is refused where it is written."""

    def product(number: int) -> int:
        return number

    with pytest.raises(TypeError, match=r"product:\{id\}"):
        cache.cached(ttl=60, tags=["product:{id}"])(product)
    with pytest.raises(TypeError, match=r"product/\{id\}"):
        cache.cached(ttl=60, key="product/{id}")(product)


def test_tags_by_function(cache: CacheFace) -> None:
    """What decides about tags may be a function of the arguments; names of any length do."""
    calls = []

    @cache.memoize(ttl=60, tags=lambda user: [f"user:{user}"])
    def cart(user: str) -> int:
        calls.append(user)
        return len(calls)

    assert [cart("a"), cart("b" * 1000), cart("a")] == [1, 2, 1]
    cache.invalidate("user:a")
    assert [cart("a"), cart("b" * 1000)] == [3, 2]


def test_key_with_arguments(cache: CacheFace) -> None:
    """A key of the user's own can take arguments, and is what `get` and `delete` know."""
    calls = []

    @cache.cached(ttl=60, key="price/{number}")
    def price(number: int) -> int:
        calls.append(number)
        return number * 100

    assert [price(1), price(2), price(1)] == [100, 200, 100]
    assert cache.get("price/2") == 200
    assert cache.delete("price/2")
    price(2)
    assert calls == [1, 2, 2]


def test_view_with_tags(shop: tuple[Flask, CacheFace]) -> None:
    """Pages of a route fall with their tags, those of one argument alone where the tag names it."""
    app, cache = shop
    calls = []

    @app.get("/products/<int:number>")
    @cache.cached(ttl="5m", tags=["products", "product:{number}"])
    def product(number: int) -> str:
        calls.append(number)
        return f"{number} {len(calls)}"

    client = app.test_client()

    def ask(number: int) -> str:
        return client.get(f"/products/{number}").text

    assert [ask(1), ask(2), ask(1), ask(2)] == ["1 1", "2 2", "1 1", "2 2"]
    with app.app_context():
        cache.invalidate("product:1")
    assert [ask(1), ask(2)] == ["1 3", "2 2"]
    with app.app_context():
        cache.invalidate("products")
    assert [ask(2), ask(1)] == ["2 4", "1 5"]


def test_function_called_by_a_view(shop: tuple[Flask, CacheFace]) -> None:
    """A function with arguments is told apart by them within one request, which Flask-Caching does not do."""
    app, cache = shop

    @cache.cached(ttl=60)
    def double(number: int) -> int:
        return number * 2

    @app.get("/sum")
    def total() -> str:
        return str(double(1) + double(2) + double(number=1))

    assert app.test_client().get("/sum").text == "8"


def test_remember(cache: CacheFace) -> None:
    """A value is computed by one of those who ask at once, forgotten with its tags, and lives as long as asked."""
    calls = []

    def slow() -> int:
        calls.append(1)
        time.sleep(0.1)
        return len(calls)

    app = cache.app

    def ask(_number: int) -> int:
        with app.app_context():
            return cache.remember("rate", "5m", slow, tags=["rates"])

    with ThreadPoolExecutor(8) as pool:
        assert set(pool.map(ask, range(8))) == {1}
    assert 0 < (cache.ttl("rate") or 0) <= 300
    cache.invalidate("rates")
    assert ask(0) == 2


def test_negative_results(cache: CacheFace) -> None:
    """None is kept for as long as said, and not at all if nothing is said."""
    calls = []

    def nothing() -> None:
        calls.append(1)

    for _ in range(2):
        assert cache.remember("a", "5m", nothing) is None
    assert len(calls) == 2
    for _ in range(2):
        assert cache.remember("b", "5m", nothing, negative="10s") is None
    assert len(calls) == 3
    assert 0 < (cache.ttl("b") or 0) <= 10


def test_stale_on_error(cache: CacheFace) -> None:
    """An old value stands for a computation that fails, where that was asked for."""
    state: dict[str, Any] = {"fails": False}

    @cache.cached(ttl=0.15, stale_on_error="1m", key="weather")
    def weather() -> str:
        if state["fails"]:
            raise RuntimeError("the service is away")
        return "sun"

    assert weather() == "sun"
    state["fails"] = True
    time.sleep(0.2)

    assert weather() == "sun"
    cache.delete("weather")
    with pytest.raises(RuntimeError):
        weather()


def test_increment(cache: CacheFace) -> None:
    """Numbers are counted without losing one, and read like every other value."""
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda _: backend_of(cache.app).increment("visits", 1, 60), range(40)))

    assert cache.get("visits") == 40
    assert cache.increment("visits", 2) == 42
    assert cache.set("visits", 5)
    assert cache.increment("visits") == 6
    cache.set("text", "five")
    with pytest.raises(TypeError):
        cache.increment("text")


def test_set_with_tags(cache: CacheFace) -> None:
    """Values that are set can carry tags, too."""
    cache.set("a", [1], timeout=60, tags=["letters"])
    cache.set_many({"b": [2], "c": [3]}, timeout=60, tags=["letters"])
    assert cache.get_many("a", "b", "c") == [[1], [2], [3]]

    assert cache.invalidate("letters")

    assert cache.get_many("a", "b", "c") == [None, None, None]


def test_memoized_functions_fall_with_tags_and_by_name(cache: CacheFace) -> None:
    """`delete_memoized` goes on to work beside tags."""
    calls = []

    @cache.memoize(ttl="1m", tags=["numbers"])
    def double(number: int) -> int:
        calls.append(number)
        return number * 2

    assert [double(1), double(1)] == [2, 2]
    cache.delete_memoized(double)
    double(1)
    cache.invalidate("numbers")
    double(1)
    cache.delete_memoized(double, 1)
    double(1)
    assert calls == [1, 1, 1, 1]


def serving(app: Flask) -> Any:
    """Start what a serving process starts."""
    lifecycle = app.extensions["prod"].lifecycle
    lifecycle.start()
    return lifecycle


@pytest.mark.parametrize("backend", ["redis", "tiered"])
def test_one_process_of_the_fleet_warms(make_shop: MakeShop, redis_url: str, backend: str) -> None:
    """After the start the functions run once for all processes that share the entries, in their own thread."""
    ran: list[str] = []
    apps = []
    for _ in range(3):
        kit = ProdKit(only=["redis", "cache"])

        @kit.cache.warm
        def catalogue() -> None:
            ran.append(threading.current_thread().name)

        apps.append(make_shop(kit, REDIS_URL=redis_url, CACHE_BACKEND=backend)[0])
    lifecycles = [serving(app) for app in apps]

    wait_for(lambda: len(ran) > 0, 5, "a warm cache")
    time.sleep(1.2)
    for lifecycle in lifecycles:
        lifecycle.close()

    assert ran == ["flask-prod-cache-warming"]


def test_warming_on_a_schedule(make_shop: MakeShop) -> None:
    """What would end before the next time is computed anew; a failure is logged and does not end the schedule."""
    kit = ProdKit(only=["redis", "cache"])
    runs: list[str] = []

    @kit.cache.cached(ttl="1m", key="long")
    def long() -> str:
        runs.append("long")
        return "long"

    @kit.cache.cached(ttl=1, key="short")
    def short() -> str:
        runs.append("short")
        return "short"

    @kit.cache.warm(every="1s")
    def both() -> None:
        long()
        short()

    app, _ = make_shop(kit)
    lifecycle = serving(app)
    wait_for(lambda: runs.count("short") >= 3, 8, "three rounds")
    lifecycle.close()

    assert runs.count("long") == 1


def test_commands(make_shop: MakeShop, redis_url: str) -> None:
    """`flask prod cache get|delete|invalidate|warm|stats` do what they say, and say what is wrong."""
    kit = ProdKit(only=["metrics", "redis", "cache"])

    @kit.cache.warm
    def catalogue() -> None:
        kit.cache.set("warm", "yes", tags=["all"])

    app, cache = make_shop(kit, REDIS_URL=redis_url)
    command = app.extensions["prod"].contributions["cache"].commands[0]

    def run(*words: str) -> tuple[int, str]:
        result = app.test_cli_runner().invoke(command, words)
        return result.exit_code, result.output

    code, output = run("warm")
    assert (code, output.startswith("catalogue: 0.")) == (0, True)
    assert run("get", "warm") == (0, '"yes"\nfor 300 s\n')
    assert run("delete", "warm") == (0, "Forgotten: warm (1 had a value).\n")
    assert run("get", "warm") == (1, "Error: There is nothing under warm.\n")
    run("warm", "catalogue")
    assert run("invalidate", "all") == (0, "Forgotten: everything about all.\n")
    assert run("get", "warm")[0] == 1
    assert run("warm", "nothing") == (1, "Error: Nothing is registered as nothing; there is catalogue.\n")
    code, output = run("stats")
    assert code == 0
    assert "back end: redis\nstate: ok\n" in output
    with app.app_context():
        assert cache.get("x") is None


def test_figures(make_shop: MakeShop) -> None:
    """Health says which part of all look-ups the cache answers; the metrics say what became of the others."""
    kit = ProdKit(only=["metrics", "redis", "cache"])
    app, cache = make_shop(kit)

    @cache.cached(ttl=60)
    def double(number: int) -> int:
        return number * 2

    with app.app_context():
        for number in (1, 1, 1, 1, 2):
            double(number)
        cache.get("absent")
    finding = app.extensions["prod"].contributions["cache"].checks[0].probe()
    backend_of(app).tick()
    page = app.test_client().get("/metrics", environ_base={"REMOTE_ADDR": "127.0.0.1"}).text

    assert (finding.data["lookups"], finding.data["hit_ratio"]) == (6, 0.5)
    for line in (
        'flask_prod_cache_lookups_total{result="hit",backend="memory",tier="memory"} 3.0',
        'flask_prod_cache_lookups_total{result="miss",backend="memory",tier="none"} 3.0',
        'flask_prod_cache_misses_total{outcome="computed",backend="memory"} 2.0',
        'flask_prod_cache_misses_total{outcome="absent",backend="memory"} 1.0',
        'flask_prod_cache_seconds_count{backend="memory",tier="none"} ',
        'flask_prod_cache_bytes{backend="memory"} ',
    ):
        names = line.replace("{", " ").replace("}", " ").replace(",", " ").split()
        assert any(all(name in found for name in names) for found in page.splitlines()), line
