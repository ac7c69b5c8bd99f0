"""Cached views: who shares a page, and what is never stored. Numbers in brackets are rows of the list of traps."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import wraps
from typing import Any

import pytest
from flask import Flask, Response, abort, after_this_request, make_response, request, session
from flask.views import MethodView
from werkzeug.exceptions import ServiceUnavailable

from flask_prod import ProdKit
from flask_prod.components.cache import CacheFace
from flask_prod.core.record import current_record

from .conftest import Counter, MakeShop, backend_of


class Page:
    """A view that counts its runs and shows who asked."""

    def __init__(self, app: Flask, cache: CacheFace, rule: str = "/page", **options: Any) -> None:
        self.runs = 0
        self.client = app.test_client(use_cookies=False)  # which would hide a Cookie header
        self.rule = rule
        self.answer: Any = None

        def view() -> Any:
            self.runs += 1
            return self.answer() if self.answer else f"run {self.runs}"

        app.get(rule, endpoint=rule)(cache.cached(**options)(view))

    def get(self, query: str = "", **options: Any) -> str:
        return self.client.get(self.rule + query, **options).text


def test_page_is_computed_once(shop: tuple[Flask, CacheFace]) -> None:
    """The second request gets the first one's page, status and headers of the view included."""
    page = Page(*shop)
    page.answer = lambda: ({"run": page.runs}, 200, {"X-Shop": "open", "Cache-Control": "max-age=60"})

    first, second = (page.client.get("/page") for _ in range(2))

    assert first.json == second.json == {"run": 1}
    assert second.headers["X-Shop"] == "open"
    assert second.headers["Cache-Control"] == "max-age=60"
    assert second.content_type == "application/json"


def test_head_shares_the_page_of_get(shop: tuple[Flask, CacheFace]) -> None:
    """HEAD is answered from GET's page, but never stores one: a view may leave out the body."""
    page = Page(*shop)

    page.client.head("/page")
    assert page.get() == "run 2"
    assert page.client.head("/page").headers["Content-Length"] == "5"
    assert page.runs == 2


def test_other_users_page(shop: tuple[Flask, CacheFace]) -> None:
    """Alice's page is hers; the next caller is asked who he is (03)."""
    app, cache = shop

    @app.get("/me")
    @cache.cached()
    def me() -> str:
        if "Authorization" not in request.headers:
            abort(401)
        return request.headers["Authorization"]

    client = app.test_client()
    answers = [client.get("/me", headers={"Authorization": f"Bearer {name}"}).text for name in ("alice", "bob")]

    assert answers == ["Bearer alice", "Bearer bob"]
    assert client.get("/me").status_code == 401


@pytest.mark.parametrize(
    "headers",
    [
        {"Authorization": "Basic YTpi"},
        {"Proxy-Authorization": "Basic YTpi"},
        {"X-API-Key": "k"},
        {"X-Forwarded-User": "alice"},
        {"Cookie": "session=abc"},
        {"Cookie": "access_token_cookie=abc"},
        {"Cookie": "_ga=1; sid=abc"},
    ],
)
def test_callers_who_can_be_told_apart_share_nothing(
    shop: tuple[Flask, CacheFace], headers: dict[str, str]
) -> None:
    """A request that says who it is from neither fills the cache nor is answered from it (03)."""
    page = Page(*shop)

    assert page.get(headers=headers) == "run 1"
    assert page.get() == "run 2"
    assert page.get(headers=headers) == "run 3"
    assert page.get() == "run 2"


def test_cookies_of_analytics_do_not_count(shop: tuple[Flask, CacheFace]) -> None:
    """Cookies that no page depends on leave it in the cache."""
    page = Page(*shop)

    assert page.get(headers={"Cookie": "_ga=1; _ga_XYZ=2; _fbp=3"}) == "run 1"
    assert page.get() == "run 1"


def test_host_and_query_are_part_of_the_key(shop: tuple[Flask, CacheFace]) -> None:
    """Two tenants, and two pages of a list, have different entries (04)."""
    page = Page(*shop)
    page.answer = lambda: f"{request.host} {request.args.get('page')}"

    for base in ("http://a.example", "http://b.example"):
        for query in ("?page=1", "?page=2"):
            for _ in range(2):
                assert page.get(query, base_url=base) == f"{base[7:]} {query[-1]}"
    assert page.runs == 4


