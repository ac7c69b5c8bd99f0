"""Examples of Flask-Caching's documentation (2.5, "Usage"), on `prod.cache`; more are in components/cache."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from typing import Any

import pytest
from flask import Response, render_template_string, request
from flask.sansio.scaffold import Scaffold
from flask.views import View
from flask_caching import make_template_fragment_key

from flask_prod import ProdKit
from flask_prod.components.cache import CacheFace
from tests.apps import MakeApp

from .conftest import Example


class Runs:
    """Counts how often something is computed, by its name."""

    def __init__(self) -> None:
        self.counts: dict[str, int] = {}

    def __call__(self, name: str = "run") -> str:
        """Return *name* with a number that grows."""
        self.counts[name] = self.counts.get(name, 0) + 1
        return f"{name} {self.counts[name]}"


@pytest.fixture
def runs() -> Runs:
    return Runs()


@pytest.fixture(params=["module", "factory"])
def cache(request: pytest.FixtureRequest, make_app: MakeApp) -> Iterator[CacheFace]:
    """Give the cache within an application; the handle was taken before that existed, or after."""
    prod = ProdKit()
    early = prod.cache if request.param == "module" else None
    app = make_app(kit=prod)
    with app.app_context():
        yield early or prod.cache


def test_cached_view(example: Example, runs: Runs) -> None:
    """Caching View Functions: the first example, `timeout=50` between the route and the function."""

    def declare(prod: ProdKit, app: Scaffold) -> None:
        @app.route("/")
        @prod.cache.cached(timeout=50)
        def index() -> str:
            return runs()

        @app.route("/other")
        @prod.cache.cached(timeout=50)
        def other() -> str:
            return runs()

    client = example(declare)

    assert [client.get(path).text for path in ("/", "/", "/other", "/")] == ["run 1", "run 1", "run 2", "run 1"]


def test_pluggable_view_class(example: Example, runs: Runs) -> None:
    """Caching Pluggable View Classes: `cached` on `dispatch_request`."""

    def declare(prod: ProdKit, app: Scaffold) -> None:
        class MyView(View):
            @prod.cache.cached(timeout=50)
            def dispatch_request(self) -> str:
                return runs()

        app.add_url_rule("/", view_func=MyView.as_view("mine"))

    client = example(declare)

    assert [client.get("/").text for _ in range(2)] == ["run 1"] * 2


def test_other_function_called_by_views(example: Example, runs: Runs) -> None:
    """Caching Other Functions: `key_prefix="all_comments"` is one entry, whichever page asks."""

    def declare(prod: ProdKit, app: Scaffold) -> None:
        @prod.cache.cached(timeout=50, key_prefix="all_comments")
        def get_all_comments() -> list[str]:
            return [runs()]

        @app.route("/a")
        def first() -> list[str]:
            return get_all_comments()

        @app.route("/b")
        def second() -> list[str]:
            return get_all_comments()

    client = example(declare)

    assert [client.get(path).json for path in ("/a", "/b", "/a")] == [["run 1"]] * 3


def test_custom_cache_key(example: Example, runs: Runs) -> None:
    """Make Custom Cache Key: pages are kept by what the function of the request returns.

    The documentation's example keeps the answers to POST, which the kit never does: a write must happen
    (docs/cache.md, "Who shares a page"). With GET the example holds.
    """

    def declare(prod: ProdKit, app: Scaffold) -> None:
        def make_key() -> str:
            return ",".join(f"{key}={value}" for key, value in (request.get_json(silent=True) or {}).items())

        @app.route("/hello", methods=["GET", "POST"])
        @prod.cache.cached(timeout=60, make_cache_key=make_key)
        def some_func() -> str:
            return runs()

    client = example(declare)
    asked = [client.get("/hello", json=data).text for data in ({"a": 1}, {"a": 1}, {"a": 2}, {"a": 1})]

    assert asked == ["run 1", "run 1", "run 2", "run 1"]
    assert [client.post("/hello", json={"a": 1}).text for _ in range(2)] == ["run 3", "run 4"]


def test_memoized_static_and_class_methods(cache: CacheFace, runs: Runs) -> None:
    """Memoization, the first warning, and "Deleting memoize cache": a class method is deleted with its class."""

    class Foobar:
        @staticmethod
        @cache.memoize(50)
        def calc_budget() -> str:
            return runs("budget")

        @classmethod
        @cache.memoize(5)
        def big_foo(cls, a: int, b: int) -> str:
            return runs(f"foo {a + b}")

    foobar: Any = Foobar  # the library's types do not know class methods
    assert [Foobar.calc_budget(), Foobar().calc_budget()] == ["budget 1"] * 2
    assert [foobar.big_foo(5, 2), foobar.big_foo(5, 2), foobar.big_foo(5, 3)] == ["foo 7 1", "foo 7 1", "foo 8 1"]
    cache.delete_memoized(foobar.big_foo, Foobar, 5, 2)
    assert [foobar.big_foo(5, 2), foobar.big_foo(5, 3)] == ["foo 7 2", "foo 8 1"]


def test_deleting_what_is_memoized(cache: CacheFace, runs: Runs) -> None:
    """Deleting memoize cache: the same arguments delete one entry, the function alone all of them."""

    @cache.memoize(50)
    def user_has_membership(user: str, role: str) -> str:
        return runs(role)

    def ask() -> list[str]:
        return [user_has_membership("demo", role) for role in ("admin", "user")]

    assert ask() == ["admin 1", "user 1"]
    cache.delete_memoized(user_has_membership, "demo", "user")
    assert ask() == ["admin 1", "user 2"]
    cache.delete_memoized(user_has_membership)
    assert ask() == ["admin 2", "user 3"]


def test_deleting_what_methods_memoized(cache: CacheFace, runs: Runs) -> None:
    """Deleting memoize cache: by instance, by class, by call, and the attribute that always means all."""

    class Adder:
        def __init__(self, name: str) -> None:
            self.name = name

        def __caching_id__(self) -> str:
            return self.name

        @cache.memoize(5)
        def add(self, b: int) -> str:
            return runs(f"{self.name}{b}")

    one, two = Adder("one"), Adder("two")

    def ask() -> list[str]:
        return [one.add(3), one.add(4), two.add(3)]

    assert ask() == ["one3 1", "one4 1", "two3 1"]
    cache.delete_memoized(one.add, 3)
    assert ask() == ["one3 2", "one4 1", "two3 1"]
    cache.delete_memoized(Adder.add, one, 3)
    assert ask() == ["one3 3", "one4 1", "two3 1"]
    cache.delete_memoized(one.add)
    assert ask() == ["one3 4", "one4 2", "two3 1"]
    cache.delete_memoized(Adder.add)
    assert ask() == ["one3 5", "one4 3", "two3 2"]
    method: Any = one.add
    method.delete_memoized()
    assert ask() == ["one3 6", "one4 4", "two3 3"]


def test_instances_with_the_same_repr_share(cache: CacheFace, runs: Runs) -> None:
    """Memoization, the note on `self` and the second warning: identity is `repr`, never `id`."""

    class Person:
        def __init__(self, number: int) -> None:
            self.id = number

        def __repr__(self) -> str:
            return f"{type(self).__name__}({self.id})"

        @cache.memoize(50)
        def has_membership(self, role_id: int) -> str:
            return runs()

    assert [Person(1).has_membership(2), Person(1).has_membership(2), Person(3).has_membership(2)] == [
        "run 1",
        "run 1",
        "run 2",
    ]


def test_options_of_memoize(cache: CacheFace, runs: Runs) -> None:
    """Decorator Options: unless, forced_update, response_filter, make_name, args_to_ignore, hash and source."""
    flags = {"off": False, "fresh": False}

    @cache.memoize(50, unless=lambda: flags["off"], forced_update=lambda: flags["fresh"])
    def add(a: int, b: int) -> str:
        return runs("add")

    @cache.memoize(timeout=50, response_filter=lambda result: not result.endswith(" 1"))
    def lucky() -> str:
        return runs("lucky")

    @cache.memoize(timeout=50, args_to_ignore=["session"])
    def get_user(session: object, user_id: int) -> str:
        return runs(f"user {user_id}")

    @cache.memoize(
        timeout=50, make_name=lambda name: f"{name}-of-2", hash_method=hashlib.sha512, source_check=True
    )
    def named(a: int) -> str:
        return runs("named")

    assert [add(1, 2), add(1, 2)] == ["add 1"] * 2
    flags["off"] = True
    assert add(1, 2) == "add 2"
    flags.update(off=False, fresh=True)
    assert add(1, 2) == "add 3"
    flags["fresh"] = False
    assert add(1, 2) == "add 3"
    assert [lucky(), lucky(), lucky()] == ["lucky 1", "lucky 2", "lucky 2"]
    assert [get_user("one", 1), get_user("other", 1), get_user("one", 2)] == [
        "user 1 1",
        "user 1 1",
        "user 2 1",
    ]
    assert [named(1), named(1), named(2)] == ["named 1", "named 1", "named 2"]


def test_unless_of_a_view(example: Example, runs: Runs) -> None:
    """Decorator Options, "unless": the function may look at the call, and then the cache is left alone."""

    def declare(prod: ProdKit, app: Scaffold) -> None:
        def previewed(view: object, number: int) -> bool:
            return number == 7

        @app.route("/<int:number>")
        @prod.cache.cached(timeout=50, unless=previewed)
        def index(number: int) -> str:
            return runs()

    client = example(declare)

    assert [client.get(path).text for path in ("/1", "/1", "/7", "/7")] == ["run 1", "run 1", "run 2", "run 3"]


def test_only_success(example: Example, runs: Runs) -> None:
    """Decorator Options, "response_filter": the documented way to keep failures out, which the kit does anyway.

    Statuses other than 200 are not stored with a filter that lets them in either (docs/cache.md).
    """

    def declare(prod: ProdKit, app: Scaffold) -> None:
        def only_success(response: Response) -> bool:
            return response.status_code == 200

        @app.route("/<int:status>")
        @prod.cache.cached(timeout=50, response_filter=only_success)
        def index(status: int) -> Response:
            return Response(runs(), status)

        @app.route("/all/<int:status>")
        @prod.cache.cached(timeout=50, response_filter=lambda response: True)
        def everything(status: int) -> Response:
            return Response(runs(), status)

    client = example(declare)

    assert [client.get("/200").text for _ in range(2)] == ["run 1"] * 2
    assert [client.get(path).text for path in ("/503", "/503", "/all/404", "/all/404")] == [
        f"run {number}" for number in (2, 3, 4, 5)
    ]


def test_query_string(example: Example, runs: Runs) -> None:
    """Decorator Options, "query_string": the order of the parameters makes no difference, their values do.

    The kit does the same without the option (docs/cache.md, "Differences from Flask-Caching").
    """

    def declare(prod: ProdKit, app: Scaffold) -> None:
        @app.route("/search")
        @prod.cache.cached(timeout=50, query_string=True)
        def search() -> str:
            return runs()

    client = example(declare)
    queries = ("limit=10&offset=20", "offset=20&limit=10", "limit=10&offset=30")

    assert [client.get(f"/search?{query}").text for query in queries] == ["run 1", "run 1", "run 2"]


def test_snippets(example: Example, runs: Runs) -> None:
    """Caching Jinja2 Snippets: with a time, with None and a key, and deleted by 'del' or by its key."""

    def declare(prod: ProdKit, app: Scaffold) -> None:
        @app.route("/timed")
        def timed() -> str:
            return render_template_string("{% cache 60*5 %}{{ run() }}{% endcache %}", run=runs)

        @app.route("/named")
        def named() -> str:
            text = '{% cache None, "key1", "key2" %}{{ run() }}{% endcache %}'
            return render_template_string(text, run=runs)

        @app.route("/delete")
        def delete() -> str:
            return render_template_string("{% cache 'del', 'key1', 'key2' %}{% endcache %}")

        @app.route("/delete-by-key")
        def delete_by_key() -> str:
            prod.cache.delete(make_template_fragment_key("key1", vary_on=["key2"]))
            return ""

    client = example(declare)

    assert [client.get("/timed").text for _ in range(2)] == ["run 1"] * 2
    assert [client.get("/named").text for _ in range(2)] == ["run 2"] * 2
    client.get("/delete")
    assert [client.get("/named").text for _ in range(2)] == ["run 3"] * 2
    client.get("/delete-by-key")
    assert client.get("/named").text == "run 4"


def test_clearing(cache: CacheFace, runs: Runs) -> None:
    """Clearing Cache: `clear()` in the context of the application forgets pages, results and plain values."""

    @cache.memoize()
    def one() -> str:
        return runs()

    cache.set("a", 1)
    one()
    cache.clear()

    assert cache.get("a") is None
    assert one() == "run 2"


def test_explicit_data(example: Example) -> None:
    """Explicitly Caching Data: the view that sets and shows `foo`."""

    def declare(prod: ProdKit, app: Scaffold) -> None:
        @app.route("/html")
        @app.route("/html/<foo>")
        def html(foo: str | None = None) -> str:
            if foo is not None:
                prod.cache.set("foo", foo)
            bar = prod.cache.get("foo")
            return render_template_string("<html><body>foo cache: {{bar}}</body></html>", bar=bar)

    client = example(declare)

    assert "foo cache: None" in client.get("/html").text
    assert "foo cache: tea" in client.get("/html/tea").text
    assert "foo cache: tea" in client.get("/html").text
