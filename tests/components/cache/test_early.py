"""Public pages: hits are answered before Flask is entered, and are counted, limited, redirected and logged."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import wraps
from pathlib import Path
from typing import Any

import pytest
from flask import Flask, Response, abort, render_template_string, request, session

from flask_prod import ProdKit
from tests.apps import MakeApp

NO_HTTPS = {"SECURITY_FORCE_HTTPS": False}
HOST = "https://shop.example"


class Shop:
    """An application with the whole kit, one public page, and a before_request that counts."""

    def __init__(self, make_app: MakeApp, decorate: Any = None, **config: Any) -> None:
        self.prod = ProdKit(without=("error_tracking", "jobs"))
        self.entered = self.runs = 0
        options = config.pop("options", {"ttl": "1m", "query": ["page"], "tags": ["products"]})
        self.app: Flask = make_app(kit=self.prod, SECRET_KEY="k" * 32, **config)
        self.app.before_request(self.note)
        self.answer: Callable[[], Any] = lambda: f"run {self.runs}"
        view = self.prod.cache.cached(public=True, **options)(self.view)
        self.app.get("/p/<slug>", endpoint="page")(decorate(self.prod)(view) if decorate else view)
        self.client = self.app.test_client(use_cookies=False)

    def note(self) -> None:
        self.entered += 1

    def view(self, slug: str) -> Any:
        self.runs += 1
        return self.answer()

    def get(self, path: str = "/p/tea", base_url: str = HOST, **options: Any) -> Any:
        return self.client.open(path, base_url=base_url, **{"method": "GET", **options})

    def warm(self, path: str = "/p/tea", **options: Any) -> None:
        for _ in range(2):  # the first stores it, the second is found by Flask and learnt
            self.get(path, **options)
        self.entered = 0


@pytest.fixture
def shop(make_app: MakeApp) -> Shop:
    """Give a shop whose page is in the cache and known."""
    shop = Shop(make_app)
    shop.warm()
    return shop


def test_hit_does_not_enter_flask(shop: Shop) -> None:
    """Neither routing nor hooks nor the view run; the answer says what it is."""
    answer = shop.get()

    assert (answer.text, shop.entered, shop.runs) == ("run 1", 0, 1)
    assert answer.headers["Cache-Status"].startswith("flask-prod; hit; ttl=")
    assert int(answer.headers["Age"]) >= 0
    assert answer.headers["Cache-Control"] == "public, no-cache"
    assert answer.content_type == "text/html; charset=utf-8"
    assert answer.content_length == 5


def test_headers_of_a_hit_are_its_own(shop: Shop) -> None:
    """Request id, limits and security headers belong to each exchange, once each."""
    first, second = shop.get(), shop.get()

    assert first.headers["X-Request-ID"] != second.headers["X-Request-ID"]
    assert int(first.headers["X-RateLimit-Remaining"]) == int(second.headers["X-RateLimit-Remaining"]) + 1
    assert "Content-Security-Policy" in first.headers
    for name in ("X-Request-ID", "Content-Type", "Content-Security-Policy", "Age", "Cache-Status", "ETag"):
        assert len(second.headers.getlist(name)) == 1, name


def test_origin_of_a_hit(make_app: MakeApp) -> None:
    """Every origin gets its own CORS answer from one stored page (18)."""
    shop = Shop(make_app, ALLOWED_ORIGINS=["https://a.example", "https://b.example"])
    shop.warm(headers={"Origin": "https://a.example"})

    answers = [shop.get(headers={"Origin": f"https://{name}.example"}) for name in "abc"]

    assert [one.headers.get("Access-Control-Allow-Origin") for one in answers] == [
        "https://a.example", "https://b.example", None,
    ]  # fmt: skip
    assert all("Origin" in one.headers["Vary"] for one in answers)
    assert (shop.entered, shop.runs) == (0, 1)


def test_limits_count_hits(make_app: MakeApp) -> None:
    """The general limit and the route's own refuse a hit as they refuse a view, with the user's error handler."""

    def decorate(prod: ProdKit) -> Any:
        return prod.limit("pages", rule="4/1m")

    shop = Shop(make_app, decorate)
    shop.app.register_error_handler(429, lambda error: ("slow down", 429, {"X-Own": "yes"}))
    shop.warm()

    answers = [shop.get() for _ in range(4)]

    assert [one.status_code for one in answers] == [200, 200, 429, 429]
    assert (answers[2].text, answers[2].headers["X-Own"]) == ("slow down", "yes")
    assert int(answers[2].headers["Retry-After"]) > 0
    assert '"pages"' in answers[0].headers["RateLimit"]
    assert "hit" in answers[1].headers["Cache-Status"]


def test_refused_request_is_counted_once(make_app: MakeApp) -> None:
    """A guard that was asked before Flask is not asked again within."""
    shop = Shop(make_app, RATE_LIMIT_PUBLIC=3)
    shop.warm()
    asked = []
    limits = shop.app.extensions["prod"].contributions["ratelimit"].handle
    consume = limits._counters.consume

    def counting(*args: Any) -> Any:
        asked.append(args)
        return consume(*args)

    limits._counters.consume = counting
    assert [shop.get().status_code for _ in range(2)] == [200, 429]
    assert len(asked) <= 2


def test_plain_http_is_redirected(make_app: MakeApp) -> None:
    """A stored page does not keep a browser from being sent to HTTPS, nor a program from being refused."""
    shop = Shop(make_app, SECURITY_FORCE_HTTPS=True)
    shop.warm()

    answer = shop.get(base_url="http://shop.example")
    refused = shop.get(base_url="http://shop.example", headers={"Accept": "application/json"})

    assert (answer.status_code, answer.headers["Location"]) == (308, "https://shop.example/p/tea")
    assert refused.status_code == 403


def test_route_is_measured_and_logged(make_app: MakeApp, tmp_path: Path) -> None:
    """The access line, the metrics and the in-flight gauge see a hit as a request for its route."""
    log = tmp_path / "log"
    shop = Shop(make_app, LOG_OUTPUT=str(log), LOG_FORMAT="json", LOG_LEVEL="INFO")
    shop.warm()
    shop.get()
    shop.get(method="HEAD")

    lines = [line for line in map(json.loads, log.read_text().splitlines()) if line.get("route")]
    scrape = shop.get("/metrics").text

    assert [line["route"] for line in lines] == ["/p/<slug>"] * 4
    assert lines[2]["status"] == 200
    assert lines[2]["bytes"] == 5
    assert (
        'flask_http_request_duration_seconds_count{method="GET",status="200",url_rule="/p/<slug>"} 3.0' in scrape
    )
    assert "flask_prod_http_requests_in_flight 0.0" in scrape


def test_allowed_hosts_come_first(make_app: MakeApp) -> None:
    """A host that is not ours gets no stored page."""
    shop = Shop(make_app, ALLOWED_HOSTS=["shop.example"])
    shop.warm()

    assert shop.get(base_url="https://evil.example").status_code == 400


@pytest.mark.parametrize(
    "etag",
    ["{etag}", "W/{etag}", '"other", {etag}', "*", 'W/"a,b", W/{etag}'],
    ids=["same", "weak", "list", "any", "comma"],
)
def test_not_modified(shop: Shop, etag: str) -> None:
    """A client that has the page gets 304 without a body, by a weak comparison."""
    known = shop.get().headers["ETag"]

    answer = shop.get(headers={"If-None-Match": etag.format(etag=known)})

    assert (answer.status_code, answer.data, answer.headers["ETag"]) == (304, b"", known)
    assert "Content-Length" not in answer.headers
    assert "Content-Type" not in answer.headers
    assert shop.get(headers={"If-None-Match": '"other"'}).status_code == 200
    assert shop.entered == 0


def test_not_modified_by_the_long_way(make_app: MakeApp) -> None:
    """A page that had to be computed anew and came out the same is a 304 too."""
    shop = Shop(make_app)
    shop.answer = lambda: "always the same"
    etag = shop.get().headers["ETag"]
    with shop.app.app_context():
        shop.prod.cache.invalidate("products")

    answer = shop.get(headers={"If-None-Match": etag})

    assert (answer.status_code, answer.data, shop.runs) == (304, b"", 2)
    assert shop.get().text == "always the same"


def test_head(shop: Shop) -> None:
    """HEAD is answered from GET's page, with its length and no body."""
    shop.warm(method="HEAD")

    answer = shop.get(method="HEAD")

    assert (answer.status_code, answer.data, answer.content_length) == (200, b"", 5)
    assert (shop.entered, shop.runs) == (0, 1)


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS", "TRACE"])
def test_other_methods_reach_flask(shop: Shop, method: str) -> None:
    """Nothing but GET and HEAD is answered from the cache."""
    assert "hit" not in shop.get(method=method).headers.get("Cache-Status", "")


