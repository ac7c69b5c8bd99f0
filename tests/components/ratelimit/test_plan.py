"""Marks: where they are found, and in which order."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import pytest
from flask import Blueprint
from flask.views import MethodView

from flask_prod import ProdKit
from flask_prod.core.errors import ConfigError
from tests.apps import MakeApp

ONLY = ("redis", "ratelimit")


def policies(headers: Any) -> list[str]:
    return [item.split('"')[1] for item in headers.get("RateLimit-Policy", "").split(", ") if item]


def wrapped(function: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(function)
    def inner(*args: Any, **kwargs: Any) -> Any:
        return function(*args, **kwargs)

    return inner


def test_marks_are_found_wherever_they_lie(make_app: MakeApp) -> None:
    """Before and behind the route, under wrappers, on methods, blueprints, nested ones and the application."""
    prod = ProdKit(only=ONLY)
    app = make_app(kit=prod, RATE_LIMIT_POLICIES={"a": "50/1m", "b": "60/1m", "c": "70/1m", "d": "80/1m"})
    limit = prod.limiter.policy
    outer, nested = Blueprint("outer", __name__), Blueprint("nested", __name__)

    @app.route("/inside")
    @limit("a")
    def inside() -> str:
        return "ok"

    @limit("a")
    @app.route("/outside")
    def outside() -> str:
        return "ok"

    @app.route("/wrapped")
    @wrapped
    @limit("b")
    @wrapped
    @limit("a")
    def under() -> str:
        return "ok"

    class Things(MethodView):
        def get(self) -> str:
            return "ok"

        @limit("a")
        def post(self) -> str:
            return "ok"

    app.add_url_rule("/things", view_func=Things.as_view("things"))

    @nested.route("/nested")
    @limit("c")
    def deep() -> str:
        return "ok"

    limit("b")(nested)
    limit("a")(outer)
    outer.register_blueprint(nested)
    app.register_blueprint(outer)
    client = app.test_client()

    assert policies(client.get("/inside").headers) == ["public", "a"]
    assert policies(client.get("/outside").headers) == ["public", "a"]
    assert policies(client.get("/wrapped").headers) == ["public", "a", "b"]
    assert policies(client.get("/things").headers) == ["public"]
    assert policies(client.post("/things").headers) == ["public", "a"]
    assert policies(client.get("/nested").headers) == ["public", "a", "b", "c"]
    assert policies(client.get("/nothing").headers) == ["public"]


def test_the_whole_application_can_be_marked(make_app: MakeApp) -> None:
    """A mark on the application holds for every path, matched or not."""
    prod = ProdKit(only=ONLY)
    app = make_app(kit=prod, RATE_LIMIT_PUBLIC="")
    prod.limiter.policy("everything", "40/1m")(app)

    assert policies(app.test_client().get("/nothing").headers) == ["everything"]


def test_one_mark_serves_applications_with_other_numbers(make_app: MakeApp) -> None:
    """The decorator names the policy; each application's settings say what it means."""
    prod = ProdKit(only=ONLY)

    @prod.limiter.policy("search", "9/1m")
    def search() -> str:
        return "ok"

    limits = []
    for rule in ({}, {"search": "3/1m"}, {"search": ""}):
        app = make_app(kit=prod, RATE_LIMIT_PUBLIC="", RATE_LIMIT_POLICIES=rule)
        app.add_url_rule("/search", view_func=search)
        limits.append(app.test_client().get("/search").headers.get("X-RateLimit-Limit"))

    assert limits == ["9", "3", None]


def test_an_unknown_policy_is_an_error_with_advice(make_app: MakeApp) -> None:
    """A misspelt name does not leave a view without its limit."""
    prod = ProdKit(only=ONLY)
    app = make_app(kit=prod, TESTING=True)

    @app.route("/")
    @prod.limiter.policy("chekout")
    def index() -> str:
        return "ok"

    with pytest.raises(ConfigError, match="names no policy; there are public, authenticated"):
        app.test_client().get("/")


def test_mistakes_in_the_decorator_are_told_at_once() -> None:
    """A rule that cannot be read fails at import, not at the first request."""
    limit = ProdKit(only=ONLY).limiter.policy
    with pytest.raises(ValueError, match="login=often"):
        limit("login", "often")
    with pytest.raises(ValueError, match="cost"):
        limit("login", cost=0)
