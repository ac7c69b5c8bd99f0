"""Examples of Flask-Limiter's documentation (4.1), on `prod.limiter`; more are in components/ratelimit."""

from __future__ import annotations

import logging
from typing import Any

import pytest
from flask import Blueprint, Flask, Response, current_app, jsonify, make_response, request
from flask.sansio.scaffold import Scaffold
from flask.testing import FlaskClient
from flask.views import MethodView
from flask_limiter import ExemptionScope
from werkzeug.exceptions import TooManyRequests
from werkzeug.middleware.proxy_fix import ProxyFix

from flask_prod import ProdKit
from tests.apps import MakeApp

from .conftest import Example


def codes(client: FlaskClient, path: str, times: int, **options: Any) -> list[int]:
    return [client.get(path, **options).status_code for _ in range(times)]


def test_quickstart(example: Example) -> None:
    """README, Quickstart: a default for all, a limit that replaces it, and a view that is exempt."""

    def declare(prod: ProdKit, app: Scaffold) -> None:
        @app.route("/slow")
        @prod.limiter.limit("1 per day")
        def slow() -> str:
            return "24"

        @app.route("/fast")
        def fast() -> str:
            return "42"

        @app.route("/ping")
        @prod.limiter.exempt
        def ping() -> str:
            return "PONG"

    client = example(declare, RATELIMIT_DEFAULT="2 per minute")

    assert codes(client, "/fast", 3) == [200, 200, 429]
    assert codes(client, "/slow", 2) == [200, 429]
    assert codes(client, "/ping", 4) == [200] * 4
    # "Test it out" shows `<p>2 per 1 minute</p>` and `<p>1 per 1 day</p>`.
    assert "2 per 1 minute" in client.get("/fast", headers={"Accept": "text/html"}).text
    assert "1 per 1 day" in client.get("/slow", headers={"Accept": "text/html"}).text


def test_default_and_own_limit_together(example: Example) -> None:
    """Quick start, examples/sample.py: `override_defaults=False` adds a limit to the default."""

    def declare(prod: ProdKit, app: Scaffold) -> None:
        @app.route("/medium")
        @prod.limiter.limit("3/minute", override_defaults=False)
        def medium() -> str:
            return ":|"

    assert codes(example(declare, RATELIMIT_DEFAULT="1 per hour"), "/medium", 2) == [200, 429]


def test_custom_keying_function(example: Example) -> None:
    """Decorators to declare rate limits, "Custom keying function": who is counted."""

    def declare(prod: ProdKit, app: Scaffold) -> None:
        def my_key_func() -> str:
            return request.headers["X-Account"]

        @app.route("/")
        @prod.limiter.limit("1/day", key_func=my_key_func)
        def my_route() -> str:
            return "ok"

    client = example(declare)

    assert codes(client, "/", 2, headers={"X-Account": "a"}) == [200, 429]
    assert codes(client, "/", 1, headers={"X-Account": "b"}) == [200]


def test_dynamically_loaded_limit(example: Example) -> None:
    """Decorators to declare rate limits, "Dynamically loaded limit string(s)": read at each call."""

    def declare(prod: ProdKit, app: Scaffold) -> None:
        def rate_limit_from_config() -> str:
            limit: str = current_app.config.get("CUSTOM_LIMIT", "10/s")
            return limit

        @app.route("/")
        @prod.limiter.limit(rate_limit_from_config)
        def my_route() -> str:
            return "ok"

    client = example(declare, CUSTOM_LIMIT="1/minute")

    assert codes(client, "/", 2) == [200, 429]
    client.application.config["CUSTOM_LIMIT"] = "3/minute"
    assert codes(client, "/", 4) == [200, 200, 200, 429]


@pytest.mark.parametrize(
    ("limit", "allowed"),
    [("10 per hour", 10), ("10/hour", 10), ("10/hour;3/day;2000 per year", 3), ("100/day, 5/7days", 5)],
)
def test_rate_limit_string_notation(example: Example, limit: str, allowed: int) -> None:
    """Rate limit string notation, "Examples": every way of writing, and several in one string."""

    def declare(prod: ProdKit, app: Scaffold) -> None:
        @app.route("/")
        @prod.limiter.limit(limit)
        def view() -> str:
            return "ok"

    assert codes(example(declare), "/", allowed + 1) == [200] * allowed + [429]


