"""What a report tells of its request, and by which ids it is found."""

from __future__ import annotations

import json
import logging
import secrets
from base64 import b64encode
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote_plus

import pytest
import sentry_sdk
from flask import Flask, Response, request

from flask_prod import ProdKit
from flask_prod.core.component import Component, Contribution, Event, Installed, Stage, Step
from flask_prod.core.record import RequestRecord, current_record, enter, leave
from flask_prod.core.settings import Section
from tests.apps import MakeApp
from tests.servers import HttpSink

from .conftest import Sent, items

CARD = "4242424242424242"
TRACE = "0af7651916cd43dd8448eb211c80319c"


@pytest.fixture
def prod() -> ProdKit:
    return ProdKit(only=("error_tracking",))


@pytest.fixture
def shop(prod: ProdKit, make_app: MakeApp, http_sink: HttpSink) -> Flask:
    return make_app(kit=prod, SENTRY_DSN=http_sink.dsn, PROPAGATE_EXCEPTIONS=False, SENTRY_TRACES_SAMPLE_RATE=1)


def close(app: Flask) -> None:
    app.extensions["prod"].lifecycle.close()


class Stamp(Component[Section, None]):
    """Stands for the tracing room: gives every request this trace."""

    name = "stamp"

    def __init__(self, trace_id: str) -> None:
        self._trace_id = trace_id

    def install(self, app: Flask, settings: Section, kit: Installed) -> Contribution[None]:
        return Contribution(handle=None, steps=(Step(Stage.IDENTITY, self.arrive),))

    def arrive(self, one: RequestRecord) -> None:
        one.trace_id, one.span_id = self._trace_id, "d" * 16 if self._trace_id else ""


def record() -> RequestRecord:
    found = current_record()
    assert found is not None
    return found


def test_context(prod: ProdKit, shop: Flask, sent: Sent) -> None:
    """User, order, tags, extra values and breadcrumbs of a request are in its error and its transaction."""

    @shop.get("/pay")
    def pay() -> str:
        prod.sentry.set_user({"id": 7, "plan": "gold"})
        prod.sentry.set_tag("shop", "berlin")
        prod.sentry.set_context("order", {"id": 12, "product": "A1", "card": CARD})
        prod.sentry.set_extra("attempt", 2)
        prod.sentry.add_breadcrumb(message="paying", category="checkout")
        logging.getLogger("shop.payment").warning("charging %s with password=hunter2", 12)
        record().note(coupon="SPRING")
        raise ValueError("no money")

    shop.test_client().get("/pay")
    close(shop)
    (event,), (transaction,) = sent(1), sent(1, "transaction")

    assert event["user"] == {"id": "7", "plan": "gold"}
    assert event["extra"] == {"coupon": "SPRING", "attempt": 2}
    assert [crumb["message"] for crumb in event["breadcrumbs"]["values"]] == [
        "paying", "charging 12 with password=[redacted]",
    ]  # fmt: skip
    for found in (event, transaction):
        assert found["tags"]["shop"] == "berlin"
        assert found["contexts"]["order"] == {"id": 12, "product": "A1", "card": "[redacted]"}


def test_breadcrumbs_end_with_their_request(shop: Flask, sent: Sent) -> None:
    """Of thousands of log lines a report has the last fifty; another request's has none of them."""
    log = logging.getLogger("shop.loop")

    @shop.get("/long")
    def long() -> str:
        for number in range(3000):
            log.warning("step %d %s", number, "x" * 5000 if number == 2999 else "")
        raise ValueError("long")

    @shop.get("/short")
    def short() -> str:
        log.debug("not of interest")
        log.warning("broken %d", "word")
        raise ValueError("short")

    logging.raiseExceptions = False
    try:
        for path in ("/long", "/short"):
            shop.test_client().get(path)
    finally:
        logging.raiseExceptions = True
    close(shop)
    first, second = sent(2)

    messages = [crumb["message"] for crumb in first["breadcrumbs"]["values"]]
    assert (len(messages), messages[0].strip()) == (50, "step 2950")
    assert len(messages[-1]) < 1100
    assert [crumb["message"] for crumb in second["breadcrumbs"]["values"]] == ["broken %d"]