def test_scheme_and_mount_point_are_part_of_the_key(shop: tuple[Flask, CacheFace]) -> None:
    """Pages have links in them."""
    page = Page(*shop)

    bodies = [page.get(base_url=base) for base in ("http://x", "https://x", "http://x/shop")]

    assert bodies == ["run 1", "run 2", "run 3"]


def test_order_of_parameters(shop: tuple[Flask, CacheFace]) -> None:
    """Names may come in any order; values of one name may not, for the view sees their order."""
    page = Page(*shop)

    assert page.get("?a=1&b=2") == page.get("?b=2&a=1")
    assert page.get("?a=1&a=2") != page.get("?a=2&a=1")


def test_named_parameters(shop: tuple[Flask, CacheFace]) -> None:
    """With `query` the named parameters count, and no other makes a new entry."""
    page = Page(*shop, ttl="5m", query=["page", "q"])

    assert page.get("?page=1&utm_source=x") == page.get("?page=1") == page.get("?utm_source=y&page=1") == "run 1"
    assert page.get("?page=1&q=tea") == "run 2"


def test_credentials_in_the_query(shop: tuple[Flask, CacheFace]) -> None:
    """A token among the parameters that do not count is still a token."""
    page = Page(*shop, query=["page"])

    assert page.get("?token=alice") == "run 1"
    assert page.get("?token=bob") == "run 2"
    assert page.get() == "run 3"


def test_vary(shop: tuple[Flask, CacheFace]) -> None:
    """A declared header has an entry per value, and caches further out are told."""
    page = Page(*shop, vary=["Accept-Language"])
    page.answer = lambda: str(request.accept_languages.best)

    bodies = [page.get(headers={"Accept-Language": lang}) for lang in ("de", "fr", "de")]
    answer = page.client.get("/page", headers={"Accept-Language": "fr"})

    assert bodies == ["de", "fr", "de"]
    assert page.runs == 2
    assert answer.headers["Vary"] == "Accept-Language"


def test_vary_on_the_caller(shop: tuple[Flask, CacheFace]) -> None:
    """With Authorization declared, each caller has an entry of his own."""
    page = Page(*shop, vary=["Authorization"])
    page.answer = lambda: request.headers.get("Authorization", "nobody")

    for _ in range(2):
        for who in ("alice", "bob"):
            assert page.get(headers={"Authorization": who}) == who
        assert page.get() == "nobody"
    assert page.runs == 3


@pytest.mark.parametrize("read", ["accept_languages", "accept_mimetypes", "user_agent"])
def test_undeclared_negotiation_is_noticed(shop: tuple[Flask, CacheFace], read: str) -> None:
    """A page that depends on what the client prefers is not stored unless that was declared."""
    page = Page(*shop)
    page.answer = lambda: f"{getattr(request, read)} {page.runs}"

    assert page.get() != page.get()


def test_key_of_ones_own(shop: tuple[Flask, CacheFace]) -> None:
    """Who chooses the key chooses who shares the page."""
    page = Page(*shop, key=lambda: f"me/{request.headers['X-User']}")
    page.answer = lambda: request.headers["X-User"]

    for _ in range(2):
        for who in ("alice", "bob"):
            assert page.get(headers={"X-User": who, "Authorization": "x", "Cookie": "session=1"}) == who
    assert page.runs == 2


@pytest.mark.parametrize("status", [201, 204, 301, 401, 403, 404, 429, 500, 503])
def test_only_success_is_stored(shop: tuple[Flask, CacheFace], status: int) -> None:
    """A blip of a second is not an outage of five minutes (15)."""
    page = Page(*shop)
    page.answer = lambda: ("sorry", status) if page.runs == 1 else "well"

    assert page.client.get("/page").status_code == status
    assert page.get() == "well"


def test_abort_is_not_stored(shop: tuple[Flask, CacheFace]) -> None:
    """Neither is an exception that makes an answer (15)."""
    page = Page(*shop)
    page.answer = lambda: abort(503) if page.runs == 1 else "well"

    assert page.client.get("/page").status_code == 503
    assert page.get() == "well"


class Refused(ServiceUnavailable):
    """An exception that cannot be made without arguments, as Flask-Limiter's."""

    def __init__(self, limit: str) -> None:
        super().__init__(limit)