def test_two_request_filters(example: Example) -> None:
    """Decorators for skipping rate limits, "Skipping a rate limit based on a request": any of several spares."""

    def declare(prod: ProdKit, app: Scaffold) -> None:
        @prod.limiter.request_filter
        def header_whitelist() -> bool:
            return request.headers.get("X-Internal", "") == "true"

        @prod.limiter.request_filter
        def ip_whitelist() -> bool:
            return request.remote_addr == "192.0.2.7"

        @app.route("/")
        @prod.limiter.limit("1/day")
        def view() -> str:
            return "ok"

    client = example(declare)

    assert codes(client, "/", 3, headers={"X-Internal": "true"}) == [200] * 3
    assert codes(client, "/", 3, environ_overrides={"REMOTE_ADDR": "192.0.2.7"}) == [200] * 3
    assert codes(client, "/", 2) == [200, 429]


def test_custom_refusal(example: Example) -> None:
    """Recipes, "Custom Rate limit exceeded responses": a handler for 429 that answers JSON."""

    def declare(prod: ProdKit, app: Scaffold) -> None:
        @app.errorhandler(429)
        def ratelimit_handler(e: TooManyRequests) -> Response:
            return make_response(jsonify(error=f"ratelimit exceeded {e.description}"), 429)

        @app.route("/")
        @prod.limiter.limit("1 per day")
        def view() -> str:
            return "ok"

    client = example(declare)
    client.get("/")

    assert client.get("/").json == {"error": "ratelimit exceeded 1 per 1 day"}


def test_custom_error_messages(example: Example) -> None:
    """Recipes, "Custom error messages": a text, and a function that is asked when it is needed."""

    def declare(prod: ProdKit, app: Scaffold) -> None:
        def error_handler() -> str:
            return str(current_app.config.get("DEFAULT_ERROR_MESSAGE"))

        @app.route("/")
        @prod.limiter.limit("1/minute", error_message="chill!")
        def index() -> str:
            return "ok"

        @app.route("/ping")
        @prod.limiter.limit("1/minute", error_message=error_handler)
        def ping() -> str:
            return "ok"

    client = example(declare, DEFAULT_ERROR_MESSAGE="not so fast")
    for path in ("/", "/ping"):
        client.get(path)

    assert "chill!" in client.get("/").text
    assert "not so fast" in client.get("/ping").text


def test_custom_headers(example: Example) -> None:
    """Recipes, "Custom rate limit headers": an after_request hook reads `current_limit`, after a refusal too."""

    def declare(prod: ProdKit, app: Scaffold) -> None:
        limiter = prod.limiter

        @app.route("/")
        @limiter.limit("1/minute")
        def index() -> str:
            return "ok"

        @app.after_request
        def add_headers(response: Response) -> Response:
            if limiter.current_limit:
                response.headers["RemainingLimit"] = str(limiter.current_limit.remaining)
                response.headers["ResetAt"] = str(limiter.current_limit.reset_at)
                response.headers["MaxRequests"] = str(limiter.current_limit.limit.amount)
                response.headers["WindowSize"] = str(limiter.current_limit.limit.get_expiry())
                response.headers["Breached"] = str(limiter.current_limit.breached)
            return response

    client = example(declare)
    names = ("RemainingLimit", "MaxRequests", "WindowSize", "Breached")

    first, second = client.get("/"), client.get("/")
    assert [first.headers[name] for name in names] == ["0", "1", "60", "False"]
    assert [second.headers[name] for name in names] == ["0", "1", "60", "True"]
    assert int(first.headers["ResetAt"]) > 0


def test_pluggable_view_per_method(example: Example) -> None:
    """Recipes, "Using Flask Pluggable Views": with `per_method` each method of a MethodView has its own count."""

    def declare(prod: ProdKit, app: Scaffold) -> None:
        class MyView(MethodView):
            decorators = [prod.limiter.limit("1/minute", per_method=True)]

            def get(self) -> str:
                return "get"

            def put(self) -> str:
                return "put"

        app.add_url_rule("/", view_func=MyView.as_view("mine"))

    client = example(declare)

    assert [client.get("/").status_code, client.put("/").status_code] == [200, 200]
    assert [client.get("/").status_code, client.put("/").status_code] == [429, 429]


