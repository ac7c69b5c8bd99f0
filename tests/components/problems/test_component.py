"""Error answers over HTTP: who gets JSON, who a page, and what neither says."""

from __future__ import annotations

from typing import Any

import pytest
from flask import Blueprint, Flask, Response, abort, request
from werkzeug.exceptions import HTTPException, TooManyRequests
from werkzeug.routing import RequestRedirect
from werkzeug.test import Client

from flask_prod.components.problems import ProblemPages, ProblemSettings, wants_page
from flask_prod.core.record import RequestRecord
from tests.apps import MakeApp

ROOMS = ("proxy", "problems", "headers", "cors", "ratelimit")
BROWSER = "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"


class Quota(TooManyRequests):
    """An error with members of its own."""

    problem = {"type": "https://example.com/quota", "violated-policies": ["public"]}


def build(make_app: MakeApp, **config: Any) -> Flask:
    """Build an application in which much goes wrong."""
    app = make_app(only=ROOMS, **config)
    api = Blueprint("api", __name__, url_prefix="/api")

    @api.get("/boom")
    def boom() -> str:
        raise RuntimeError("password=hunter2")

    @api.get("/described")
    def described() -> Response:
        abort(500, "password=hunter2")

    @api.post("/echo")
    def echo() -> Any:
        return request.get_json()

    @api.get("/busy")
    def busy() -> Response:
        abort(503, "The stock is being counted.")

    @api.get("/quota")
    def quota() -> Response:
        raise Quota(retry_after=7)

    @api.get("/teapot")
    def teapot() -> Response:
        abort(404, "<script>alert(1)</script>")

    @api.get("/fields")
    def fields() -> Response:
        abort(422, {"name": "is missing"})

    @api.get("/own")
    def own() -> Response:
        abort(Response("mine", 409))

    app.register_blueprint(api)
    return app


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/api/nope", 404),
        ("DELETE", "/api/boom", 405),
        ("GET", "/api/boom", 500),
        ("POST", "/api/echo", 400),
        ("GET", "/nope", 404),
    ],
)
def test_trap_52_json_for_json_clients(make_app: MakeApp, method: str, path: str, status: int) -> None:
    """Unmatched routes, wrong methods, bad bodies and crashes are all problem+json with headers and request id."""
    app = build(make_app, ALLOWED_ORIGINS="https://app.example.com")
    headers = {
        "Accept": "application/json",
        "Origin": "https://app.example.com",
        "Content-Type": "application/json",
    }

    answer = Client(app).open(path, method=method, data=b"{", headers=headers)

    assert answer.status_code == status
    assert answer.mimetype == "application/problem+json"
    assert answer.get_json()["status"] == status
    assert answer.get_json()["type"] == "about:blank"
    assert answer.get_json()["title"]
    assert answer.get_json()["instance"] == path
    assert answer.get_json()["request_id"] == answer.headers["X-Request-ID"]
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    assert answer.headers["Access-Control-Allow-Origin"] == "https://app.example.com"
    assert "Accept" in answer.headers["Vary"]
    assert "Origin" in answer.headers["Vary"]


def test_trap_52_over_limit(make_app: MakeApp) -> None:
    """A limited call is a problem too, with its Retry-After."""
    client = build(make_app, RATE_LIMIT_PUBLIC=1).test_client()

    client.get("/api/busy")
    answer = client.get("/api/busy", headers={"Accept": "application/json"})

    assert answer.status_code == 429
    assert answer.mimetype == "application/problem+json"
    assert int(answer.headers["Retry-After"]) > 0


def test_page_for_browsers(make_app: MakeApp) -> None:
    """A browser gets a page that runs under the strict policy and loads nothing."""
    answer = build(make_app).test_client().get("/nope", headers={"Accept": BROWSER})
    nonce = answer.text.partition('nonce="')[2].partition('"')[0]

    assert answer.status_code == 404
    assert answer.mimetype == "text/html"
    assert answer.headers["X-Request-ID"] in answer.text
    assert len(nonce) == 22
    assert f"'nonce-{nonce}'" in answer.headers["Content-Security-Policy"]
    assert answer.text.count("<style") == 1
    assert not [word for word in ("src=", "style=", "<script", "<link", "url(", "$") if word in answer.text]


def test_markup_is_escaped(make_app: MakeApp) -> None:
    """What the application or the client says appears as text."""
    answer = build(make_app).test_client().get("/api/teapot", headers={"Accept": BROWSER})

    assert "<script>" not in answer.text
    assert "&lt;script&gt;" in answer.text


@pytest.mark.parametrize("path", ["/api/boom", "/api/described"])
@pytest.mark.parametrize("accept", [BROWSER, "application/json"])
def test_crashes_say_nothing(make_app: MakeApp, path: str, accept: str) -> None:
    """A 500 names neither exception nor message, however it came about."""
    answer = Client(build(make_app)).get(path, headers={"Accept": accept})

    assert answer.status_code == 500
    assert "hunter2" not in answer.text
    assert "RuntimeError" not in answer.text


def test_crashes_say_nothing_when_propagated(make_app: MakeApp) -> None:
    """The same holds for what escapes Flask."""
    answer = Client(build(make_app, PROPAGATE_EXCEPTIONS=True)).get("/api/boom")

    assert answer.status_code == 500
    assert answer.mimetype == "application/problem+json"
    assert "hunter2" not in answer.text


