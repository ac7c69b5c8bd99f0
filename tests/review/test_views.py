"""What is found in an application's own views and jobs: sign-ins without a limit, personal pages in the cache."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from flask import Blueprint, Flask, session
from flask.views import MethodView
from flask_caching import Cache
from flask_limiter import Limiter

from flask_prod import ProdKit
from flask_prod.review.rules.limits import _is_sign_in
from tests.review.well import COMMON, reviewed

Add = Callable[[Flask, ProdKit], object]


def found(folder: Path, add: Add, **config: Any) -> dict[str, str]:
    """Return what is found in a well-configured application with one more thing in it, by id."""
    app = Flask("shop", static_folder=None)
    app.config.from_mapping({**COMMON, **config})
    prod = ProdKit()
    add(app, prod)
    prod.init_app(app)
    return {one.id: one.evidence for one in reviewed(app, folder).findings}


def sign_in() -> str:
    """Answer like a view that looks at a password."""
    return "welcome"


def plain(app: Flask, _prod: ProdKit) -> None:
    app.add_url_rule("/login", "login", sign_in, methods=["GET", "POST"])


def method_view(app: Flask, prod: ProdKit) -> None:
    class Login(MethodView):
        def post(self) -> str:
            return "welcome"

    app.add_url_rule("/api/sign-in", view_func=Login.as_view("login"))


def limited(app: Flask, prod: ProdKit) -> None:
    app.add_url_rule("/login", "login", prod.limit("auth")(sign_in), methods=["POST"])


def limited_blueprint(app: Flask, prod: ProdKit) -> None:
    inner, outer = Blueprint("inner", __name__), Blueprint("outer", __name__)
    inner.add_url_rule("/login", "login", sign_in, methods=["POST"])
    prod.limiter.policy("auth")(outer)
    outer.register_blueprint(inner)
    app.register_blueprint(outer)


def limited_method(app: Flask, prod: ProdKit) -> None:
    class Login(MethodView):
        @prod.limit("auth")
        def post(self) -> str:
            return "welcome"

    app.add_url_rule("/login", view_func=Login.as_view("login"))


def by_library(app: Flask, prod: ProdKit) -> None:
    app.add_url_rule("/login", "login", prod.limiter.limit("5/minute")(sign_in), methods=["POST"])


def by_a_limiter_of_their_own(app: Flask, _prod: ProdKit) -> None:
    limiter = Limiter(lambda: "all", app=app, storage_uri="memory://")
    app.add_url_rule("/login", "login", limiter.limit("5/minute")(sign_in), methods=["POST"])


def only_shown(app: Flask, _prod: ProdKit) -> None:
    app.add_url_rule("/login", "login", sign_in)


@pytest.mark.parametrize("add", [plain, method_view])
def test_sign_in(add: Add, tmp_path: Path) -> None:
    """A sign-in with the limit of all pages only is found."""
    report = found(tmp_path, add)

    assert set(report) == {"P508"}
    assert report["P508"].startswith("the view login (POST /")


def test_switched_off(tmp_path: Path) -> None:
    """A policy that the settings switch off limits nothing."""
    assert set(found(tmp_path, limited, RATE_LIMIT_POLICIES={"auth": ""})) == {"P508"}


@pytest.mark.parametrize(
    "add",
    [limited, limited_blueprint, limited_method, by_library, by_a_limiter_of_their_own, only_shown],
)
def test_limited_sign_in(add: Add, tmp_path: Path) -> None:
    """A limit of the view, its method or its blueprint is seen, whoever counts it."""
    assert found(tmp_path, add) == {}


def test_strict_for_all(tmp_path: Path) -> None:
    """Where nobody has more than a few requests, a sign-in needs no limit of its own."""
    assert found(tmp_path, plain, RATE_LIMIT_PUBLIC=100, RATE_LIMIT_WINDOW="10m") == {}


@pytest.mark.parametrize(
    ("path", "is_one"),
    [
        ("/auth/login/", True), ("/signin", True), ("/oauth/token", True), ("/token", True), ("/users/2fa", True),
        ("/password/reset", True), ("/forgot-password", True), ("/verify-otp", True), ("/blog-in", False),
        ("/devices/token", False), ("/plugin", False), ("/login/callback", False), ("/sign-up", False),
    ],
)  # fmt: skip
def test_addresses(path: str, is_one: bool) -> None:
    """A sign-in is told by the end of its address, and no word that only ends so."""
    assert _is_sign_in(path) == is_one


def personal() -> str:
    """Look who is there."""
    return f"hello {session.get('name')}"


def test_personal_page(tmp_path: Path) -> None:
    """A cached view whose code names the session is found; one that is kept apart by cookie is not."""

    def cached(app: Flask, prod: ProdKit) -> None:
        app.add_url_rule("/me", "me", prod.cache.cached(ttl=60)(personal))
        app.add_url_rule("/mine", "mine", prod.cache.cached(ttl=60, vary=["Cookie"])(personal))
        app.add_url_rule("/all", "all", prod.cache.cached(ttl=60)(sign_in))

    assert found(tmp_path, cached) == {"P409": "the view me (/me) is cached, and its code names session"}


def test_personal_page_of_the_library(tmp_path: Path) -> None:
    """With Flask-Caching by itself such a view is found as well: there it gives away one visitor's page."""

    def cached(app: Flask, _prod: ProdKit) -> None:
        cache = Cache(app, config={"CACHE_TYPE": "SimpleCache"})
        app.add_url_rule("/me", "me", cache.cached(timeout=60)(personal))

    assert found(tmp_path, cached) == {"P409": "the view me (/me) is cached, and its code names session"}


def test_homeless_jobs(tmp_path: Path) -> None:
    """Jobs without a Redis or a table are found; an application without jobs needs neither."""

    def job(_app: Flask, prod: ProdKit) -> None:
        prod.job(sign_in)

    nowhere = {"REDIS_URL": "", "WEB_CONCURRENCY": 1, "RATE_LIMIT_ENABLED": False}
    with_jobs = found(tmp_path, job, **nowhere)

    assert with_jobs["P807"].endswith("test_views.sign_in), REDIS_URL is empty and JOBS_OUTBOX is off")
    assert "P807" not in found(tmp_path, lambda _app, _prod: None, **nowhere)
    assert "P807" not in found(tmp_path, job, JOBS_OUTBOX="always", **nowhere)
    assert "P807" not in found(tmp_path, job)