def test_limit_inside_of_the_cache(shop: tuple[Flask, CacheFace], caplog: pytest.LogCaptureFixture) -> None:
    """One client's refusal does not reach the others, the view runs once, and nothing is logged (14)."""
    page = Page(*shop)

    def answer() -> str:
        if request.headers.get("X-Client") == "greedy":
            page.runs -= 1
            raise Refused("1 per minute")
        return "page"

    page.answer = answer

    with caplog.at_level(logging.WARNING):
        assert page.client.get("/page", headers={"X-Client": "greedy"}).status_code == 503
        assert [page.get() for _ in range(20)] == ["page"] * 20
    assert page.runs == 1
    assert caplog.records == []


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH"])
def test_writes_always_happen(shop: tuple[Flask, CacheFace], method: str) -> None:
    """A cached page never answers a request that changes something (16)."""
    app, cache = shop
    written = []

    @app.route("/x", methods=["GET", method])
    @cache.cached()
    def view() -> str:
        if request.method == method:
            written.append(1)
        return request.method

    client = app.test_client()
    bodies = [client.open("/x", method=each).text for each in ("GET", method, method, "GET")]

    assert bodies == ["GET", method, method, "GET"]
    assert len(written) == 2


def set_cookie() -> Response:
    response = make_response("page")
    response.set_cookie("session", "of alice")
    return response


def with_header(name: str, value: str) -> Any:
    return lambda: ("page", {name: value})


def use_session() -> str:
    session["csrf"] = "token"
    return "page"


def use_nonce() -> str:
    record = current_record()
    assert record is not None
    record.nonce = "r4nd0m"
    return "page"


def later() -> str:
    after_this_request(lambda response: response)
    return "page"


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (set_cookie, "set-cookie"),
        (with_header("Cache-Control", "private, max-age=60"), "cache-control"),
        (with_header("Cache-Control", "No-Store"), "cache-control"),
        (with_header("Access-Control-Allow-Origin", "https://a.example"), "cors"),
        (with_header("Content-Security-Policy", "script-src 'nonce-abc'"), "nonce"),
        (with_header("Vary", "Cookie"), "vary"),
        (with_header("Vary", "*"), "vary"),
        (use_session, "session"),
        (use_nonce, "nonce"),
        (later, "after-request"),
        (lambda: Response(iter(["page"])), "stream"),
        (lambda: (part for part in ["pa", "ge"]), "stream"),
        (lambda: "x" * 1024**2, "size"),
    ],
)
@pytest.mark.parametrize("outermost", [True, False])
def test_what_is_never_stored(make_shop: MakeShop, answer: Any, reason: str, outermost: bool) -> None:
    """What is personal, or cannot be repeated, is computed each time, and counted by its reason (18, 50)."""
    app, cache = make_shop()
    refused = Counter()
    object.__setattr__(backend_of(app).counters, "refused", refused)
    runs = []

    @cache.cached()
    def view() -> Any:
        runs.append(1)
        return answer()

    @wraps(view)
    def around() -> Any:
        return view()

    app.get("/")(view if outermost else around)
    client = app.test_client(use_cookies=False)
    for _ in range(2):
        assert client.get("/").text in ("page", "x" * 1024**2)

    assert len(runs) == 2
    assert set(refused.seen) == {reason}


def test_anonymous_visitors_share_what_reads_the_session(shop: tuple[Flask, CacheFace]) -> None:
    """A view that looks into the session and finds nothing serves everybody who has none."""
    page = Page(*shop)
    page.answer = lambda: f"{session.get('user', 'visitor')} {page.runs}"

    assert page.get() == page.get() == "visitor 1"


@pytest.mark.alone
def test_stream_is_untouched(shop: tuple[Flask, CacheFace], caplog: pytest.LogCaptureFixture) -> None:
    """A stream arrives in parts as it is made, and logs nothing (50)."""
    page = Page(*shop)

    def answer() -> Iterator[str]:
        for part in ("one", "two"):
            time.sleep(0.1)
            yield part

    page.answer = answer
    began = time.perf_counter()
    response = page.client.get("/page", buffered=False)
    parts = response.iter_encoded()
    first = next(parts)

    assert first == b"one"
    assert time.perf_counter() - began < 0.19
    assert next(parts) == b"two"
    response.close()
    assert caplog.records == []