def test_handler_is_removed(shop: Flask, prod: ProdKit, make_app: MakeApp, http_sink: HttpSink) -> None:
    """Two applications share one handler of log lines, and the last one takes it away."""
    count = len(logging.getLogger().handlers)
    other = make_app(only=("error_tracking",), SENTRY_DSN=http_sink.dsn)
    assert len(logging.getLogger().handlers) == count

    close(shop)
    assert len(logging.getLogger().handlers) == count
    close(other)
    assert len(logging.getLogger().handlers) == count - 1


@pytest.mark.parametrize(
    ("known", "headers", "trace"),
    [
        ("", {}, ""),
        (TRACE, {}, TRACE),
        (TRACE, {"sentry-trace": f"{'b' * 32}-{'c' * 16}-1"}, TRACE),
        ("", {"sentry-trace": f"{'b' * 32}-{'c' * 16}-1", "baggage": f"sentry-trace_id={'b' * 32}"}, "b" * 32),
        ("", {"sentry-trace": "nonsense"}, ""),
    ],
)
def test_ids(
    make_app: MakeApp, http_sink: HttpSink, sent: Sent, known: str, headers: dict[str, str], trace: str
) -> None:
    """Error and transaction carry the ids of request and trace: the tracing room's, the caller's, or its own."""
    kit = ProdKit(only=("error_tracking", "stamp"))
    kit._components["stamp"] = Stamp(known)
    shop = make_app(kit=kit, SENTRY_DSN=http_sink.dsn, PROPAGATE_EXCEPTIONS=False, SENTRY_TRACES_SAMPLE_RATE=1)

    @shop.get("/boom")
    def boom() -> str:
        return str(1 / 0)

    answer = shop.test_client().get("/boom", headers=headers)
    close(shop)
    (event,), (transaction,) = sent(1), sent(1, "transaction")

    request_id = answer.headers["X-Request-ID"]
    for found in (event, transaction):
        assert found["tags"]["request_id"] == request_id
        assert found["tags"]["trace_id"] == found["contexts"]["trace"]["trace_id"] == (trace or request_id)
    assert event["contexts"]["trace"]["span_id"] == transaction["contexts"]["trace"]["span_id"]
    if "sentry-trace" in headers and trace == "b" * 32:
        assert transaction["contexts"]["trace"]["parent_span_id"] == "c" * 16


def test_plain_and_eventful_transactions_agree(prod: ProdKit, shop: Flask, sent: Sent) -> None:
    """The transaction of an uneventful request says all that the library itself would say."""
    shop.add_url_rule("/plain/<name>", "plain", lambda name: name)

    @shop.get("/eventful/<name>")
    def eventful(name: str) -> str:
        sentry_sdk.set_tag("name", name)
        return name

    client = shop.test_client()
    client.get("/plain/a").close()
    client.get("/eventful/a").close()
    close(shop)
    plain, full = sent(2, "transaction")

    left_out = {"breadcrumbs", "modules"}
    assert set(full) - left_out <= set(plain) | {"extra", "user", "measurements"}
    assert set(full["contexts"]["trace"]) - set(plain["contexts"]["trace"]) <= {"description", "parent_span_id"}
    assert set(full["contexts"]["trace"]["data"]) <= set(plain["contexts"]["trace"]["data"])
    assert (plain["transaction"], full["transaction"]) == ("/plain/<name>", "/eventful/<name>")
    assert full["tags"]["name"] == "a"
    for name in ("release", "environment", "platform", "server_name", "transaction_info"):
        assert plain[name] == full[name]


def test_spans_are_scrubbed(shop: Flask, http_sink: HttpSink, sent: Sent) -> None:
    """Spans of the application's own are kept, without the secrets in them."""

    @shop.get("/query")
    def query() -> str:
        with sentry_sdk.start_span(op="db", name="select") as span:
            span.set_data("api_key", "hunter2-hunter2")
        return ""

    shop.test_client().get("/query")
    close(shop)
    (found,) = sent(1, "transaction")

    assert found["spans"][0]["data"]["api_key"] == "[redacted]"
    assert b"hunter2" not in http_sink.requests[0].body


