"""Two users, any requests: nobody ever gets another's bytes (T30), in one process and behind gunicorn."""

from __future__ import annotations

import re
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from flask import Flask, Response, make_response, request, session
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from flask_prod import ProdKit
from flask_prod.components.cache import CacheFace
from tests.apps import StartGunicorn

from .conftest import MakeShop

USERS = ("alice", "bob", "")


def who() -> str:
    """Name the caller by whatever the request says, as applications do in so many ways."""
    header = request.headers.get("Authorization") or request.headers.get("X-Api-Key") or ""
    cookie = request.cookies.get("sid") or request.cookies.get("access_token_cookie") or ""
    return str(header or cookie or session.get("user") or request.args.get("token") or "nobody")


def body() -> str:
    return f"<{who()}|{request.host}|{request.args.get('page')}>"


def with_cookie() -> Response:
    response = make_response(body())
    response.set_cookie("sid", who())
    return response


def private() -> Response:
    response = make_response(body())
    response.headers["Cache-Control"] = "private"
    return response


VIEWS = {
    "plain": body,
    "cookie": with_cookie,
    "private": private,
    "mixed": lambda: (body(), 200, {"X-User": who()}),
}
OPTIONS: dict[str, dict[str, Any]] = {
    "default": {},
    "query": {"query": ["page"]},
    "constant": {"key_prefix": "page"},
    "vary": {"vary": ["Authorization", "Cookie", "X-Api-Key"]},
}

requests = st.tuples(
    st.sampled_from([f"{view}/{option}" for view in VIEWS for option in OPTIONS]),
    st.sampled_from(USERS),
    st.sampled_from(["Authorization", "X-Api-Key", "sid", "access_token_cookie", "session", "token"]),
    st.sampled_from(["a.example", "b.example"]),
    st.sampled_from(["1", "2"]),
    st.sampled_from(["GET", "GET", "GET", "HEAD", "delete"]),
)


def build(app: Flask, cache: CacheFace) -> None:
    for name, view in VIEWS.items():
        for option, arguments in OPTIONS.items():
            app.get(f"/{name}/{option}", endpoint=f"{name}/{option}")(decorated(cache, view, arguments))

    @app.get("/sign-in/<user>")
    def sign_in(user: str) -> str:
        session["user"] = user
        return "welcome"


def decorated(cache: CacheFace, view: Any, arguments: dict[str, Any]) -> Any:
    return cache.cached(**arguments)(view)


def session_cookie(app: Flask, user: str) -> str:
    answer = app.test_client(use_cookies=False).get(f"/sign-in/{user}")
    found = re.search(r"session=([^;]+)", answer.headers["Set-Cookie"])
    assert found is not None
    return found[1]


@pytest.mark.parametrize("backend", ["memory", "redis"])
def test_nobody_gets_anothers_bytes(make_shop: MakeShop, redis_url: str, backend: str) -> None:
    """In some 7,500 exchanges on each back end, every body names its own caller, host and page."""
    app, cache = make_shop(CACHE_BACKEND=backend, REDIS_URL=redis_url)
    build(app, cache)
    client = app.test_client(use_cookies=False)
    cookies = {user: session_cookie(app, user) for user in USERS if user}
    hits = Hits(app)

    @settings(
        max_examples=250,
        deadline=None,
        suppress_health_check=[HealthCheck.function_scoped_fixture],
        phases=[Phase.generate],  # a series of 40 takes minutes to shrink, and reads well enough as it is
    )
    @given(st.lists(requests, min_size=20, max_size=40))
    def exchange(series: list[Any]) -> None:
        for path, user, means, host, page, method in series:
            if method == "delete":
                with app.app_context():
                    cache.delete(f"view//{path}")
                continue
            query, headers = {"page": page}, {}
            if user and means == "token":
                query["token"] = user
            elif user and means in ("Authorization", "X-Api-Key"):
                headers[means] = user
            elif user:
                headers["Cookie"] = f"{means}={cookies[user] if means == 'session' else user}"
            answer = client.open(
                f"/{path}", method=method, headers=headers, query_string=query, base_url=f"http://{host}"
            )
            assert answer.status_code == 200
            assert answer.text == ("" if method == "HEAD" else f"<{user or 'nobody'}|{host}|{page}>")
            assert answer.headers.get("X-User", user or "nobody") == (user or "nobody")

    exchange()
    assert hits.count > 300  # it was a cache that was tested


class Hits:
    """Counts answers that came from the cache."""

    def __init__(self, app: Flask) -> None:
        self.count = 0
        handle = app.extensions["prod"].contributions["cache"].handle
        object.__setattr__(handle.counters, "looked", self)

    def inc(self, result: str, *_labels: str) -> None:
        self.count += result == "hit"


SOURCE = """
import time
from flask import Flask
from flask_prod import ProdKit

prod = ProdKit(only=["redis", "cache"])
runs = []

def create_app():
    app = Flask("shop")
    app.config.update(ENVIRONMENT="test")
    prod.init_app(app)
    values = {"row": 0}

    @app.get("/")
    def index():
        return "up"

    @app.get("/slow")
    @prod.cache.cached()
    def slow():
        time.sleep(0.5)
        redis.attempt(lambda client: client.incr("slow-runs"))
        return "slow"

    @app.get("/row")
    @prod.cache.cached(timeout=300)
    def row():
        return redis.attempt(lambda client: client.get("row") or b"old")

    @app.post("/row")
    def update():
        redis.attempt(lambda client: client.set("row", "new"))
        prod.cache.delete("view//row")
        return "updated"

    redis = app.extensions["prod"].contributions["redis"].handle
    return app
"""


def test_workers_share_and_forget(gunicorn: StartGunicorn, redis_url: str) -> None:
    """Behind two workers a stampede runs the view once per worker at most; a deletion reaches both (55, T10)."""
    server = gunicorn(
        source=SOURCE, args=["-w", "2", "--threads", "50", "-k", "gthread"], env={"REDIS_URL": redis_url}
    )
    with ThreadPoolExecutor(60) as pool:
        futures = [pool.submit(server.get, "/slow", timeout=30) for _ in range(60)]
        assert {future.result(60).text for future in futures} == {"slow"}
    before = {server.get("/row").text for _ in range(10)}
    server.request("POST", "/row")
    after = {server.get("/row").text for _ in range(30)}

    redis = ProdKit(only=["redis"])
    app = Flask("shop")
    app.config.update(ENVIRONMENT="test", REDIS_URL=redis_url)
    redis.init_app(app)
    handle = app.extensions["prod"].contributions["redis"].handle
    runs = int(handle.attempt(lambda client: client.get("slow-runs")))
    app.extensions["prod"].lifecycle.close()

    assert before == {"old"}
    assert after == {"new"}
    assert runs <= 2