@pytest.mark.parametrize(
    "headers",
    [
        {"Authorization": "Bearer a"},
        {"X-API-Key": "a"},
        {"X-Forwarded-User": "alice"},
        {"Proxy-Authorization": "Basic YTpi"},
    ],
)
def test_credentials_go_the_long_way(shop: Shop, headers: dict[str, str]) -> None:
    """Whoever says who he is gets an answer of the view, and the cache says why."""
    answer = shop.get(headers=headers)

    assert (answer.text, shop.entered) == ("run 2", 1)
    assert answer.headers["Cache-Status"] == "flask-prod; fwd=bypass; detail=authorization"
    assert shop.get().text == "run 1"


def test_credentials_among_the_parameters(shop: Shop) -> None:
    """A token in a parameter that does not count is still a token."""
    assert shop.get("/p/tea?TOKEN=alice").text == "run 2"
    assert shop.get("/p/tea?utm_source=x").text == "run 1"


def test_cookies_do_not_matter_to_what_is_public(shop: Shop) -> None:
    """A signed-in visitor gets the stored page, and one whose page is not there computes it for himself alone."""
    cookie = {"Cookie": "session=abc; sid=1"}

    assert (shop.get(headers=cookie).text, shop.entered) == ("run 1", 0)
    answer = shop.get("/p/coffee", headers=cookie)
    assert answer.headers["Cache-Status"] == "flask-prod; fwd=bypass; detail=cookie"
    assert shop.get("/p/coffee").text == "run 3"


