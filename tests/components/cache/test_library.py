"""Flask-Caching's documented interface, on each back end, and its keys in app.config."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import date, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from flask import Flask, Response, render_template_string
from flask_caching import Cache, CachedResponse, make_template_fragment_key
from flask_caching.signals import cache_memoize_hit, cache_memoize_miss, cache_view_hit, cache_view_miss
from markupsafe import Markup

from flask_prod import ConfigError, NotInstalled, ProdKit, SetupFinished
from flask_prod.components.cache import CacheFace, MemoryStore
from flask_prod.components.cache.component import warn_of_many
from flask_prod.core.component import Event
from tests.servers import Valkey

from .conftest import MakeShop, backend_of


@pytest.fixture
def cache(shop: tuple[Flask, CacheFace]) -> Iterator[CacheFace]:
    """Give the cache within a context of its application."""
    app, face = shop
    with app.app_context():
        yield face


def test_face_is_the_librarys_own_class() -> None:
    """What takes a Flask-Caching `Cache` takes `prod.cache`."""
    assert isinstance(ProdKit().cache, Cache)


def test_plain_interface(cache: CacheFace) -> None:
    """`get`, `set`, `add`, `delete`, `has` and their plurals."""
    assert cache.get("a") is None
    assert cache.set("a", {"price": Decimal("1.50"), "day": date(2026, 11, 21)}, timeout=60)
    assert cache.get("a") == {"price": Decimal("1.50"), "day": date(2026, 11, 21)}
    assert not cache.add("a", 1)
    assert cache.add("b", 2)
    assert cache.has("b")
    assert not cache.has("x")
    assert cache.set_many({"c": 3, "d": None}) == ["c", "d"]
    assert cache.get_many("a", "x", "c", "d") == [cache.get("a"), None, 3, None]
    assert cache.get_dict("b", "c") == {"b": 2, "c": 3}
    assert cache.delete("b")
    assert not cache.delete("b")
    assert cache.delete_many("c", "x") == ["c", "x"]
    assert cache.unlink("d") == ["d"]
    assert cache.get_many("b", "c", "d") == [None, None, None]
    assert cache.clear()
    assert cache.get("a") is None


def test_value_is_a_copy(cache: CacheFace) -> None:
    """Changing what came out of the cache does not change what is in it."""
    cache.set("a", [1])
    cache.get("a").append(2)

    assert cache.get("a") == [1]


def test_value_that_cannot_be_stored_is_named(cache: CacheFace) -> None:
    """`set` says which type it cannot take."""
    with pytest.raises(TypeError, match=r"builtins\.object cannot be cached"):
        cache.set("a", {"x": [object()]})


def test_value_that_is_too_large_is_not_stored(cache: CacheFace) -> None:
    """An entry above CACHE_MAX_OBJECT is refused rather than filling the store."""
    assert not cache.set("a", "x" * 1024**2)
    assert cache.get("a") is None


def test_memoize(cache: CacheFace) -> None:
    """A result per set of arguments, however they are passed; `delete_memoized` forgets one or all."""
    calls = []

    @cache.memoize(50)
    def add(a: int, b: int = 1) -> int:
        calls.append((a, b))
        return a + b

    assert [add(1, 2), add(1, b=2), add(a=1, b=2), add(2)] == [3, 3, 3, 3]
    assert calls == [(1, 2), (2, 1)]
    cache.delete_memoized(add, 1, 2)
    add(1, 2)
    add(2)
    assert len(calls) == 3
    cache.delete_memoized(add)
    add(1, 2)
    add(2)
    assert len(calls) == 5
    add.delete_memoized()
    add(2)
    assert len(calls) == 6
    assert add.uncached(5, 5) == 10


def test_memoized_methods(cache: CacheFace) -> None:
    """Instances have results of their own, and lose them alone."""

    class Shelf:
        def __init__(self, name: str) -> None:
            self.name = name
            self.calls = 0

        def __repr__(self) -> str:
            return f"Shelf {self.name}"

        @cache.memoize()
        def count(self, kind: str) -> str:
            self.calls += 1
            return f"{self.name} {kind} {self.calls}"

    one, two = Shelf("one"), Shelf("two")

    assert [one.count("tea"), one.count("tea"), two.count("tea")] == ["one tea 1", "one tea 1", "two tea 1"]
    cache.delete_memoized(one.count)
    assert [one.count("tea"), two.count("tea")] == ["one tea 2", "two tea 1"]


def test_memoized_nothing(cache: CacheFace) -> None:
    """None is a result only with `cache_none`."""
    calls = []

    def nothing(kind: str) -> None:
        calls.append(kind)

    forgetful, careful = cache.memoize()(nothing), cache.memoize(cache_none=True)(nothing)
    for _ in range(2):
        forgetful("again")
        careful("once")

    assert calls == ["again", "once", "again"]


def test_functions_with_a_key(cache: CacheFace) -> None:
    """`@cached(key_prefix=...)` works outside of requests, and its key is the documented one."""
    calls = []

    @cache.cached(timeout=50, key_prefix="all_comments")
    def comments() -> list[int]:
        calls.append(1)
        return [len(calls)]

    assert [comments(), comments()] == [[1], [1]]
    assert cache.get("all_comments") == [1]
    cache.delete("all_comments")
    assert comments() == [2]
    assert comments.make_cache_key() == "all_comments"


def test_function_that_fails(cache: CacheFace) -> None:
    """An exception is raised to its caller and not stored."""
    calls = []

    @cache.memoize()
    def fail() -> int:
        calls.append(1)
        if len(calls) == 1:
            raise ValueError("once")
        return 5

    with pytest.raises(ValueError, match="once"):
        fail()
    assert fail() == 5


def test_function_with_a_value_that_cannot_be_stored(shop: tuple[Flask, CacheFace]) -> None:
    """While developing, the type is named at the first call."""
    app, cache = shop

    with app.app_context(), pytest.raises(TypeError, match="object cannot be cached"):
        cache.memoize()(object)()


def test_value_that_cannot_be_stored_in_production(make_shop: MakeShop, caplog: pytest.LogCaptureFixture) -> None:
    """In production the call goes on without the cache, and that is logged once."""
    app, cache = make_shop(ENVIRONMENT="production")

    @cache.memoize()
    def thing() -> object:
        return object()

    with app.app_context():
        assert [type(thing()) for _ in range(3)] == [object] * 3
    assert [record.levelname for record in caplog.records if "cannot be cached" in record.message] == ["ERROR"]


def test_single_flight_of_functions(shop: tuple[Flask, CacheFace]) -> None:
    """Eight callers of a memoized function compute once."""
    app, cache = shop
    calls = []

    @cache.memoize()
    def slow(number: int) -> int:
        calls.append(number)
        time.sleep(0.2)
        return number

    def call(_number: int) -> int:
        with app.app_context():
            return slow(7)

    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(call, range(8))) == [7] * 8
    assert calls == [7]


def test_generators_are_joined(cache: CacheFace) -> None:
    """A memoized generator gives its text, as in the library."""

    @cache.memoize()
    def parts() -> Any:
        yield "a"
        yield "b"

    assert [parts(), parts()] == ["ab", "ab"]


def test_template_fragments(shop: tuple[Flask, CacheFace]) -> None:
    """`{% cache %}` keeps a part of a template, escapes what the template escapes, and is deleted by its key."""
    app, cache = shop
    template = "{% cache 50, 'part', name %}<b>{{ text }}</b>{{ safe }}{% endcache %}"

    def render(name: str, text: str) -> str:
        with app.test_request_context():
            return render_template_string(template, name=name, text=text, safe=Markup("<i>"))

    assert render("a", "<x>") == "<b>&lt;x&gt;</b><i>"
    assert render("a", "other") == "<b>&lt;x&gt;</b><i>"
    assert render("b", "other") == "<b>other</b><i>"
    with app.app_context():
        cache.delete(make_template_fragment_key("part", vary_on=["a"]))
    assert render("a", "new") == "<b>new</b><i>"


def test_cached_response_has_a_time_of_its_own(shop: tuple[Flask, CacheFace]) -> None:
    """A view may return `CachedResponse` to say how long."""
    app, cache = shop
    runs = []

    @app.get("/")
    @cache.cached(timeout=50)
    def view() -> Response:
        runs.append(1)
        return CachedResponse(Response("x"), timeout=timedelta(seconds=1))

    client = app.test_client()
    client.get("/")
    client.get("/")
    time.sleep(1.1)
    client.get("/")

    assert len(runs) == 2


def test_signals(make_shop: MakeShop) -> None:
    """With CACHE_ENABLE_SIGNALS the library's signals are sent."""
    app, cache = make_shop(CACHE_ENABLE_SIGNALS=True)
    seen = []

    @cache.memoize()
    def one() -> int:
        return 1

    @app.get("/")
    @cache.cached()
    def view() -> str:
        return "page"

    def listen(name: str) -> Any:
        return lambda _sender=None, **_: seen.append(name)

    listeners = {
        signal: listen(name)
        for name, signal in (
            ("view miss", cache_view_miss), ("view hit", cache_view_hit),
            ("memoize miss", cache_memoize_miss), ("memoize hit", cache_memoize_hit),
        )
    }  # fmt: skip
    for signal, listener in listeners.items():
        signal.connect(listener)
    with app.app_context():
        one()
        one()
    app.test_client().get("/")
    app.test_client().get("/")
    for signal, listener in listeners.items():
        signal.disconnect(listener)

    assert seen == ["memoize miss", "memoize hit", "view miss", "view hit"]


