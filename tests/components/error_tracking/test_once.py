"""Each error once: whatever ends a request, whatever kind of exception it is, in a request or a job."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest
from flask import Flask, Response

from flask_prod import ProdKit
from flask_prod.core.component import Event
from tests.apps import MakeApp
from tests.servers import HttpSink

from .conftest import Sent, items

ONLY = ("error_tracking",)


@dataclass(frozen=True)
class Frozen(Exception):
    """An exception that takes no attributes."""

    code: int


class OutOfStock(Exception):
    """Expected."""


def close(app: Flask) -> None:
    app.extensions["prod"].lifecycle.close()


def test_exception_that_takes_no_attributes(make_app: MakeApp, http_sink: HttpSink, sent: Sent) -> None:
    """An exception of a frozen dataclass arrives, and once when it was reported by hand before."""
    kit = ProdKit(only=ONLY)
    prod: Any = kit.get("error_tracking")
    app = make_app(kit=kit, SENTRY_DSN=http_sink.dsn, PROPAGATE_EXCEPTIONS=False)

    @app.get("/frozen")
    def frozen() -> str:
        try:
            raise Frozen(7)
        except Frozen as error:
            prod.capture_error(error)
            raise

    assert app.test_client().get("/frozen").status_code == 500
    close(app)

    (event,) = sent(1)
    assert event["exception"]["values"][-1]["type"] == "Frozen"


@pytest.mark.parametrize("error", [RuntimeError("closing"), SystemExit(1)])
def test_answer_that_breaks_at_its_end(
    make_app: MakeApp, http_sink: HttpSink, sent: Sent, error: BaseException
) -> None:
    """What a function of `call_on_close` raises arrives once, also when that ends the worker."""
    app = make_app(only=ONLY, SENTRY_DSN=http_sink.dsn)

    @app.get("/closing")
    def closing() -> Response:
        def fail() -> None:
            raise error

        response = Response("all of it")
        response.call_on_close(fail)
        return response

    with pytest.raises(type(error)):
        app.test_client().get("/closing")
    close(app)

    (event,) = sent(1)
    assert event["tags"]["outcome"] == "crashed"
    assert event["exception"]["values"][-1]["type"] == type(error).__name__


def test_worker_that_is_ended(make_app: MakeApp, http_sink: HttpSink, sent: Sent) -> None:
    """A request that gunicorn's time limit ends, before it has answered, arrives with what it was doing."""
    app = make_app(only=ONLY, SENTRY_DSN=http_sink.dsn)

    @app.get("/slow")
    def slow() -> str:
        raise SystemExit(1)

    with pytest.raises(SystemExit):
        app.test_client().get("/slow")
    close(app)

    (event,) = sent(1)
    assert (event["tags"]["status"], event["tags"]["outcome"]) == ("0", "crashed")
    assert event["exception"]["values"][-1]["stacktrace"]["frames"][-1]["function"] == "slow"


def test_expected_error_of_a_job(make_app: MakeApp, http_sink: HttpSink) -> None:
    """A job that fails for the last time by an error of ERRORS_EXPECTED is no news either."""
    app = make_app(only=ONLY, SENTRY_DSN=http_sink.dsn, ERRORS_EXPECTED=["OutOfStock"])
    emit = app.extensions["prod"].contributions["error_tracking"].on_event

    emit(Event("prod.job.failed", "Job order failed.", "error", {}, OutOfStock()))
    close(app)

    assert items(http_sink, "event") == []