def test_not_sampled(make_app: MakeApp, http_sink: HttpSink, monkeypatch: pytest.MonkeyPatch) -> None:
    """A request that is not sampled touches nothing of Sentry."""
    app = make_app(only=("error_tracking",), SENTRY_DSN=http_sink.dsn, SENTRY_TRACES_SAMPLE_RATE=0.000001)
    app.add_url_rule("/", "home", lambda: "home")
    app.test_client().get("/").close()
    touched = []
    for name in ("get_isolation_scope", "get_current_scope", "get_client", "get_global_scope"):
        monkeypatch.setattr(sentry_sdk, name, lambda: touched.append(1))
    monkeypatch.setattr(sentry_sdk.Scope, "__init__", lambda *_: touched.append(1))

    app.test_client().get("/").close()

    assert touched == []
    monkeypatch.undo()


@pytest.mark.parametrize("size", [0.2])
def test_profile(make_app: MakeApp, http_sink: HttpSink, sent: Sent, size: float) -> None:
    """A profiled request's transaction comes with samples of where it spent its time."""
    import time

    app = make_app(
        only=("error_tracking",),
        SENTRY_DSN=http_sink.dsn,
        SENTRY_TRACES_SAMPLE_RATE=1,
        SENTRY_PROFILES_SAMPLE_RATE=1,
    )

    @app.get("/slow")
    def slow() -> str:
        until = time.monotonic() + size
        while time.monotonic() < until:
            sum(range(1000))
        return ""

    app.test_client().get("/slow")
    close(app)
    (profile,), (transaction,) = sent(1, "profile"), sent(1, "transaction")

    functions = {frame["function"] for frame in profile["profile"]["frames"]}
    assert len(profile["profile"]["samples"]) >= 5
    assert any("slow" in name for name in functions)
    assert profile["transactions"][0]["id"] == transaction["event_id"]


def test_streams(shop: Flask, sent: Sent) -> None:
    """An error in the middle of a stream is reported once, with its request."""

    @shop.get("/stream")
    def stream() -> Response:
        def lines() -> Iterator[str]:
            yield "one"
            raise ValueError("broken off")

        return Response(lines())

    with pytest.raises(ValueError, match="broken off"):
        _ = shop.test_client().get("/stream", buffered=True).data
    close(shop)
    (event,) = sent(1)

    assert (event["transaction"], event["tags"]["outcome"]) == ("/stream", "crashed")


def test_propagated(make_app: MakeApp, http_sink: HttpSink, sent: Sent) -> None:
    """With PROPAGATE_EXCEPTIONS an error is reported once too."""
    app = make_app(only=("error_tracking",), SENTRY_DSN=http_sink.dsn, PROPAGATE_EXCEPTIONS=True)
    app.add_url_rule("/boom", "boom", lambda: str(1 / 0))

    assert app.test_client().get("/boom").status_code == 500
    close(app)

    sent(1)


@pytest.mark.parametrize("handled", [True, False, None])
@pytest.mark.parametrize("kind", ["form", "json"])
def test_body(shop: Flask, http_sink: HttpSink, kind: str, handled: bool | None) -> None:
    """Secrets of a body are not in the report, though only their values turn up in it, whoever answers."""
    shop.config["PROPAGATE_EXCEPTIONS"] = handled is None
    if handled:
        shop.register_error_handler(Exception, lambda error: ("sorry", 500))
    canaries = {name: secrets.token_hex(12) for name in ("password", "iban")}
    basic = secrets.token_hex(12)

    @shop.post("/pay")
    def pay() -> str:
        assert request.authorization is not None
        # No variable holds the body: only the request itself knows what in it is secret.
        said = f"{found()['password']} {request.authorization.password} {quote_plus(found()['iban'])}"
        raise ValueError(f"{said} {b64encode(found()['iban'].encode())!r}")

    def found() -> Any:
        return request.form if kind == "form" else request.get_json()["more"][0]

    body: Any = {"data": canaries} if kind == "form" else {"json": {"more": [canaries]}}
    answer = shop.test_client().post("/pay", auth=("me", basic), **body)
    close(shop)
    text = b"".join(one.body for one in http_sink.requests).decode()

    assert answer.status_code == 500
    assert len(items(http_sink, "event")) == 1
    assert [name for name, value in {**canaries, "basic": basic}.items() if value in text] == []