def test_session_must_not_be_looked_at(make_app: MakeApp) -> None:
    """A page declared public that reads the session is stored for nobody, an empty session included."""
    shop = Shop(make_app)
    shop.answer = lambda: f"{session.get('user')} {shop.runs}"

    answers = [shop.get() for _ in range(3)]

    assert [one.text for one in answers] == ["None 1", "None 2", "None 3"]
    assert answers[2].headers["Cache-Status"] == "flask-prod; fwd=uri-miss; detail=session"


def nonce(prod: ProdKit) -> str:
    return render_template_string("<script nonce='{{ csp_nonce() }}'></script>")


@pytest.mark.parametrize(
    ("reason", "make"),
    [
        ("set-cookie", lambda: Response("x", headers={"Set-Cookie": "a=b"})),
        ("cache-control", lambda: Response("x", headers={"Cache-Control": "private, max-age=60"})),
        ("cache-control", lambda: Response("x", headers={"Cache-Control": "no-store"})),
        ("cache-control", lambda: Response("x", headers={"Cache-Control": "s-maxage=0, max-age=60"})),
        ("cache-control", lambda: Response("x", headers={"Cache-Control": "max-age=soon"})),
        ("cache-control", lambda: Response("x", headers={"Expires": "0"})),
        ("cache-control", lambda: Response("x", headers={"Pragma": "no-cache"})),
        ("vary", lambda: Response("x", headers={"Vary": "*"})),
        ("vary", lambda: Response("x", headers={"Vary": "Accept-Language"})),
        ("vary", lambda: str(request.accept_languages)),
        ("csrf", lambda: "<input type=hidden name='csrf_token' value='abc'>"),
        ("csrf", lambda: '<meta content="abc" name="csrf-token">'),
        ("stream", lambda: Response(iter(["a", "b"]))),
        ("status", lambda: ("x", 203)),
        ("cors", lambda: Response("x", headers={"Access-Control-Allow-Origin": "https://a.example"})),
    ],
)
def test_never_stored(make_app: MakeApp, reason: str, make: Callable[[], Any]) -> None:
    """What is for one caller is computed for each, and the header says why."""
    shop = Shop(make_app)
    shop.answer = make

    shop.get()
    assert shop.get().headers["Cache-Status"] == f"flask-prod; fwd=uri-miss; detail={reason}"
    assert shop.runs == 2