SPARED = ExemptionScope.DEFAULT | ExemptionScope.APPLICATION


def nest() -> tuple[Blueprint, Blueprint, Blueprint, Blueprint]:
    """The blueprints of the next examples, one within the other, `health` within each."""
    parent, child, grandchild = (
        Blueprint(name, __name__, url_prefix=f"/{name}") for name in ("parent", "child", "grandchild")
    )
    health = Blueprint("health", __name__, url_prefix="/state")
    for blueprint in (parent, child, grandchild, health):
        blueprint.add_url_rule("/", "index", lambda: "ok")
    parent.register_blueprint(child)
    parent.register_blueprint(health)
    child.register_blueprint(grandchild)
    child.register_blueprint(health)
    grandchild.register_blueprint(health)
    return parent, child, grandchild, health


@pytest.mark.parametrize("first", [True, False])
def test_nested_blueprints(make_app: MakeApp, first: bool) -> None:
    """Recipes, "Explicitly setting limits / exemptions on nested Blueprints", before the application and after.

    The child keeps to its own limit, the parent's and the default; the grandchild to its own; health to none.
    """

    def limit() -> Blueprint:
        parent, child, grandchild, health = nest()
        prod.limiter.limit("2/minute")(parent)
        prod.limiter.limit("9/second", override_defaults=False)(child)
        prod.limiter.limit("6/minute")(grandchild)
        prod.limiter.exempt(health)
        return parent

    prod = ProdKit()
    if first:
        parent = limit()
        app = make_app(kit=prod, RATELIMIT_DEFAULT="100/hour")
    else:
        app = make_app(kit=prod, RATELIMIT_DEFAULT="100/hour")
        parent = limit()
    app.register_blueprint(parent)
    client = app.test_client()

    assert codes(client, "/parent/", 3) == [200, 200, 429]
    assert codes(client, "/parent/child/", 3) == [200, 200, 429]
    assert codes(client, "/parent/child/grandchild/", 7) == [200] * 6 + [429]
    for path in ("/parent/state/", "/parent/child/state/", "/parent/child/grandchild/state/"):
        assert codes(client, path, 9) == [200] * 9


@pytest.mark.parametrize(("flags", "status"), [(SPARED, 429), (SPARED | ExemptionScope.DESCENDENTS, 200)])
def test_exempting_nested_blueprints(make_app: MakeApp, flags: ExemptionScope, status: int) -> None:
    """Recipes, "Exempting routes in nested Blueprints": the child's routes are spared by the flag alone."""
    prod = ProdKit()
    parent, *_ = nest()
    prod.limiter.exempt(parent, flags=flags)
    app = make_app(kit=prod, RATELIMIT_DEFAULT="1/hour")
    app.register_blueprint(parent)
    client = app.test_client()

    assert codes(client, "/parent/", 3) == [200] * 3
    assert codes(client, "/parent/child/", 2)[-1] == status


def test_logging(example: Example, caplog: pytest.LogCaptureFixture) -> None:
    """Recipes, "Logging": `limiter.logger` tells of refusals, to whoever listens at level INFO."""
    loggers = []

    def declare(prod: ProdKit, app: Scaffold) -> None:
        loggers.append(prod.limiter.logger)

        @app.route("/")
        @prod.limiter.limit("1 per day")
        def view() -> str:
            return "ok"

    client = example(declare)
    with caplog.at_level(logging.INFO, loggers[0].name):
        codes(client, "/", 2)

    assert any(
        record.name == loggers[0].name and "1 per 1 day" in record.getMessage() for record in caplog.records
    )


def test_behind_a_proxy(make_app: MakeApp) -> None:
    """Recipes, "Deploying an application behind a proxy": with ProxyFix callers behind one proxy count apart."""
    prod = ProdKit()
    app: Flask = make_app(kit=prod)
    app.wsgi_app = ProxyFix(app.wsgi_app, x_for=1)  # type: ignore[method-assign]  # as Flask documents it
    app.add_url_rule("/", "view", prod.limiter.limit("1/day")(lambda: "ok"))
    client = app.test_client()

    assert codes(client, "/", 2, headers={"X-Forwarded-For": "203.0.113.1"}) == [200, 429]
    assert codes(client, "/", 1, headers={"X-Forwarded-For": "203.0.113.2"}) == [200]