def test_decorators_around_get_what_the_view_returned(shop: tuple[Flask, CacheFace]) -> None:
    """A decorator outside of the cache sees the view's own value, from the cache too."""
    app, cache = shop
    seen = []

    def template(function: Any) -> Any:
        @wraps(function)
        def render(**kwargs: Any) -> str:
            seen.append(function(**kwargs))
            return str(seen[-1])

        return render

    @app.get("/a/<name>")
    @template
    @cache.cached()
    def view(name: str) -> dict[str, str]:
        return {"name": name}

    client = app.test_client()
    for name in ("x", "x", "y"):
        client.get(f"/a/{name}")

    assert seen == [{"name": "x"}, {"name": "x"}, {"name": "y"}]


def test_tuple_with_a_decorator_around(shop: tuple[Flask, CacheFace]) -> None:
    """Body, status and headers are judged as the response they become."""
    app, cache = shop
    runs = []

    def passing(function: Any) -> Any:
        @wraps(function)
        def call() -> Any:
            return function()

        return call

    @app.get("/")
    @passing
    @cache.cached()
    def view() -> Any:
        runs.append(1)
        return ({"run": len(runs)}, 503) if len(runs) == 1 else ({"run": len(runs)}, 200, {"X-A": "b"})

    client = app.test_client()

    assert [client.get("/").json for _ in range(3)] == [{"run": 1}, {"run": 2}, {"run": 2}]
    assert client.get("/").headers["X-A"] == "b"


def test_method_view(shop: tuple[Flask, CacheFace]) -> None:
    """`@cached` on a method of a class-based view is a page like any other."""
    app, cache = shop

    class Me(MethodView):
        @cache.cached(key_prefix="me")
        def get(self) -> str:
            return request.headers.get("Authorization", "nobody")

    app.add_url_rule("/me", view_func=Me.as_view("me"))
    client = app.test_client()
    answers = [client.get("/me", headers={"Authorization": name}).text for name in ("alice", "bob")]

    assert answers == ["alice", "bob"]


def test_helper_with_the_default_key_is_not_the_view(shop: tuple[Flask, CacheFace]) -> None:
    """A cached helper, called in a cached view of the same path, has an entry of its own."""
    app, cache = shop

    @cache.cached()
    def helper() -> list[int]:
        return [1, 2]

    @app.get("/")
    @cache.cached()
    def view() -> str:
        return f"sum {sum(helper())} {sum(helper())}"

    assert [app.test_client().get("/").text for _ in range(2)] == ["sum 3 3"] * 2


def test_stampede(shop: tuple[Flask, CacheFace]) -> None:
    """Sixteen clients on a cold page run the view once (46)."""
    app, cache = shop
    page = Page(app, cache)

    def slow() -> str:
        time.sleep(0.3)
        return "page"

    page.answer = slow
    with ThreadPoolExecutor(16) as pool:
        futures = [pool.submit(lambda: app.test_client().get("/page").text) for _ in range(16)]
        bodies = [future.result(20) for future in futures]

    assert set(bodies) == {"page"}
    assert page.runs == 1


def test_delete_as_the_library_documents_it(shop: tuple[Flask, CacheFace]) -> None:
    """`cache.delete("view//path")` and `delete_cached` forget a page with all of its queries and hosts (55)."""
    app, cache = shop
    page = Page(app, cache)
    view: Any = app.view_functions["/page"]

    assert [page.get("?a=1"), page.get("?a=2"), page.get("?a=1")] == ["run 1", "run 2", "run 1"]
    with app.app_context():
        assert cache.delete("view//page")
    assert [page.get("?a=1"), page.get("?a=2"), page.get("?a=2")] == ["run 3", "run 4", "run 4"]
    with app.app_context():
        cache.delete_cached(view, path="/page")
    assert page.get("?a=1") == "run 5"


def test_page_computed_before_its_deletion_is_not_served_after_it(shop: tuple[Flask, CacheFace]) -> None:
    """Deleting a page also forgets the one that is being computed at that moment."""
    app, cache = shop
    page = Page(app, cache)

    def answer() -> str:
        if page.runs == 1:
            cache.delete("view//page")  # the row changed after this view has read it
        return f"run {page.runs}"

    page.answer = answer

    assert page.get() == "run 1"
    assert page.get() == "run 2"
    assert page.get() == "run 2"


