"""Python's logging: no line twice, none lost, and all as before at the end."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from flask import Flask
from flask.logging import default_handler

from flask_prod.components.logs.bridge import RootHandler
from tests.apps import MakeApp

from .conftest import Lines


def close(app: Flask) -> None:
    app.extensions["prod"].lifecycle.close()


def test_no_line_twice(make_app: MakeApp, log_file: Path, lines: Lines, capfd: pytest.CaptureFixture[str]) -> None:
    """Ten applications made one after the other write a line once, and nothing of Python's own goes to stderr."""
    apps = [make_app(only=("logs",), LOG_OUTPUT=str(log_file)) for _ in range(10)]

    apps[-1].logger.warning("once")
    logging.getLogger("library").warning("once too")

    assert [line["message"] for line in lines()] == ["once", "once too"]
    assert capfd.readouterr() == ("", "")


def test_lines_go_home(make_app: MakeApp, tmp_path: Path) -> None:
    """Each application's lines go to its own output, at its own level."""
    first = make_app(only=("logs",), LOG_OUTPUT=str(tmp_path / "first"), LOG_LEVEL="ERROR")
    second = make_app(only=("logs",), LOG_OUTPUT=str(tmp_path / "second"), LOG_LEVEL="INFO")

    for app in (first, second):
        with app.app_context():
            logging.getLogger("shop").info("info")
            logging.getLogger("shop").error("error")

    assert len((tmp_path / "first").read_text().splitlines()) == 1
    assert len((tmp_path / "second").read_text().splitlines()) == 2


def test_flask_handler(tmp_path: Path, make_app: MakeApp) -> None:
    """Flask's default handler is not there beside ours, even if the logger was used before."""
    app = make_app(only=("logs",), LOG_OUTPUT=str(tmp_path / "log"))

    assert default_handler not in app.logger.handlers


def test_basic_config(make_app: MakeApp, log_file: Path, lines: Lines, capfd: pytest.CaptureFixture[str]) -> None:
    """The handler of logging.basicConfig is replaced while an application logs, and comes back."""
    plain = logging.StreamHandler(sys.stderr)
    root = logging.getLogger()
    root.addHandler(plain)
    try:
        app = make_app(only=("logs",), LOG_OUTPUT=str(log_file))
        app.logger.warning("once")
        close(app)
        assert plain in root.handlers
    finally:
        root.removeHandler(plain)

    assert len(lines()) == 1
    assert capfd.readouterr().err == ""


def test_as_before(make_app: MakeApp, log_file: Path) -> None:
    """The last application to close leaves level and handlers as they were."""
    root = logging.getLogger()
    before = root.level, root.handlers[:]
    apps = [make_app(only=("logs",), LOG_OUTPUT=str(log_file), LOG_LEVEL="DEBUG") for _ in range(2)]
    assert root.level == logging.DEBUG

    close(apps[0])
    assert any(isinstance(handler, RootHandler) for handler in root.handlers)
    close(apps[1])

    assert (root.level, root.handlers) == before


def test_caplog(make_app: MakeApp, log_file: Path, caplog: pytest.LogCaptureFixture) -> None:
    """pytest's caplog sees what the application logs."""
    app = make_app(only=("logs",), LOG_OUTPUT=str(log_file))

    with caplog.at_level(logging.INFO):
        app.logger.info("seen")

    assert caplog.messages == ["seen"]


def test_werkzeug(make_app: MakeApp, log_file: Path, lines: Lines) -> None:
    """The development server's request lines are ours alone; its other lines stay."""
    make_app(only=("logs",), LOG_OUTPUT=str(log_file), LOG_LEVEL="INFO")
    werkzeug = logging.getLogger("werkzeug")

    werkzeug.info('%s - - [%s] "GET / HTTP/1.1" 200 -', "127.0.0.1", "now")
    werkzeug.warning(" * Running")

    assert [line["message"] for line in lines()] == [" * Running"]


def test_gunicorn_lines(make_app: MakeApp, log_file: Path) -> None:
    """The lines of gunicorn's own logger take our form while an application logs."""
    server = logging.getLogger("gunicorn.error")
    handler = logging.StreamHandler(sys.stderr)
    server.addHandler(handler)
    try:
        app = make_app(only=("logs",), LOG_OUTPUT=str(log_file))
        text = handler.format(logging.makeLogRecord({"msg": "booting", "name": "gunicorn.error"}))
        close(app)
        assert handler.formatter is None
    finally:
        server.removeHandler(handler)

    assert text.startswith('{"timestamp":')
    assert '"logger":"gunicorn.error"' in text


def test_stream_that_breaks(make_app: MakeApp, log_file: Path, lines: Lines) -> None:
    """The stack of a stream that broke is in the log once, with the id; the server's line is left out."""
    server = logging.getLogger("gunicorn.error")
    app = make_app(only=("logs",), LOG_OUTPUT=str(log_file))

    @app.get("/export")
    def export() -> Iterator[str]:
        yield "some"
        raise RuntimeError("mid-stream")

    with app.test_client().get("/export") as answer, pytest.raises(RuntimeError) as raised:
        answer.get_data()
    server.error("Error handling request", exc_info=raised.value)
    server.error("Error handling request", exc_info=RuntimeError("of another request"))

    broken, request, other = lines()
    assert (broken["message"], broken["request_id"]) == (
        "GET /export was broken off by RuntimeError", request["request_id"]
    )  # fmt: skip
    assert "mid-stream" in broken["stack"]
    assert (request["outcome"], request["error"]) == ("crashed", "RuntimeError")
    assert "of another request" in other["stack"]
    close(app)
    assert not server.filters
