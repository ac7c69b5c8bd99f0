"""Traps of errors: crashes that nobody hears of, secrets that travel along, pages where JSON was asked for."""

from __future__ import annotations

import secrets
from typing import Any

import pytest
from flask import Blueprint, jsonify, request
from werkzeug.exceptions import HTTPException

from tests.servers import HttpSink

from .conftest import OpenShop, Reported, ServeShop
from .shops import total

JSON = "application/json"
APP = "https://app.example.com"


@pytest.mark.trap(
    "an @app.errorhandler(Exception) that answers JSON hides every crash from Sentry and from metrics"
)
def test_trap_36_crashes_are_reported(open_shop: OpenShop, http_sink: HttpSink, reported: Reported) -> None:
    """A crash is reported and counted once, whoever draws its answer."""
    shop = open_shop(sentry_dsn=http_sink.dsn, by_hand={"metrics": "plain"})
    shop.app.add_url_rule("/boom", "boom", lambda: str(1 / 0))

    @shop.app.errorhandler(Exception)
    def draw(error: Exception) -> Any:
        return jsonify(error="sorry"), error.code if isinstance(error, HTTPException) else 500

    answer = shop.visit("/boom")
    assert (answer.status_code, answer.json) == (500, {"error": "sorry"})

    events = reported()
    assert len(events) == 1, f"the crash sent {len(events)} events to Sentry"
    assert total(shop.scrape(), "flask_http_request_exceptions_total") == 1


@pytest.mark.trap("Sentry's scrubbing misses nested fields, the query, frames' variables: secrets are sent")
def test_trap_38_secrets_stay(open_shop: OpenShop, http_sink: HttpSink, reported: Reported) -> None:
    """No secret of a request is in its error report."""
    shop = open_shop(sentry_dsn=http_sink.dsn)
    names = ("body", "query", "header", "local")
    canaries = {name: secrets.token_hex(12) for name in names}

    @shop.app.post("/boom")
    def boom() -> str:
        payment = {"card": {"api_key": canaries["local"]}}
        data = request.get_json()
        raise ValueError(f"{len(payment)} {len(data)}")

    answer = shop.visit(
        f"/boom?access_token={canaries['query']}",
        "POST",
        body={"user": {"password": canaries["body"]}},
        X_Api_Key=canaries["header"],
    )
    assert answer.status_code == 500
    assert len(reported(at_least=1)) == 1
    sent = b"".join(request.body for request in http_sink.requests).decode()

    leaked = [name for name, canary in canaries.items() if canary in sent]
    assert not leaked, f"the event carries the secrets in: {', '.join(leaked)}"


@pytest.mark.trap("a flat traces_sample_rate samples probes, scrapes and preflights: the quota is eaten by them")
def test_trap_39_probes_are_not_traced(open_shop: OpenShop, http_sink: HttpSink, reported: Reported) -> None:
    """With everything traced, probes, scrapes and preflights are not."""
    shop = open_shop(
        origins=[APP],
        sentry_dsn=http_sink.dsn,
        kit={"SENTRY_TRACES_SAMPLE_RATE": 1.0},
        by_hand={"metrics": "plain", "sentry": {"traces_sample_rate": 1.0}},
    )
    shop.app.add_url_rule("/", "home", lambda: "home")

    for path in ("/healthz", "/metrics"):
        assert shop.visit(path).status_code == 200
    assert shop.preflight("/").status_code in (200, 204)
    unwanted = len(reported("transaction"))
    assert unwanted == 0, f"a probe, a scrape and a preflight sent {unwanted} transactions"

    assert shop.visit("/").status_code == 200
    assert len(reported("transaction", at_least=1)) == 1


VIEWS = """
@app.get("/boom")
def boom():
    return str(1 / 0)
"""


@pytest.mark.trap("nothing: this works by hand and has to go on working")
def test_trap_59_preloaded_workers_report(serve_shop: ServeShop, http_sink: HttpSink, reported: Reported) -> None:
    """A crash in a worker of a preloaded application arrives, also if the worker ends at once."""
    server = serve_shop(VIEWS, workers=1, args=("--preload",), sentry_dsn=http_sink.dsn)

    assert server.get("/boom").status == 500
    assert len(reported(at_least=1)) == 1

    http_sink.requests.clear()
    assert server.get("/boom").status == 500
    server.stop()
    assert len(reported(at_least=1)) == 1


@pytest.mark.trap("404, 405, 429 and 500 ignore a blueprint's handlers: an API answers HTML")
def test_trap_52_errors_for_programs(open_shop: OpenShop) -> None:
    """A program gets JSON for every error, with a request id and every header."""
    shop = open_shop(limit=5, origins=[APP], by_hand={"talisman": {}})
    api = Blueprint("api", __name__, url_prefix="/api")
    api.add_url_rule("/x", "x", lambda: {"a": 1})
    api.add_url_rule("/boom", "boom", lambda: str(1 / 0))
    for status in (404, 405, 429, 500):
        api.register_error_handler(status, lambda error: (jsonify(error=error.name), error.code))
    shop.app.register_blueprint(api)

    visits = [("/api/nope", "GET"), ("/api/x", "DELETE"), ("/api/boom", "GET"), *[("/api/x", "GET")] * 7]
    answers = [shop.visit(path, method, Accept=JSON, Origin=APP) for path, method in visits]

    errors = {answer.status_code: answer for answer in answers if answer.status_code != 200}
    assert set(errors) == {404, 405, 429, 500}
    html = [status for status, answer in errors.items() if not answer.is_json]
    assert not html, f"answered as HTML: {', '.join(str(status) for status in html)}"
    for answer in errors.values():
        assert answer.headers["X-Request-ID"]
        assert answer.headers["X-Content-Type-Options"] == "nosniff"
        assert answer.headers["Access-Control-Allow-Origin"] == APP