def test_nonce_is_never_repeated(make_app: MakeApp) -> None:
    """A thousand pages with a nonce have a thousand nonces, each the one in its header (T41)."""
    shop = Shop(make_app, SECURITY_CSP="script-src 'self'", RATE_LIMIT_PUBLIC="")
    shop.answer = lambda: nonce(shop.prod)
    seen = set()
    for _ in range(1000):
        answer = shop.get()
        found = answer.text.split("'")[1]
        assert f"'nonce-{found}'" in answer.headers["Content-Security-Policy"]
        seen.add(found)

    assert len(seen) == shop.runs == 1000


def test_client_does_not_decide(shop: Shop) -> None:
    """A stranger's no-cache, no-store or max-age=0 makes nobody compute what is there."""
    for value in ("no-cache", "no-store", "max-age=0", "max-stale=60", "min-fresh=600"):
        assert shop.get(headers={"Cache-Control": value}).text == "run 1"
    assert shop.get(headers={"Pragma": "no-cache"}).text == "run 1"


def test_client_reload(make_app: MakeApp) -> None:
    """With CACHE_CLIENT_RELOAD a reload computes the page anew, for everybody."""
    shop = Shop(make_app, CACHE_CLIENT_RELOAD=True)
    shop.warm()

    answer = shop.get(headers={"Cache-Control": "no-cache"})

    assert (answer.text, answer.headers["Cache-Status"]) == ("run 2", "flask-prod; fwd=request; stored")
    assert shop.get().text == "run 2"


def test_client_forbids_storing(make_app: MakeApp) -> None:
    """What no-store asked for is not stored, and keeps nobody from computing once for all."""
    shop = Shop(make_app)

    assert shop.get(headers={"Cache-Control": "no-store"}).text == "run 1"
    assert [shop.get().text for _ in range(2)] == ["run 2", "run 2"]


def test_only_if_cached(shop: Shop) -> None:
    """A client that takes a stored answer only gets it, or 504."""
    wish = {"Cache-Control": "only-if-cached"}

    assert shop.get(headers=wish).text == "run 1"
    assert shop.get("/p/new", headers=wish).status_code == 504
    assert shop.runs == 1


def test_range_is_not_served(shop: Shop) -> None:
    """Who asks for a part gets the whole, as RFC 9110 allows; a part is never stored."""
    answer = shop.get(headers={"Range": "bytes=0-1"})

    assert (answer.status_code, answer.text) == (200, "run 1")


def test_spellings_of_one_path(shop: Shop) -> None:
    """Percent-encoding variants that Flask routes alike share the page; the order of parameters is nothing."""
    for path in ("/p/%74ea", "/p/t%65a", "/p/te%61?"):
        assert shop.get(path).text == "run 1"
    assert shop.get("/p/tea%2F").status_code == 404
    assert shop.get("/p/tea/").status_code == 404
    assert shop.get("//p/tea").status_code in (308, 404)
    assert shop.runs == 1