def test_own_headers_are_kept(make_app: MakeApp) -> None:
    """Allow and Retry-After are part of the error."""
    client = build(make_app).test_client()

    assert "GET" in client.delete("/api/boom").headers["Allow"]
    assert client.get("/api/quota").headers["Retry-After"] == "7"


def test_description_reaches_the_client(make_app: MakeApp) -> None:
    """A described 503 says what was described; structured descriptions are members."""
    client = build(make_app).test_client()

    assert client.get("/api/busy").get_json()["detail"] == "The stock is being counted."
    assert client.get("/api/fields").get_json()["errors"] == {"name": "is missing"}


@pytest.mark.parametrize("accept", ["application/json", BROWSER])
def test_half_a_letter(make_app: MakeApp, accept: str) -> None:
    """A description that repeats half a surrogate pair of the client's is that answer still, and no crash."""
    app = build(make_app)
    app.add_url_rule("/api/half", "half", lambda: abort(400, "No product \ud800."))

    answer = app.test_client().get("/api/half", headers={"Accept": accept})

    assert answer.status_code == 400
    assert b"No product" in answer.data


def test_members_of_an_exception(make_app: MakeApp) -> None:
    """An exception may bring a type and members of its own."""
    body = build(make_app).test_client().get("/api/quota").get_json()

    assert body["type"] == "https://example.com/quota"
    assert body["violated-policies"] == ["public"]


def test_head_has_no_body(make_app: MakeApp) -> None:
    """HEAD is answered with the headers of GET alone."""
    client = build(make_app).test_client()
    answer = client.head("/nope")

    assert answer.status_code == 404
    assert answer.data == b""
    assert answer.mimetype == "application/problem+json"


def test_handlers_of_the_user_come_first(make_app: MakeApp) -> None:
    """A registered handler answers, and loses no header by it."""
    app = build(make_app)
    app.register_error_handler(404, lambda error: ("my own", 404))
    app.register_error_handler(Exception, lambda error: ("caught", 500))
    client = app.test_client()

    assert client.get("/nope").text == "my own"
    assert client.get("/nope").headers["X-Content-Type-Options"] == "nosniff"
    assert client.get("/api/boom").text == "caught"


def test_responses_in_exceptions_are_kept(make_app: MakeApp) -> None:
    """abort() with a response gives that response."""
    answer = build(make_app).test_client().get("/api/own")

    assert (answer.status_code, answer.text) == (409, "mine")


def test_oversized_body(make_app: MakeApp) -> None:
    """A body over MAX_CONTENT_LENGTH is a problem document with status 413."""
    client = build(make_app, MAX_CONTENT_LENGTH=100).test_client()
    answer = client.post("/api/echo", data=b"x" * 200, content_type="application/json")

    assert answer.status_code == 413
    assert answer.get_json()["status"] == 413


def test_debug_keeps_the_debugger(make_app: MakeApp) -> None:
    """In debug mode a crash is raised for Flask's debugger to show."""
    app = build(make_app)
    app.debug = True

    with pytest.raises(RuntimeError):
        Client(app).get("/api/boom")


def test_settings(make_app: MakeApp) -> None:
    """Types get the address they are explained at, pages the sentence whom to tell."""
    client = build(
        make_app, ERROR_TYPE_URL="https://docs.example.com/errors/", ERROR_CONTACT="Tell <us>."
    ).test_client()

    assert client.get("/nope").get_json()["type"] == "https://docs.example.com/errors/404"
    assert "Tell &lt;us&gt;." in client.get("/nope", headers={"Accept": BROWSER}).text


def test_a_step_may_answer_by_exception() -> None:
    """An exception that carries a response or a redirect is that, at WSGI level as well."""
    environ = {"REQUEST_METHOD": "GET", "wsgi.url_scheme": "http", "HTTP_HOST": "shop.example.com"}
    pages = ProblemPages(ProblemSettings(), "shop")
    mine = Response("mine", 409)

    assert pages.render(RequestRecord(environ, "a" * 32, 0.0), HTTPException(response=mine)) is mine
    assert pages.render(RequestRecord(environ, "a" * 32, 0.0), RequestRedirect("/there")).location == "/there"


@pytest.mark.parametrize(
    ("accept", "content_type", "page"),
    [
        (BROWSER, "", True),
        ("text/html", "", True),
        ("", "", False),
        ("*/*", "", False),
        ("application/json", "", False),
        ("application/json, text/html;q=0.5", "", False),
        ("text/html, application/json;q=0.5", "", True),
        ("text/html;q=0, */*", "", False),
        ("image/avif,image/webp,*/*;q=0.8", "", False),
        (BROWSER, "application/json", False),
        (BROWSER, "application/x-www-form-urlencoded", True),
        ("garbage;;;html,,q=x", "", False),
    ],
)
def test_wants_page(accept: str, content_type: str, page: bool) -> None:
    """Who prefers HTML gets it; programs, and who does not say, get JSON."""
    assert wants_page({"HTTP_ACCEPT": accept, "CONTENT_TYPE": content_type}) is page
