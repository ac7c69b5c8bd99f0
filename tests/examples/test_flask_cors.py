"""Examples of Flask-CORS's README and API documentation (6.0), on its decorator and `prod.cors`."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from flask import jsonify, session
from flask.sansio.scaffold import Scaffold
from flask.testing import FlaskClient
from flask.wrappers import Response
from flask_cors import cross_origin
from werkzeug.test import TestResponse

from flask_prod import ProdKit

from .conftest import Example

ORIGIN = "https://www.examplesite.com"
OTHER = "https://other.example"
ALLOW = "Access-Control-Allow-"


def get(client: FlaskClient, path: str = "/", origin: str = ORIGIN) -> TestResponse:
    return client.get(path, headers={"Origin": origin})


def preflight(client: FlaskClient, path: str, method: str = "POST", asked: str = "Content-Type") -> TestResponse:
    """Ask as the documentation's `curl --include -X OPTIONS` does."""
    headers = {
        "Origin": ORIGIN,
        "Access-Control-Request-Method": method,
        "Access-Control-Request-Headers": asked,
    }
    return client.options(path, headers=headers)


def hello(example: Example, **config: Any) -> FlaskClient:
    """Build the application of the README's first example, without a decorator."""

    def declare(prod: ProdKit, app: Scaffold) -> None:
        @app.route("/")
        def hello_world() -> str:
            return "Hello, cross-origin-world!"

        @app.route("/api/v1/users")
        def list_users() -> str:
            return "user example"

    return example(declare, **config)


def test_simple_usage(example: Example) -> None:
    """README, Simple Usage: every route for every origin, which the kit does when told so, not by default."""
    assert get(hello(example, ALLOWED_ORIGINS="*")).headers[f"{ALLOW}Origin"] == "*"
    assert f"{ALLOW}Origin" not in get(hello(example)).headers


@pytest.mark.parametrize("resources", [{r"/api/*": {"origins": "*"}}, {r"/api/*": {"origins": [ORIGIN]}}])
def test_resource_specific(example: Example, resources: dict[str, Any]) -> None:
    """README, Resource specific CORS: what is below /api/ is open, the rest is not."""
    client = hello(example, CORS_RESOURCES=resources)

    assert get(client, "/api/v1/users").headers[f"{ALLOW}Origin"] in ("*", ORIGIN)
    assert f"{ALLOW}Origin" not in get(client, "/").headers


def test_resource_as_text(example: Example) -> None:
    """examples/app_based_example.py: `resources="/api/*"` with `allow_headers="Content-Type"`."""
    client = hello(example, CORS_ORIGINS="*", CORS_RESOURCES=r"/api/*", CORS_ALLOW_HEADERS="Content-Type")
    answer = preflight(client, "/api/v1/users", "GET", "Content-Type, X-Other")

    assert answer.headers[f"{ALLOW}Origin"] == "*"
    assert answer.headers[f"{ALLOW}Headers"] == "Content-Type"
    assert f"{ALLOW}Origin" not in get(client, "/").headers


@pytest.mark.parametrize("own", [True, False], ids=["flask_cors.cross_origin", "prod.cors.cross_origin"])
def test_route_specific(example: Example, own: bool) -> None:
    """README, Route specific CORS via decorator: that route alone, by the library's function and ours."""

    def declare(prod: ProdKit, app: Scaffold) -> None:
        decorator = cross_origin if own else prod.cors.cross_origin

        @app.route("/")
        @decorator()
        def hello_world() -> str:
            return "Hello, cross-origin-world!"

        @app.route("/closed")
        def closed() -> str:
            return "closed"

    client = example(declare)

    assert get(client).text == "Hello, cross-origin-world!"
    assert get(client).headers.getlist(f"{ALLOW}Origin") == ["*"]
    assert f"{ALLOW}Origin" not in get(client, "/closed").headers


def test_json_by_post(example: Example) -> None:
    """examples/view_based_example.py: the preflight of a JSON POST, and the POST.

    The kit's preflight names the methods that the route has, where the library names all it knows.
    """

    def declare(prod: ProdKit, app: Scaffold) -> None:
        @app.route("/api/v1/user/create", methods=["GET", "POST"])
        @cross_origin(allow_headers=["Content-Type"])
        def cross_origin_json_post() -> Response:
            return jsonify(success=True)

    client = example(declare)
    asked = preflight(client, "/api/v1/user/create")
    sent = client.post("/api/v1/user/create", json={}, headers={"Origin": ORIGIN})

    assert asked.headers[f"{ALLOW}Origin"] == "*"
    assert asked.headers[f"{ALLOW}Headers"] == "Content-Type"
    assert "POST" in asked.headers[f"{ALLOW}Methods"]
    assert "DELETE" not in asked.headers[f"{ALLOW}Methods"]
    assert sent.json == {"success": True}
    assert sent.headers[f"{ALLOW}Origin"] == "*"


def test_cookies(example: Example) -> None:
    """API, `supports_credentials`: cookies may come along, from the origins that are listed."""

    def declare(prod: ProdKit, app: Scaffold) -> None:
        @app.route("/")
        @cross_origin(origins=[ORIGIN], supports_credentials=True)
        def hello_world() -> str:
            return f"Hello, {session.get('username', 'World')}"

    client = example(declare, SECRET_KEY="x" * 40)

    assert get(client).headers[f"{ALLOW}Origin"] == ORIGIN
    assert get(client).headers[f"{ALLOW}Credentials"] == "true"
    assert f"{ALLOW}Origin" not in get(client, origin=OTHER).headers


def test_options_of_the_decorator(example: Example) -> None:
    """API, `cross_origin`: origins as a list, methods, expose_headers, max_age as a timedelta, and `Vary`."""

    def declare(prod: ProdKit, app: Scaffold) -> None:
        @app.route("/", methods=["GET", "POST", "DELETE"])
        @cross_origin(
            origins=[ORIGIN, "https://second.example"],
            methods=["GET", "DELETE"],
            expose_headers=["X-Total", "X-Page"],
            max_age=timedelta(minutes=10),
        )
        def view() -> str:
            return "ok"

    client = example(declare)
    answer, asked = get(client), preflight(client, "/", "DELETE")

    assert answer.headers[f"{ALLOW}Origin"] == ORIGIN
    assert {"X-Total", "X-Page"} <= set(answer.headers["Access-Control-Expose-Headers"].split(", "))
    assert "Origin" in answer.headers["Vary"]
    assert asked.headers[f"{ALLOW}Methods"] == "DELETE, GET"
    assert asked.headers["Access-Control-Max-Age"] == "600"


def test_regular_expressions_of_the_decorator(example: Example) -> None:
    """API, `origins`: a regular expression, which the decorator takes as the library does."""

    def declare(prod: ProdKit, app: Scaffold) -> None:
        @app.route("/")
        @cross_origin(origins=r"^https://(www|shop)\.examplesite\.com$")
        def view() -> str:
            return "ok"

    client = example(declare)

    assert get(client).headers[f"{ALLOW}Origin"] == ORIGIN
    assert f"{ALLOW}Origin" not in get(client, origin=OTHER).headers


def test_options_handled_by_the_view(example: Example) -> None:
    """API, `automatic_options=False`: the view answers OPTIONS itself."""

    def declare(prod: ProdKit, app: Scaffold) -> None:
        @app.route("/", methods=["GET", "OPTIONS"])
        @cross_origin(automatic_options=False)
        def view() -> str:
            return "mine"

    assert example(declare).options("/").text == "mine"