def test_parameters(shop: Shop) -> None:
    """Those that count make pages of their own, repeated ones by their order; empty and missing differ."""
    bodies = [
        shop.get("/p/tea" + query).text
        for query in (
            "?page=1",
            "?page=2",
            "?page=1&page=2",
            "?page=2&page=1",
            "?page=",
            "?page=1&x=1",
            "?p%61ge=1",
        )
    ]

    assert bodies == ["run 2", "run 3", "run 4", "run 5", "run 6", "run 2", "run 2"]


def test_bytes_that_are_no_text(shop: Shop) -> None:
    """Queries of bytes that no text decodes to are told apart, and fail nothing."""
    bodies = [shop.get(f"/p/tea?page=%{byte}").text for byte in ("ff", "fe", "ff")]

    assert bodies == ["run 2", "run 3", "run 2"]


def test_very_long_query(shop: Shop) -> None:
    """A query of some kilobytes is neither parsed nor stored."""
    path = "/p/tea?page=" + "x" * 3000

    assert [shop.get(path).text for _ in range(2)] == ["run 2", "run 3"]
    assert shop.get(path).headers["Cache-Status"].endswith("detail=query")


def test_address_in_the_page(make_app: MakeApp) -> None:
    """A page that shows the whole address is not stored with a stranger's parameters in it."""
    shop = Shop(make_app)
    shop.answer = lambda: request.url

    assert "evil" in shop.get("/p/tea?x=evil").text
    assert "evil" not in shop.get("/p/tea").text
    assert "evil" not in shop.get("/p/tea?x=other").text


def test_scheme_host_and_mount(make_app: MakeApp) -> None:
    """Each has pages of its own, by the short way too."""
    shop = Shop(make_app, **NO_HTTPS)
    bases = ("http://a.example", "https://a.example", "http://b.example", "http://a.example/mounted")

    for _ in range(3):
        assert [shop.get(base_url=base).text for base in bases] == ["run 1", "run 2", "run 3", "run 4"]


def test_declared_statuses(make_app: MakeApp) -> None:
    """A 404 is stored where it was declared, also one that was raised, and stays a 404."""
    shop = Shop(make_app, options={"statuses": (200, 404), "ttl": 60})
    shop.app.register_error_handler(404, lambda error: (f"<p>{error.description}</p>", 404))
    shop.answer = lambda: abort(404, "There is no such tea.")
    shop.warm()

    answer = shop.get()

    assert "hit" in answer.headers["Cache-Status"]
    assert (answer.status_code, shop.runs, shop.entered) == (404, 1, 0)
    assert "no such tea" in answer.text


@pytest.mark.parametrize(
    "options",
    [{"statuses": [500]}, {"statuses": [206]}, {"vary": ["*"]}, {"vary": ["Cookie"]}, {"key": lambda: "x"}],
    ids=["500", "206", "any", "cookie", "key"],
)
def test_contradictions(options: dict[str, Any]) -> None:
    """What cannot be meant is said when the view is decorated."""
    with pytest.raises(ValueError, match="@cached on"):
        ProdKit().cache.cached(public=True, **options)(lambda: "x")


def test_vary(make_app: MakeApp) -> None:
    """A declared header has a page per value, by the short way too."""
    shop = Shop(make_app, options={"vary": ["Accept-Language"], "ttl": 60})
    shop.answer = lambda: str(request.accept_languages.best)
    for language in ("de", "fr"):
        shop.warm(headers={"Accept-Language": language})

    answers = [shop.get(headers={"Accept-Language": language}) for language in ("de", "fr", "de")]

    assert [one.text for one in answers] == ["de", "fr", "de"]
    assert "Accept-Language" in answers[0].headers["Vary"]
    assert shop.entered == 0


