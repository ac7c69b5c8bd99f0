"""The room under real gunicorn."""

from __future__ import annotations

import pytest

from tests.apps import StartGunicorn
from tests.servers import HttpSink

from .conftest import Sent

SHOP = """
from flask import Flask
from flask_prod import ProdKit

def create_app():
    app = Flask("shop")
    app.config["ENVIRONMENT"] = "test"
    app.add_url_rule("/", "home", lambda: "home")
    app.add_url_rule("/boom", "boom", lambda: 1 / 0)
    ProdKit(app, only=("error_tracking",))
    return app
"""


@pytest.mark.parametrize("preload", [[], ["--preload"]])
def test_workers_deliver(gunicorn: StartGunicorn, http_sink: HttpSink, sent: Sent, preload: list[str]) -> None:
    """A crash in a worker arrives, also where the application was made before the fork."""
    server = gunicorn(source=SHOP, args=["-w", "1", *preload], env={"SENTRY_DSN": http_sink.dsn})

    assert server.get("/boom").status == 500

    sent(1)
