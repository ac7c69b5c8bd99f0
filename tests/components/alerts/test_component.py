"""The room in an application, and behind gunicorn."""

from __future__ import annotations

import json
import logging
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

import pytest

from flask_prod import ConfigError
from tests.apps import MakeApp, StartGunicorn
from tests.servers import Gunicorn, HttpSink, wait_for

# One of apprise's plugins imports a module that Python 3.13 no longer has.
pytestmark = pytest.mark.filterwarnings("ignore:'imghdr' is deprecated:DeprecationWarning")

MODULE = "python:flask_prod.server.gunicorn_conf"
SHOP = """
from flask import Flask
from flask_prod import ProdKit

app = Flask("shop")
ProdKit(app)

@app.get("/boom")
def boom():
    return str(1 / 0)
"""
ENVIRON = {
    "WEB_CONCURRENCY": "2", "WEB_THREADS": "2", "ENVIRONMENT": "production", "SECURITY_FORCE_HTTPS": "false",
    "LOG_OUTPUT": os.devnull,
}  # fmt: skip

Serve = Callable[..., Gunicorn]


@pytest.fixture
def serve(gunicorn: StartGunicorn, http_sink: HttpSink) -> Serve:
    """Give a factory of services that alert to the sink."""

    def start(**env: str) -> Gunicorn:
        channel = f"json://127.0.0.1:{http_sink.port}/?cto=1&rto=1"
        own = {**ENVIRON, "ALERTS_CHANNELS": channel, **env}
        server = gunicorn("app:app", source=SHOP, config=MODULE, env=own, ready="/health/live")
        wait_for(lambda: len(server.worker_pids()) == 2, 10, "both workers")
        return server

    return start


def messages(sink: HttpSink) -> list[Any]:
    return [json.loads(request.body) for request in tuple(sink.requests)]


def boom(server: Gunicorn, times: int) -> None:
    for _ in range(times):
        assert server.get("/boom").status == 500


def leader(server: Gunicorn, folder: str) -> int:
    """Return the worker that holds the lock."""
    path = os.path.join(folder, "alerts.lock")
    for pid in server.worker_pids():
        for number in os.listdir(f"/proc/{pid}/fd"):
            try:
                if os.readlink(f"/proc/{pid}/fd/{number}") == path:
                    return pid
            except OSError:
                continue
    raise LookupError("nobody leads")


def test_two_workers(serve: Serve, http_sink: HttpSink, tmp_path_factory: pytest.TempPathFactory) -> None:
    """Failures spread over two workers are one alert; the worker that takes over does not tell it again."""
    folder = str(tmp_path_factory.mktemp("run"))
    server = serve(ALERTS_ERROR_RATE="10", RUN_DIR=folder)
    boom(server, 14)
    (received,) = http_sink.wait_for(1, 8)
    told = json.loads(received.body)

    os.kill(leader(server, folder), signal.SIGKILL)
    wait_for(lambda: len(server.worker_pids()) == 2, 10, "a new worker")
    time.sleep(3)
    boom(server, 30)
    time.sleep(4)

    assert len(messages(http_sink)) == 1
    assert "requests a minute fail" in told["title"]
    assert "/boom: ZeroDivisionError" in told["message"]


def test_rate_below_the_limit(serve: Serve, http_sink: HttpSink) -> None:
    """Fewer failures than the limit alert nobody, and the gauge tells how many there are."""
    server = serve(ALERTS_ERROR_RATE="10")
    boom(server, 6)
    wait_for(
        lambda: "flask_prod_error_rate_per_minute 6.0" in server.get("/metrics").body.decode(), 6, "the gauge"
    )

    assert messages(http_sink) == []


def test_hanging_channel(serve: Serve, http_sink: HttpSink) -> None:
    """A channel that hangs delays no request, and the exit by two seconds at most."""
    http_sink.mode = "hang"
    server = serve(ALERTS_ERROR_RATE="5")
    boom(server, 10)
    http_sink.wait_for(1, 8)
    began = time.monotonic()
    boom(server, 50)
    took = time.monotonic() - began
    began = time.monotonic()
    server.term()
    server.wait(10)

    assert took < 3
    assert time.monotonic() - began < 2.5


def test_nothing_imported() -> None:
    """Without channels nothing is imported, and nothing runs."""
    code = (
        "import sys; from flask import Flask; from flask_prod import ProdKit; app = Flask('shop')\n"
        "ProdKit(app, only=('alerts',)); app.test_client().get('/')\n"
        "found = app.extensions['prod'].contributions['alerts']\n"
        "assert (found.observe, found.on_event, found.periodic) == (None, None, ())\n"
        "assert 'apprise' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_missing_library(make_app: MakeApp, monkeypatch: pytest.MonkeyPatch) -> None:
    """With channels but without apprise the start says what to install."""
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)

    with pytest.raises(ConfigError, match=r"flask-prod\[alerts\]"):
        make_app(only=("alerts",), ALERTS_CHANNELS=["json://127.0.0.1:1"])


def test_bad_address(make_app: MakeApp) -> None:
    """What is no address is refused by its place, without being shown."""
    with pytest.raises(ConfigError, match="which number 2 is not") as caught:
        make_app(only=("alerts",), ALERTS_CHANNELS=["json://127.0.0.1:1", "hun ter2://hunter2"])

    assert "hunter2" not in str(caught.value)


def test_addresses(make_app: MakeApp) -> None:
    """Addresses are a list, or separated by commas; commas of their own are kept."""
    app = make_app(only=("alerts",), ALERTS_CHANNELS="mailto://a:b@c.example?to=x,y@z.example, slack://t/u/v")
    channels = app.extensions["prod"].contributions["alerts"].handle.sender.channels

    assert [channel.shown.partition(" ")[0] for channel in channels] == ["mailto", "slack"]


def test_command(make_app: MakeApp, http_sink: HttpSink) -> None:
    """`flask prod alerts test` sends by every channel, and says which did not take it, without its secrets."""
    good = f"json://127.0.0.1:{http_sink.port}/"
    app = make_app(only=("alerts",), ALERTS_CHANNELS=[good, "json://user:hunter2@127.0.0.1:1/?cto=1&rto=1"])
    (command,) = app.extensions["prod"].contributions["alerts"].commands

    result = app.test_cli_runner().invoke(command, ["test"])

    lines = result.output.splitlines()
    assert result.exit_code == 1
    assert [line.partition(": ")[2] for line in lines] == ["sent", "the channel did not take it"]
    assert "hunter2" not in result.output
    assert messages(http_sink)[0]["title"] == "[shop test] Test"


def test_addresses_stay_out_of_the_log(
    make_app: MakeApp, http_sink: HttpSink, caplog: pytest.LogCaptureFixture
) -> None:
    """At the level DEBUG too the libraries' lines are left out: a path such as Slack's is a token."""
    caplog.set_level(logging.DEBUG)
    app = make_app(
        only=("alerts",), ALERTS_CHANNELS=f"json://127.0.0.1:{http_sink.port}/canary/path,nonsense://canary/path"
    )
    command = app.extensions["prod"].contributions["alerts"].commands[0]

    result = app.test_cli_runner().invoke(command, ["test"])

    assert http_sink.requests[0].path.startswith("/canary/path")
    assert result.exit_code == 1
    assert "canary" not in result.output + caplog.text


def test_command_without_channels(make_app: MakeApp) -> None:
    """Without channels the command says so."""
    (command,) = make_app(only=("alerts",)).extensions["prod"].contributions["alerts"].commands

    assert "There are no ALERTS_CHANNELS." in make_app(only=()).test_cli_runner().invoke(command, ["test"]).output
