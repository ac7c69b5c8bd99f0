"""When reports are worth building, when the library is imported, and what is logged of an outage."""

from __future__ import annotations

import subprocess
import sys
import time

import pytest
from flask import Flask

from flask_prod.components.error_tracking import courier
from tests.apps import MakeApp
from tests.servers import HttpSink, wait_for

from .conftest import items


@pytest.fixture
def shop(make_app: MakeApp, http_sink: HttpSink) -> Flask:
    app = make_app(only=("error_tracking",), SENTRY_DSN=http_sink.dsn, PROPAGATE_EXCEPTIONS=False)

    def boom(number: int) -> str:
        raise type(f"Error{number}", (Exception,), {})

    app.add_url_rule("/boom/<int:number>", "boom", boom)
    return app


def boom(shop: Flask, *numbers: int) -> None:
    for number in numbers:
        shop.test_client().get(f"/boom/{number}").close()


def test_away_and_back(
    shop: Flask, http_sink: HttpSink, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Nothing is built while Sentry fails; the outage and its end are one line each, the libraries' none."""
    monkeypatch.setattr(courier, "_AWAY_SECONDS", 0.5)
    http_sink.mode = 503
    boom(shop, 1)
    wait_for(lambda: "do not arrive" in caplog.text, 3)
    boom(shop, *range(2, 12))
    time.sleep(0.3)
    assert len(http_sink.requests) == 1

    http_sink.mode = "ok"
    time.sleep(0.5)
    boom(shop, 12)
    wait_for(lambda: "arrive at Sentry again" in caplog.text, 3)

    lines = [line.getMessage() for line in caplog.records if line.name != "shop"]
    assert lines == [
        "Error reports do not arrive at Sentry (status_503).",
        "Error reports arrive at Sentry again.",
    ]
    assert len(items(http_sink, "event")) == 2


def test_hanging_sentry_is_noticed(shop: Flask, http_sink: HttpSink, monkeypatch: pytest.MonkeyPatch) -> None:
    """A Sentry that does not answer counts as away after a second."""
    monkeypatch.setattr(courier, "_SLOW_SECONDS", 0.1)
    errors = shop.extensions["prod"].contributions["error_tracking"].handle
    http_sink.mode = "hang"
    boom(shop, 1)
    http_sink.wait_for(1)

    wait_for(lambda: not errors.client().transport.is_healthy(), 1)


def test_many_kinds(shop: Flask, http_sink: HttpSink) -> None:
    """Of a hundred different errors at once a process reports twenty, and five more with each second."""
    began = time.monotonic()
    boom(shop, *range(100))
    seconds = time.monotonic() - began
    shop.extensions["prod"].lifecycle.close()

    assert 20 <= len(items(http_sink, "event")) <= 21 + 5 * seconds


@pytest.mark.parametrize("rate", ["0", "1"])
def test_imported_when_needed(http_sink: HttpSink, rate: str) -> None:
    """The library is imported when the process begins to serve, not when the application is made."""
    code = (
        "import sys; from flask import Flask; from flask_prod import ProdKit; app = Flask('shop')\n"
        f"app.config.update(SENTRY_DSN={http_sink.dsn!r}, SENTRY_TRACES_SAMPLE_RATE={rate})\n"
        "ProdKit(app, only=('error_tracking',))\n"
        "assert not {'sentry_sdk', 'urllib3', 'asyncio'} & set(sys.modules)\n"
        "app.test_client().get('/')\n"
        "assert 'sentry_sdk' in sys.modules\n"
        "app.extensions['prod'].lifecycle.close()"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_plain_library(http_sink: HttpSink) -> None:
    """An application that imports the library itself can use it from the start."""
    code = (
        "import sentry_sdk; from flask import Flask; from flask_prod import ProdKit; app = Flask('shop')\n"
        f"app.config.update(SENTRY_DSN={http_sink.dsn!r})\n"
        "ProdKit(app, only=('error_tracking',))\n"
        "assert sentry_sdk.capture_message('made')\n"
        "app.extensions['prod'].lifecycle.close()"
    )
    subprocess.run([sys.executable, "-c", code], check=True)

    assert [event["message"] for event in items(http_sink, "event")] == ["made"]


@pytest.mark.parametrize(
    "address",
    ["hunter2", "ftp://hunter2@host/1", "https://host/1", "https://hunter2@host/", "https://hunter2@host/x",
     "https://hunter2@host:port/1", "https://hunter2@/1"],
)  # fmt: skip
def test_addresses_agree_with_the_library(address: str) -> None:
    """What the library would refuse is refused, and the other way round."""
    from sentry_sdk.utils import BadDsn, Dsn

    from flask_prod.components.error_tracking.client import check_dsn
    from flask_prod.core.errors import ConfigError

    with pytest.raises((BadDsn, ValueError)):
        Dsn(address)
    with pytest.raises(ConfigError) as caught:
        check_dsn(address)
    assert "hunter2" not in str(caught.value)
    check_dsn("https://key:secret@o1.ingest.example:8443/path/42")


def test_small_reports_travel_as_they_are(make_app: MakeApp, http_sink: HttpSink) -> None:
    """What fits into one packet is not compressed, what does not is; both can be read."""
    app = make_app(only=("error_tracking",), SENTRY_DSN=http_sink.dsn, SENTRY_TRACES_SAMPLE_RATE=1.0)
    app.add_url_rule("/", "index", lambda: "ok")
    app.add_url_rule("/boom", "boom", lambda: str(1 / 0))
    app.config["PROPAGATE_EXCEPTIONS"] = False
    app.test_client().get("/").close()
    app.test_client().get("/boom").close()
    wait_for(lambda: items(http_sink, "event") and len(items(http_sink, "transaction")) == 2, 10)

    told = {
        kind: {name.lower(): value for name, value in request.headers.items()}.get("content-encoding")
        for request in http_sink.requests
        for kind in ("transaction", "event")
        if f'"type":"{kind}"'.encode() in request.body[:400].replace(b" ", b"")
    }

    assert told == {"transaction": None, "event": "gzip"}