def test_source_check(make_shop: MakeShop) -> None:
    """With CACHE_SOURCE_CHECK a function's source is part of its key."""
    app, cache = make_shop(CACHE_SOURCE_CHECK=True, CACHE_HASH_METHOD=hashlib.sha512)

    @cache.cached(key_prefix="x")
    def one() -> int:
        return 1

    with app.app_context():
        one()
        assert cache.get("x") is None
        assert len(one.make_cache_key()) == 65


def test_applications_keep_their_options_apart(make_shop: MakeShop) -> None:
    """The library keeps them on the object that both applications share; the kit does not."""
    kit = ProdKit(only=["redis", "cache"])
    first, cache = make_shop(kit, CACHE_ENABLE_SIGNALS=True, CACHE_SOURCE_CHECK=True)
    second, _ = make_shop(kit)

    with first.app_context():
        assert (cache.enable_signals, cache.source_check, cache.app) == (True, True, first)
        cache.set("a", 1)
    with second.app_context():
        assert (cache.enable_signals, cache.source_check, cache.app) == (False, False, second)
        assert cache.get("a") is None
    assert cache.app is second


def test_init_app_is_not_called_again() -> None:
    """Who copies the line from the library's documentation is told to leave it out."""
    with pytest.raises(SetupFinished, match=r"leave out cache\.init_app"):
        ProdKit().cache.init_app(Flask("shop"))