def test_decorator_around_is_not_passed_by(make_app: MakeApp) -> None:
    """What lies around the cache runs for every request: a sign-in check above it is never skipped."""
    checked = []

    def decorate(prod: ProdKit) -> Any:
        def check(view: Any) -> Any:
            @wraps(view)
            def checking(**arguments: Any) -> Any:
                checked.append(1)
                return view(**arguments)

            return checking

        return check

    shop = Shop(make_app, decorate)
    for _ in range(4):
        shop.get()

    assert len(checked) == 4
    assert shop.runs == 1


def test_invalidation(shop: Shop) -> None:
    """A tag that is invalidated takes the page away at once; deletion does too."""
    with shop.app.app_context():
        shop.prod.cache.invalidate("products")
    assert shop.get().text == "run 2"
    assert shop.get().text == "run 2"
    with shop.app.app_context():
        shop.prod.cache.delete("view//p/tea")
    assert shop.get().text == "run 3"


def test_ttl_of_the_view(make_app: MakeApp) -> None:
    """The view's own max-age or s-maxage ends the page sooner than the decorator's time to live."""
    shop = Shop(make_app)
    shop.answer = lambda: Response(f"run {shop.runs}", headers={"Cache-Control": "max-age=600, s-maxage=1"})
    shop.warm()

    assert shop.get().headers["Cache-Control"] == "max-age=600, s-maxage=1"
    time.sleep(1.1)
    assert shop.get().text == "run 2"


def test_stale_is_said(make_app: MakeApp) -> None:
    """While one caller computes anew, the others get the old page, whose header says so."""
    shop = Shop(make_app, options={"ttl": 0.3, "stale": 60}, CACHE_JITTER=0, CACHE_EARLY=0)
    shop.warm()
    time.sleep(0.4)

    def slow() -> str:
        run = shop.runs
        time.sleep(0.5)
        return f"run {run}"

    shop.answer = slow
    with ThreadPoolExecutor(1) as pool:
        leader = pool.submit(shop.app.test_client(use_cookies=False).get, "/p/tea", base_url=HOST)
        time.sleep(0.2)
        other = shop.get()
        assert other.text == "run 1"
        assert "hit; ttl=-" in other.headers["Cache-Status"]
        assert "detail=stale" in other.headers["Cache-Status"]
        assert leader.result(5).text == "run 2"


def test_status_can_be_switched_off(make_app: MakeApp) -> None:
    """CACHE_STATUS=false says nothing."""
    shop = Shop(make_app, CACHE_STATUS=False)
    shop.warm()

    assert "Cache-Status" not in shop.get().headers
    assert "Age" in shop.get().headers


def test_user_functions_of_limits(make_app: MakeApp) -> None:
    """Where the limiter asks the application who the caller is, the page comes from the cache within Flask."""
    shop = Shop(make_app)

    @shop.prod.limiter.identify
    def who() -> str:
        return request.headers.get("X-Who", "")

    shop.warm()
    answer = shop.get(headers={"X-Who": "alice"})

    assert (answer.text, shop.entered, shop.runs) == ("run 1", 1, 1)
    assert "hit" in answer.headers["Cache-Status"]


@pytest.mark.parametrize("poison", [b"", b"FP1p", b"\x80\x04K\x01.", b"FP2p" + b"\0" * 80, None], ids=str)
def test_poisoned_entry(make_app: MakeApp, redis_url: str, poison: bytes | None) -> None:
    """Foreign, old and truncated bytes under a page's key are a miss, never a 500 (T32)."""
    shop = Shop(make_app, REDIS_URL=redis_url)
    shop.warm()
    redis = shop.app.extensions["prod"].contributions["redis"].handle
    (key,) = redis.attempt(lambda client: list(client.scan_iter("*page:*")))
    whole = redis.attempt(lambda client: client.get(key))
    redis.attempt(lambda client: client.set(key, whole[:-3] if poison is None else poison))

    answer = shop.get()

    assert (answer.status_code, answer.text) == (200, "run 2")
    assert shop.get().text == "run 2"
