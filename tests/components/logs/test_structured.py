"""structlog beside us: its events are lines like any other, without a word of configuration."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import structlog
from flask import Flask

from flask_prod.components.logs import configure_structlog, structlog_context, structlog_to_logs
from tests.apps import MakeApp

from .conftest import Lines


@pytest.fixture(autouse=True)
def defaults() -> Iterator[None]:
    structlog.reset_defaults()
    yield
    structlog.reset_defaults()


def test_out_of_the_box(shop: Flask, lines: Lines) -> None:
    """An event has its keywords as fields, the request's ids and its module's name; secrets are starred out."""

    @shop.get("/look")
    def look() -> str:
        structlog.get_logger().bind(cart=3).info("100% of it", a=1, password="hunter2", name="Ada", message="hi")
        return ""

    answer = shop.test_client().get("/look")

    line = lines()[0]
    assert (line["message"], line["level"], line["logger"]) == ("100% of it", "info", __name__)
    assert line["fields"] == {"cart": 3, "a": 1, "password": "[redacted]", "name": "Ada", "message": "hi"}
    assert line["request_id"] == answer.headers["X-Request-ID"]


def test_exceptions_and_arguments(shop: Flask, lines: Lines) -> None:
    """Stacks, positional arguments and context variables come along; what is below the level is dropped."""
    log = structlog.get_logger("shop.orders")
    structlog.contextvars.bind_contextvars(tenant="north")
    try:
        log.debug("not written")
        log.warning("low on %s", "tea", item=7)
        raise LookupError("gone")
    except LookupError:
        log.exception("failed")
    finally:
        structlog.contextvars.clear_contextvars()

    low, failed = lines()
    assert (low["message"], low["fields"]) == ("low on tea", {"item": 7, "tenant": "north"})
    assert (failed["error"], failed["level"]) == ("LookupError", "error")
    assert "LookupError: gone" in failed["stack"]


def test_own_configuration_stays(make_app: MakeApp, log_file: Path) -> None:
    """Whoever configured structlog keeps that, also after the application has closed."""
    mine: list[Any] = [structlog.processors.JSONRenderer()]
    structlog.configure(processors=mine)
    app = make_app(only=("logs",), LOG_OUTPUT=str(log_file))
    app.extensions["prod"].lifecycle.close()

    assert structlog.get_config()["processors"] is mine


def test_closing_gives_back(make_app: MakeApp, log_file: Path) -> None:
    """The last application that closes leaves structlog as it was: not configured."""
    app = make_app(only=("logs",), LOG_OUTPUT=str(log_file))
    assert structlog.is_configured()
    app.extensions["prod"].lifecycle.close()

    assert structlog_to_logs not in structlog.get_config()["processors"]
    assert not structlog.is_configured()


def test_by_a_call(make_app: MakeApp, log_file: Path, lines: Lines) -> None:
    """`configure_structlog()` takes over whatever was configured before."""
    structlog.configure(processors=[structlog.processors.JSONRenderer()])
    make_app(only=("logs",), LOG_OUTPUT=str(log_file))
    configure_structlog()
    structlog.get_logger().warning("mine", a=1)

    assert lines()[0]["fields"] == {"a": 1}


def test_own_renderer(shop: Flask) -> None:
    """Who renders events himself puts `structlog_context` before the renderer, for the request's ids."""
    found: list[object] = []

    @shop.get("/look")
    def look() -> str:
        found.append(structlog_context(None, "info", {"event": "x"}))
        return ""

    answer = shop.test_client().get("/look")

    assert found == [{"event": "x", "request_id": answer.headers["X-Request-ID"]}]
    assert structlog_context(None, "info", {"event": "x"}) == {"event": "x"}


def test_never_imported() -> None:
    """An application that does not use structlog does not pay for it."""
    code = (
        "import sys; from flask import Flask; from flask_prod import ProdKit;"
        "app = Flask('shop'); ProdKit(app, only=('logs',)); app.test_client().get('/');"
        "assert 'structlog' not in sys.modules"
    )
    subprocess.run([sys.executable, "-W", "error", "-c", code], check=True, capture_output=True, timeout=60)


def test_imported_later() -> None:
    """structlog that the application imports after the kit was installed is taken in when it begins to serve."""
    code = (
        "from flask import Flask; from flask_prod import ProdKit;"
        "app = Flask('shop'); ProdKit(app, only=('logs',));"
        "import structlog; app.add_url_rule('/', 'home', lambda: structlog.get_logger().warning('hi', a=1) or '');"
        "app.test_client().get('/')"
    )
    said = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, timeout=60, text=True)

    assert '"message":"hi"' in said.stdout
    assert '"fields":{"a":1}' in said.stdout