def test_outside_of_every_application() -> None:
    """Without an application the answer says what is missing."""
    with pytest.raises(NotInstalled, match="needs an application"):
        ProdKit().cache.get("a")


@pytest.mark.parametrize(
    ("config", "store"),
    [
        ({}, "memory"),
        ({"CACHE_TYPE": "SimpleCache"}, "memory"),
        ({"CACHE_TYPE": "flask_caching.backends.FileSystemCache"}, "file"),
        ({"CACHE_TYPE": "NullCache"}, "null"),
        ({"CACHE_TYPE": "SimpleCache", "REDIS_URL": "redis://127.0.0.1:1/0"}, "memory"),
        ({"REDIS_URL": "redis://127.0.0.1:1/0"}, "redis"),
        ({"CACHE_BACKEND": "file", "REDIS_URL": "redis://127.0.0.1:1/0"}, "file"),
    ],
)
def test_choice_of_the_store(make_shop: MakeShop, config: dict[str, Any], store: str) -> None:
    """CACHE_BACKEND, else the library's CACHE_TYPE, else Redis where there is one, else memory."""
    app, _ = make_shop(**config)

    assert backend_of(app).store.name == store


def test_default_timeout_of_the_library(make_shop: MakeShop) -> None:
    """CACHE_DEFAULT_TIMEOUT and CACHE_THRESHOLD are other names of our settings."""
    app, _ = make_shop(CACHE_DEFAULT_TIMEOUT=7)

    assert backend_of(app).seconds(None) == 7