def test_nobody_waits_for_what_was_deleted(shop: tuple[Flask, CacheFace]) -> None:
    """Who comes after a deletion does not get the page that was being computed before it."""
    app, cache = shop
    page = Page(app, cache)

    def answer() -> str:
        run = page.runs
        time.sleep(0.3)
        return f"run {run}"

    page.answer = answer
    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(page.get)
        time.sleep(0.1)
        with app.app_context():
            cache.delete("view//page")
        second = pool.submit(app.test_client().get, "/page")
        assert (first.result(5), second.result(5).text) == ("run 1", "run 2")


def test_times_to_live(shop: tuple[Flask, CacheFace]) -> None:
    """`ttl` and `timeout` are one thing, written as seconds, text or timedelta; the attribute changes it."""
    app, cache = shop
    short = Page(app, cache, "/short", ttl="60ms")
    later = Page(app, cache, "/later", timeout=50)
    view: Any = app.view_functions["/later"]
    view.cache_timeout = 0.06
    for page in (short, later):
        page.get()
    time.sleep(0.1)

    assert [short.get(), later.get()] == ["run 2", "run 2"]


def test_documented_options(shop: tuple[Flask, CacheFace]) -> None:
    """`unless`, `forced_update`, `is_stale` and `response_filter` work as in the library."""
    app, cache = shop
    unless = Page(app, cache, "/unless", unless=lambda: "no" in request.args)
    forced = Page(app, cache, "/forced", forced_update=lambda: "now" in request.args, query=[])
    stale = Page(app, cache, "/stale", is_stale=lambda response: response.get_data() == b"run 1")
    filtered = Page(app, cache, "/filtered", response_filter=lambda body: body == "run 2")
    hit = Page(app, cache, "/hit", response_hit_indication=True)

    assert [unless.get("?no"), unless.get("?no")] == ["run 1", "run 2"]
    assert [forced.get(), forced.get(), forced.get("?now"), forced.get()] == ["run 1", "run 1", "run 2", "run 2"]
    assert [stale.get(), stale.get(), stale.get()] == ["run 1", "run 2", "run 2"]
    assert [filtered.get(), filtered.get(), filtered.get()] == ["run 1", "run 2", "run 2"]
    assert ["hit_cache" in hit.client.get("/hit").headers for _ in range(2)] == [False, True]


def test_two_applications_of_one_kit(make_shop: MakeShop, redis_url: str) -> None:
    """Two applications with one module-level `prod.cache` and one Redis keep their pages apart (44)."""
    kit = ProdKit(only=["redis", "cache"])
    apps = [make_shop(kit, REDIS_URL=redis_url, SERVICE_NAME=name)[0] for name in ("a", "b")]
    for app in apps:

        @app.get("/")
        @kit.cache.cached()
        def view(name: str = app.extensions["prod"].service.service_name) -> str:
            return name

    assert [app.test_client().get("/").text for app in apps * 2] == ["a", "b", "a", "b"]


def test_pickle_in_redis_is_a_miss(make_shop: MakeShop, redis_url: str) -> None:
    """Whatever lies under a page's key, no code runs, the answer is 200, and a counter says so (19)."""
    import pickle

    class Payload:
        def __reduce__(self) -> Any:
            return (pytest.fail, ("code from the cache ran",))

    app, cache = make_shop(REDIS_URL=redis_url)
    page = Page(app, cache)
    page.get()
    looked = Counter()
    object.__setattr__(backend_of(app).counters, "refused", looked)
    redis = app.extensions["prod"].contributions["redis"].handle
    keys = redis.attempt(lambda client: list(client.scan_iter("*page:*")))
    for number, poison in enumerate(
        (pickle.dumps(Payload()), b"!" + pickle.dumps(Payload()), b"\xff" * 10, b"FP2p")
    ):
        redis.attempt(lambda client, data=poison: client.set(keys[0], data))
        assert page.get() == f"run {number + 2}"

    assert len(keys) == 1
    assert looked.seen.count("damaged") >= 4


def test_wrong_type_in_redis_is_a_miss(make_shop: MakeShop, redis_url: str) -> None:
    """A list where a page should be fails no request."""
    app, cache = make_shop(REDIS_URL=redis_url)
    page = Page(app, cache)
    redis = app.extensions["prod"].contributions["redis"].handle
    redis.attempt(lambda client: client.rpush(redis.key("cache", "view//page"), "x"))

    assert [page.client.get("/page").status_code for _ in range(3)] == [200, 200, 200]
