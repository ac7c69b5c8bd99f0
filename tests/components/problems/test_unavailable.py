"""What is away, over HTTP: worth coming back for, unless the application says otherwise."""

from __future__ import annotations

import logging

import pytest
from flask import Flask
from werkzeug.test import TestResponse

from flask_prod import ProdKit
from flask_prod.core.errors import Unavailable
from tests.apps import MakeApp

AWAY = "redis.internal:6379 cannot be reached"


def ask(app: Flask) -> TestResponse:
    @app.get("/orders")
    def orders() -> str:
        raise Unavailable(AWAY)

    return app.test_client().get("/orders")


def test_nobody_answers(make_app: MakeApp, caplog: pytest.LogCaptureFixture) -> None:
    """The client is told when to come back, and the log what is away: no crash, and no internals outside."""
    with caplog.at_level(logging.WARNING):
        answer = ask(make_app(only=("problems", "logs")))

    assert (answer.status_code, answer.headers["Retry-After"]) == (503, "2")
    assert answer.content_type == "application/problem+json"
    assert "redis" not in answer.text
    assert [(record.levelname, record.getMessage()) for record in caplog.records] == [("WARNING", AWAY)]


@pytest.mark.parametrize("kind", [Unavailable, Exception])
def test_own_handler(make_app: MakeApp, kind: type[Exception]) -> None:
    """A handler of the application comes first, also one for every exception."""
    app = make_app(only=("problems",))
    app.register_error_handler(kind, lambda error: (f"own: {type(error).__name__}", 418))

    answer = ask(app)

    assert (answer.status_code, answer.text) == (418, "own: Unavailable")


def test_job_that_cannot_be_accepted(make_app: MakeApp) -> None:
    """A request that has a job to dispatch, and no Redis to keep it in, is one to send again."""
    kit = ProdKit(only=("problems", "redis", "jobs"))

    @kit.job()
    def send_receipt() -> None:
        """Nothing."""

    app = make_app(kit=kit, REDIS_URL="redis://127.0.0.1:1/0")

    @app.post("/checkout")
    def checkout() -> str:
        send_receipt.dispatch()
        return "sold"

    assert app.test_client().post("/checkout").status_code == 503
