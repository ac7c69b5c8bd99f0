"""An answer on its way out: what breaks it off is recorded and logged, and raised still."""

from __future__ import annotations

import pytest
from flask import Flask
from werkzeug.wrappers import Response

from flask_prod.core.record import RequestRecord

from .rooms import app_with, room


@pytest.fixture
def records() -> list[RequestRecord]:
    return []


@pytest.fixture
def app(records: list[RequestRecord]) -> Flask:
    return app_with(room("watch", observe=records.append))


@pytest.mark.parametrize("error", [RuntimeError("close"), SystemExit(1)])
def test_body_that_breaks_when_it_is_closed(
    app: Flask, records: list[RequestRecord], error: BaseException
) -> None:
    """What fails after the last byte (`call_on_close`, a teardown after a stream) is recorded."""

    @app.get("/closing")
    def closing() -> Response:
        def fail() -> None:
            raise error

        response = Response("all of it")
        response.call_on_close(fail)
        return response

    with pytest.raises(type(error)):
        app.test_client().get("/closing")

    (record,) = records
    assert (record.status, record.outcome, record.error) == (200, "crashed", error)


def test_request_that_is_ended_from_outside(
    app: Flask, records: list[RequestRecord], caplog: pytest.LogCaptureFixture
) -> None:
    """What is no Exception (a worker told to end, gevent's Timeout) leaves a crash behind, and where it was."""

    @app.get("/reset/<token>")
    def ended(token: str) -> str:
        raise SystemExit(1)

    with pytest.raises(SystemExit):
        app.test_client().get("/reset/canary")

    (record,), (line,) = records, caplog.records
    assert (record.status, record.outcome) == (0, "crashed")
    assert line.getMessage() == "GET /reset/<token> was broken off by SystemExit"
    assert line.exc_info
    assert line.exc_info[1] is record.error is not None
