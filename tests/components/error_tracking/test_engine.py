"""What is reported, how often, and what never leaves the process."""

from __future__ import annotations

import base64
import json
import secrets
import sys
import time
from typing import Any
from urllib.parse import quote

import pytest
import sentry_sdk
from flask import Flask, abort, request

from flask_prod import ConfigError, ProdKit
from flask_prod.core.component import Event
from flask_prod.core.errors import Unavailable
from tests.apps import MakeApp
from tests.servers import HttpSink

from .conftest import Sent, items

ONLY = ("error_tracking",)


@pytest.fixture
def shop(make_app: MakeApp, http_sink: HttpSink) -> Flask:
    app = make_app(
        only=ONLY, SENTRY_DSN=http_sink.dsn, SERVICE_VERSION="1.2", PROPAGATE_EXCEPTIONS=False,
        ERRORS_EXPECTED=["LookupError", "tests.components.error_tracking.test_engine.Boring"],
    )  # fmt: skip
    app.add_url_rule("/boom/<name>", "boom", boom)
    app.add_url_rule("/", "home", lambda: "home")
    return app


class Boring(Exception):
    """Expected by its full name."""


def boom(name: str) -> str:
    if name.isdigit():
        raise type(f"Error{name}", (ValueError,), {})(name)
    error: dict[str, BaseException] = {
        "value": ValueError("boom"), "key": KeyError("no"), "boring": Boring(), "away": Unavailable("redis"),
    }  # fmt: skip
    raise error[name]


def close(app: Flask) -> None:
    app.extensions["prod"].lifecycle.close()


def test_crash(shop: Flask, sent: Sent) -> None:
    """A crash arrives once, with its request, its route as name, the release and the request id."""
    answer = shop.test_client().get("/boom/value?page=2", headers={"User-Agent": "browser"})

    (event,) = sent()

    assert answer.status_code == 500
    assert event["exception"]["values"][-1]["type"] == "ValueError"
    assert event["exception"]["values"][-1]["mechanism"] == {"type": "flask_prod", "handled": False}
    assert event["transaction"] == "/boom/<name>"
    assert event["request"]["method"] == "GET"
    assert event["request"]["url"] == "http://localhost/boom/value"
    assert event["request"]["query_string"] == "page=2"
    assert event["request"]["headers"]["User-Agent"] == "browser"
    assert event["tags"]["request_id"] == answer.headers["X-Request-ID"]
    assert (event["release"], event["environment"]) == ("shop@1.2", "test")


@pytest.mark.parametrize("handled", [Exception, ValueError, 500])
def test_handlers_of_the_application(shop: Flask, sent: Sent, handled: Any) -> None:
    """Whatever handler answers in JSON, the crash still arrives exactly once."""
    shop.register_error_handler(handled, lambda error: ({"error": "sorry"}, 500))

    assert shop.test_client().get("/boom/value").json == {"error": "sorry"}
    close(shop)

    sent(1)


def test_reported_by_hand_and_raised(make_app: MakeApp, http_sink: HttpSink, sent: Sent) -> None:
    """An error that the view reports and raises again arrives once, with the view's context."""
    kit = ProdKit(only=ONLY)
    prod: Any = kit.get("error_tracking")
    app = make_app(kit=kit, SENTRY_DSN=http_sink.dsn, PROPAGATE_EXCEPTIONS=False)

    @app.get("/pay")
    def pay() -> str:
        prod.set_user({"id": 7, "plan": "gold"})
        prod.add_breadcrumb(message="paying", category="checkout")
        prod.set_tag("order", "A1")
        try:
            raise ValueError("no money")
        except ValueError:
            prod.capture_error(order="A1", password="hunter2!")
            raise

    app.test_client().get("/pay")
    close(app)
    (event,) = sent(1)

    assert event["extra"] == {"order": "A1", "password": "[redacted]"}
    assert event["user"]["id"] == "7"
    assert event["tags"]["order"] == "A1"
    assert event["breadcrumbs"]["values"][0]["message"] == "paying"


def test_nothing_crosses_requests(make_app: MakeApp, http_sink: HttpSink, sent: Sent) -> None:
    """Tags, users and breadcrumbs set with the library's own functions end with their request."""
    app = make_app(only=ONLY, SENTRY_DSN=http_sink.dsn, PROPAGATE_EXCEPTIONS=False)

    @app.get("/first")
    def first() -> str:
        sentry_sdk.set_tag("order", "A1")
        sentry_sdk.set_user({"id": "7"})
        sentry_sdk.add_breadcrumb(message="first")
        return ""

    app.add_url_rule("/boom/<name>", "boom", boom)
    app.test_client().get("/first")
    app.test_client().get("/boom/value")
    (event,) = sent(1)

    assert "order" not in event["tags"]
    assert "user" not in event
    assert not event.get("breadcrumbs", {}).get("values")