@pytest.mark.parametrize("value", [CARD, int(CARD), "4242 4242 4242 4242", "4242-4242-4242-4242"])
def test_cards(prod: ProdKit, shop: Flask, http_sink: HttpSink, value: object) -> None:
    """A card's number is starred wherever it stands, as text or as a number; another long number is not."""

    @shop.get("/pay")
    def pay() -> str:
        number = value
        prod.sentry.set_context("payment", {"number": number, "order": 4242424242424241})
        raise ValueError(f"cannot charge {number}")

    shop.test_client().get(f"/pay?n={quote_plus(str(value))}")
    close(shop)
    text = b"".join(one.body for one in http_sink.requests).decode()

    assert str(value) not in text
    assert "4242424242424241" in text
    assert len(items(http_sink, "event")) == 1


def fail(message: str) -> Exception:
    try:
        raise LookupError(message)
    except LookupError as error:
        return error


def test_events_of_jobs(shop: Flask, sent: Sent) -> None:
    """Failed jobs are grouped by what failed, with its stack, the job, and the ids of the request behind it."""
    environ = {"REQUEST_METHOD": "JOB", "PATH_INFO": "/mail", "wsgi.url_scheme": "job", "SERVER_NAME": ""}
    work = RequestRecord(environ, "e" * 32, 0.0)
    work.trace_id = TRACE
    work.note(job="mail")
    enter(work)
    emit = shop.extensions["prod"].contributions["error_tracking"].on_event
    emit(Event("prod.job.failed", "Job mail failed.", "error", {"queue": "high"}, fail("no address")))
    leave(work)
    close(shop)
    (event,) = sent(1)

    assert event["fingerprint"] == ["prod.job.failed", "LookupError"]
    assert event["exception"]["values"][-1]["stacktrace"]["frames"][-1]["function"] == "fail"
    assert (event["tags"]["request_id"], event["tags"]["trace_id"]) == ("e" * 32, TRACE)
    assert event["extra"] == {"job": "mail", "queue": "high"}
    assert event["transaction"] == "mail"
    assert "request" not in event


def test_one_event_per_outage(make_app: MakeApp, http_sink: HttpSink, sent: Sent) -> None:
    """What several processes of a host see of one outage is one event; another outage is another."""
    apps = [make_app(only=("error_tracking",), SENTRY_DSN=http_sink.dsn) for _ in range(3)]
    for number, app in enumerate(apps):
        emit = app.extensions["prod"].contributions["error_tracking"].on_event
        emit(Event("prod.redis.degraded", f"Redis is away after {number} ms.", "error"))
        emit(Event("prod.database.degraded", "The database is away.", "error"))
    for app in apps:
        close(app)

    assert sorted(event["message"] for event in sent(2)) == ["Redis is away after 0 ms.", "The database is away."]


def test_short_cuts(prod: ProdKit, shop: Flask, sent: Sent) -> None:
    """`prod.capture_message` and `prod.capture_error` take what there is to say."""

    @shop.get("/say")
    def say() -> str:
        prod.capture_message("stock is low", "warning", sku="A1")
        prod.capture_error(fail("odd"), order=7)
        return ""

    shop.test_client().get("/say")
    close(shop)
    message, error = sent(2)

    assert (message["message"], message["extra"], message["level"]) == ("stock is low", {"sku": "A1"}, "warning")
    assert error["extra"] == {"order": 7}
    assert json.dumps(error).count("LookupError") >= 1