def test_null_cache(make_shop: MakeShop) -> None:
    """CACHE_TYPE=NullCache computes every time, without a warning."""
    app, cache = make_shop(CACHE_TYPE="NullCache")
    calls = []

    @app.get("/")
    @cache.cached()
    def view() -> str:
        calls.append(1)
        return "page"

    assert [app.test_client().get("/").text for _ in range(2)] == ["page"] * 2
    assert len(calls) == 2


@pytest.mark.parametrize(
    ("config", "sentence"),
    [
        ({"CACHE_TYPE": "MemcachedCache"}, "CACHE_TYPE is 'MemcachedCache'"),
        ({"CACHE_REDIS_URL": "redis://x"}, "CACHE_REDIS_URL is not used"),
        ({"CACHE_SERIALIZER": object()}, "CACHE_SERIALIZER is not used"),
        ({"CACHE_BACKEND": "redis"}, "there is no REDIS_URL"),
        ({"CACHE_BACKEND": "memcached"}, "CACHE_BACKEND must be one of"),
        ({"CACHE_BACKND": "redis"}, "did you mean CACHE_BACKEND"),
        ({"CACHE_TTL": "soon"}, "CACHE_TTL must be a duration"),
        ({"CACHE_MAX_OBJECT": "1GB"}, "CACHE_MAX_OBJECT must not be larger"),
        ({"CACHE_HASH_METHOD": "md5"}, "CACHE_HASH_METHOD must be"),
    ],
)
def test_bad_settings(make_shop: MakeShop, config: dict[str, Any], sentence: str) -> None:
    """What cannot be honoured stops the start, by its name and with a remedy."""
    with pytest.raises(ConfigError, match=sentence):
        make_shop(**config)


def test_prefix_of_the_library(make_shop: MakeShop, redis_url: str) -> None:
    """CACHE_KEY_PREFIX divides the cache within the service's namespace."""
    app, cache = make_shop(REDIS_URL=redis_url, CACHE_KEY_PREFIX="v2_")
    with app.app_context():
        cache.set("a", 1)
    redis = app.extensions["prod"].contributions["redis"].handle

    assert redis.attempt(lambda client: list(client.scan_iter("*a"))) == [b"shop:test:cache:v2_a"]


def test_two_services_with_files_in_one_folder(make_shop: MakeShop, tmp_path: Path) -> None:
    """Clearing one service's files leaves the other's alone."""
    caches = [
        make_shop(CACHE_BACKEND="file", CACHE_DIR=str(tmp_path / "c"), SERVICE_NAME=n) for n in ("a:b", "a_b")
    ]
    for app, cache in caches:
        with app.app_context():
            cache.set("k", app.extensions["prod"].service.service_name)
    with caches[0][0].app_context():
        caches[0][1].clear()
    with caches[1][0].app_context():
        assert caches[1][1].get("k") == "a_b"


def test_command_clears(make_shop: MakeShop, redis_url: str) -> None:
    """`flask prod cache clear` empties what all processes share."""
    app, cache = make_shop(REDIS_URL=redis_url)
    with app.app_context():
        cache.set("a", 1)
    command = app.extensions["prod"].contributions["cache"].commands[0]
    result = app.test_cli_runner().invoke(command, ["clear"])
    with app.app_context():
        assert cache.get("a") is None

    assert (result.exit_code, result.output) == (0, "The cache is empty.\n")


def test_check(make_shop: MakeShop, valkey: Valkey) -> None:
    """The check warns during an outage and is not critical."""
    app, _ = make_shop(REDIS_URL=valkey.url)
    (check,) = app.extensions["prod"].contributions["cache"].checks
    well = check.probe()
    valkey.pause()
    ill = check.probe()
    valkey.resume()

    assert not check.critical
    assert well.status == "ok"
    assert ill.status == "warn"


@pytest.mark.parametrize(
    ("variables", "warned"),
    [({}, False), ({"WEB_CONCURRENCY": "4"}, True), ({"SERVER_SOFTWARE": "gunicorn/27.0.1"}, True)],
)
def test_memory_under_several_workers_is_said(
    monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], warned: bool
) -> None:
    """Several workers with a memory each are warned about when they start to serve (55)."""
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    events: list[Event] = []
    warn = warn_of_many(MemoryStore(1000, 10), events.append)
    assert warn is not None
    warn()

    assert [event.name for event in events] == (["prod.cache.unshared"] if warned else [])
