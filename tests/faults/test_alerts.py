"""An alert from its first failure to its recovery, at the pace of real time."""

from __future__ import annotations

import json
import os

import pytest

from tests.apps import StartGunicorn
from tests.servers import HttpSink

pytestmark = pytest.mark.faults

SHOP = """
from flask import Flask
from flask_prod import ProdKit

app = Flask("shop")
ProdKit(app)

@app.get("/boom")
def boom():
    return str(1 / 0)
"""
MINUTE = 60.0


def test_one_alert_and_one_recovery(gunicorn: StartGunicorn, http_sink: HttpSink) -> None:
    """A burst of failures over two workers is one alert; a calm minute later comes one message that it is over."""
    env = {
        "WEB_CONCURRENCY": "2", "ENVIRONMENT": "production", "SECURITY_FORCE_HTTPS": "false",
        "LOG_OUTPUT": os.devnull,
        "ALERTS_CHANNELS": f"json://127.0.0.1:{http_sink.port}/", "ALERTS_CALM": "5s",
    }  # fmt: skip
    server = gunicorn(
        "app:app", source=SHOP, config="python:flask_prod.server.gunicorn_conf", env=env, ready="/health/live"
    )
    for _ in range(40):
        server.get("/boom")
    requests = http_sink.wait_for(2, MINUTE + 25)
    kinds = [json.loads(request.body)["type"] for request in requests]

    assert kinds == ["failure", "success"]