def test_tags_of_the_start(make_app: MakeApp, http_sink: HttpSink, sent: Sent) -> None:
    """Tags set before the application was made are in every event, and a request adds nothing to them."""
    with sentry_sdk.isolation_scope() as scope:
        scope.set_tag("region", "eu")
        app = make_app(only=ONLY, SENTRY_DSN=http_sink.dsn, PROPAGATE_EXCEPTIONS=False)

        @app.get("/tag")
        def tag() -> str:
            sentry_sdk.set_tag("order", "A1")
            return ""

        app.add_url_rule("/boom/<name>", "boom", boom)
        client = app.test_client()
        for path in ("/boom/value", "/tag", "/boom/value"):
            client.get(path).close()
        close(app)
        first, second = sent(2)

    assert (first["tags"]["region"], second["tags"]["region"]) == ("eu", "eu")
    assert "order" not in second["tags"]


@pytest.mark.parametrize("path", ["/boom/key", "/boom/boring", "/boom/away", "/gone", "/nothing"])
def test_expected(shop: Flask, http_sink: HttpSink, path: str) -> None:
    """Errors that are expected, outages and client errors are no news."""
    shop.add_url_rule("/gone", "gone", lambda: abort(503))

    shop.test_client().get(path)
    close(shop)

    assert items(http_sink, "event") == []


def test_events(shop: Flask, sent: Sent) -> None:
    """A change of state that is an error becomes one report; one that is not becomes none."""
    take = shop.extensions["prod"].contributions["error_tracking"].on_event
    take(Event("prod.breaker.closed", "Redis is back."))
    take(Event("prod.breaker.opened", "Redis is away.", severity="error", fields={"host": "cache"}))
    close(shop)

    (event,) = sent(1)

    assert event["message"] == "Redis is away."
    assert event["fingerprint"] == ["prod.breaker.opened"]
    assert event["extra"] == {"host": "cache"}


def test_log_lines_are_no_events(shop: Flask, http_sink: HttpSink) -> None:
    """An error that is only logged is not reported."""
    shop.logger.error("redis is away")
    close(shop)

    assert http_sink.requests == []


def test_messages(make_app: MakeApp, http_sink: HttpSink, sent: Sent, caplog: pytest.LogCaptureFixture) -> None:
    """`capture_message` reports and logs; without an address it only logs."""
    kit = ProdKit(only=ONLY)
    prod: Any = kit.get("error_tracking")
    with make_app(kit=kit, SENTRY_DSN=http_sink.dsn).app_context():
        assert prod.capture_message("stock is low", "warning", sku="A1")
    with make_app(kit=kit).app_context():
        assert prod.capture_message("stock is lower", "warning") is None
    assert prod.capture_message("no application", "warning") is None

    (event,) = sent(1)
    assert (event["message"], event["level"], event["extra"]) == ("stock is low", "warning", {"sku": "A1"})
    assert caplog.messages == ["stock is low", "stock is lower", "no application"]


def test_two_applications(make_app: MakeApp, http_sink: HttpSink) -> None:
    """Each application of a process reports to its own project."""
    with HttpSink() as other:
        first = make_app(only=ONLY, SENTRY_DSN=http_sink.dsn, PROPAGATE_EXCEPTIONS=False)
        second = make_app(only=ONLY, SENTRY_DSN=other.dsn, PROPAGATE_EXCEPTIONS=False)
        for app in (first, second):
            app.add_url_rule("/boom/<name>", "boom", boom)
        second.test_client().get("/boom/value")
        close(second)
        close(first)

        assert len(items(other, "event")) == 1
    assert http_sink.requests == []


def test_nothing_secret_leaves(make_app: MakeApp, http_sink: HttpSink) -> None:
    """No secret of the request, of a local variable or of the settings is in the report, in any spelling."""
    canary = {
        name: f"{name}+{secrets.token_urlsafe(12)}/" for name in ("query", "header", "cookie", "local", "nested")
    }
    app = make_app(
        only=ONLY, SENTRY_DSN=http_sink.dsn, PROPAGATE_EXCEPTIONS=False, SECRET_KEY=secrets.token_hex(16)
    )

    @app.post("/pay")
    def pay() -> str:
        body = request.get_json()
        password = body["user"]["password"]
        card_number = "4242 4242 4242 4242"
        copy = f"copied {password} {quote(password)} {app.secret_key!r}"
        raise ValueError(f"cannot charge {card_number} of {password}: {copy} {request.headers['Authorization']}")

    app.test_client().post(
        f"/pay?access_token={quote(canary['query'])}",
        json={"user": {"password": canary["local"], "more": [{"api_key": canary["nested"]}]}},
        headers={"Authorization": f"Bearer {canary['header']}", "Cookie": f"session={canary['cookie']}"},
    )
    close(app)
    body = b"".join(request.body for request in http_sink.requests).decode()

    assert len(items(http_sink, "event")) == 1
    values = [*canary.values(), str(app.secret_key)]
    forms = [f for v in values for f in (v, quote(v, safe=""), quote(v), base64.b64encode(v.encode()).decode())]
    assert [form for form in (*forms, "4242 4242 4242 4242") if form in body] == []
    assert json.dumps("password")[1:-1] in body, "the names stay, to be of use"


def test_traces(make_app: MakeApp, http_sink: HttpSink, sent: Sent) -> None:
    """A sampled request becomes a transaction named after its route, with the spans made inside it."""
    app = make_app(only=("error_tracking", "metrics"), SENTRY_DSN=http_sink.dsn, SENTRY_TRACES_SAMPLE_RATE=1)

    @app.get("/product/<int:number>")
    def product(number: int) -> str:
        with sentry_sdk.start_span(op="db", name="select"):
            time.sleep(0.05)
        return "product"

    client = app.test_client()
    client.get("/metrics")
    client.options("/product/1")
    answer = client.get("/product/1")
    close(app)

    (found,) = sent(1, "transaction")

    assert found["tags"]["request_id"] == answer.headers["X-Request-ID"]
    assert found["transaction"] == "/product/<int:number>"
    assert found["contexts"]["trace"]["op"] == "http.server"
    assert found["contexts"]["trace"]["data"]["http.response.status_code"] == 200
    assert [span["op"] for span in found["spans"]] == ["db"]


def test_no_traces(shop: Flask, http_sink: HttpSink) -> None:
    """Without a rate there are no transactions."""
    shop.test_client().get("/")
    close(shop)

    assert http_sink.requests == []


def test_hanging_sink(shop: Flask, http_sink: HttpSink) -> None:
    """A Sentry that never answers delays no request, and the end of the process by two seconds at most."""
    http_sink.mode = "hang"
    client = shop.test_client()
    client.get("/boom/value")
    client.get("/boom/value")

    slowest = max(_seconds(lambda number=number: client.get(f"/boom/{number}")) for number in range(150))

    assert slowest < 1.5  # who waited for the sink would wait two seconds and more
    assert _seconds(lambda: close(shop)) < 2.5


def test_storm(make_app: MakeApp, http_sink: HttpSink) -> None:
    """A hundred equal errors are five events, or a few more, and all of them are counted."""
    app = make_app(only=("metrics", *ONLY), SENTRY_DSN=http_sink.dsn, PROPAGATE_EXCEPTIONS=False)
    app.add_url_rule("/boom/<name>", "boom", boom)
    client = app.test_client()
    for _ in range(100):
        client.get("/boom/value").close()
    page = client.get("/metrics").text
    close(app)

    assert 5 <= len(items(http_sink, "event")) <= 9
    assert 'flask_http_request_exceptions_total{method="GET",status="500"} 100.0' in page
    assert 'flask_prod_error_reports_total{result="withheld"}' in page


@pytest.mark.alone
def test_full_queue_costs_nothing(shop: Flask, http_sink: HttpSink) -> None:
    """Once the queue is full a crash is not even serialised."""
    http_sink.mode = "hang"
    client = shop.test_client()
    for number in range(120):
        client.get(f"/boom/{number}")

    assert min(_seconds(lambda number=number: client.get(f"/boom/{number}")) for number in range(120, 140)) < 0.003
    close(shop)


def _seconds(call: Any) -> float:
    began = time.perf_counter()
    call()
    return time.perf_counter() - began


def test_no_address(make_app: MakeApp) -> None:
    """Without SENTRY_DSN nothing runs per request."""
    contribution = make_app(only=ONLY).extensions["prod"].contributions["error_tracking"]

    assert (contribution.observe, contribution.steps, contribution.on_event) == (None, (), None)


def test_no_import() -> None:
    """Without SENTRY_DSN the library is not imported."""
    import subprocess

    code = (
        "import sys; from flask import Flask; from flask_prod import ProdKit; app = Flask('shop')\n"
        "ProdKit(app, only=('error_tracking',)); app.test_client().get('/')\n"
        "assert 'sentry_sdk' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_bad_address(make_app: MakeApp) -> None:
    """An address that is none stops the start, without being printed."""
    with pytest.raises(ConfigError, match="SENTRY_DSN must be an address") as caught:
        make_app(only=ONLY, SENTRY_DSN="https://hunter2@")

    assert "hunter2" not in str(caught.value)


def test_nothing_to_capture(make_app: MakeApp) -> None:
    """`capture_error` without an error says what to do."""
    with make_app(only=ONLY).app_context(), pytest.raises(ValueError, match="in an except block"):
        ProdKit(only=ONLY).get("error_tracking").capture_error()
