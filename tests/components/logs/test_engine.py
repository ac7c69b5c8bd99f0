"""What a line holds, and what never stands in one."""

from __future__ import annotations

import logging
import random
import re
import time
from pathlib import Path
from typing import Any

import pytest
from flask import Flask, Response, request

from flask_prod import ProdKit
from flask_prod.core.component import Event
from flask_prod.core.record import current_record
from tests.apps import MakeApp

from .conftest import Lines, boom


def test_request_line(shop: Flask, lines: Lines) -> None:
    """A request leaves one line with everything that is known of it."""
    answer = shop.test_client().get("/product/7?page=2", headers={"User-Agent": "browser"})
    assert answer.data == b"product 7"
    answer.close()

    (line,) = lines("request")
    moment, duration = line.pop("timestamp"), line.pop("duration_ms")
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z", moment)
    assert 0 < duration < 1000
    assert line == {
        "level": "info", "event": "request", "service": "shop", "version": "1.2", "environment": "test",
        "request_id": answer.headers["X-Request-ID"], "method": "GET", "route": "/product/<int:number>",
        "path": "/product/7", "status": 200, "bytes": 9, "client": "127.0.0.1", "outcome": "ok",
    }  # fmt: skip


def test_crash(shop: Flask, lines: Lines) -> None:
    """A crash is an error line with class and place, beside the one with the stack; both know the request."""
    answer = shop.test_client().get("/boom")
    answer.close()

    stack, line = lines()
    assert (line["level"], line["status"], line["error"]) == ("error", 500, "ZeroDivisionError")
    assert re.fullmatch(r"logs/conftest\.py:\d+ in boom", line["error_at"])
    assert stack["error"] == "ZeroDivisionError"
    assert "Traceback" in stack["stack"]
    assert stack["request_id"] == line["request_id"] == answer.headers["X-Request-ID"]


def test_catch_all_handler(shop: Flask, lines: Lines) -> None:
    """A crash that the application's own handler answered keeps its class in the line."""
    shop.register_error_handler(Exception, lambda error: ("sorry", 500))
    shop.test_client().get("/boom").close()

    (line,) = lines()
    assert (line["event"], line["error"]) == ("request", "ZeroDivisionError")


def test_user_and_notes(shop: Flask, lines: Lines) -> None:
    """Who asked, and what the view noted, stand in the line; secrets among the notes do not."""

    @shop.get("/pay")
    def pay() -> str:
        record = current_record()
        assert record is not None
        record.user_id = "7"
        record.note(order="A1", card={"number": "4242424242424242", "cvv": 123})
        logging.getLogger("shop.orders").info("paying")
        return ""

    shop.test_client().get("/pay").close()

    said, line = lines()
    assert line["user_id"] == said["user_id"] == "7"
    assert line["fields"] == {"order": "A1", "card": "[redacted]"}


def test_slow_request(make_app: MakeApp, log_file: Path, lines: Lines) -> None:
    """A request slower than LOG_SLOW_REQUEST is a warning that says so."""
    app = make_app(only=("logs",), LOG_OUTPUT=str(log_file), LOG_SLOW_REQUEST="10ms")

    @app.get("/")
    def home() -> str:
        time.sleep(0.02)
        return "home"

    app.test_client().get("/").close()

    (line,) = lines("request")
    assert (line["level"], line["slow"]) == ("warning", True)


@pytest.mark.parametrize(("level", "count"), [("INFO", 0), ("debug", 1)])
def test_probes(make_app: MakeApp, log_file: Path, lines: Lines, level: str, count: int) -> None:
    """Probes and scrapes are only logged at DEBUG."""
    app = make_app(only=("logs", "metrics"), LOG_OUTPUT=str(log_file), LOG_LEVEL=level)

    app.test_client().get("/metrics").close()

    assert len(lines("request")) == count


def test_secret_in_path(shop: Flask, lines: Lines) -> None:
    """A path whose route takes a secret is logged as its route, and one that matched nothing without secrets."""
    shop.add_url_rule("/reset/<token>", "reset", lambda token: "ok")

    shop.test_client().get("/reset/hunter2").close()
    shop.test_client().get("/old/password=hunter2").close()

    assert [line["path"] for line in lines("request")] == ["/reset/<token>", "/old/password=[redacted]"]


def test_events(shop: Flask, lines: Lines) -> None:
    """Events of the rooms are lines with their dotted name."""
    take = shop.extensions["prod"].contributions["logs"].on_event
    take(Event("prod.breaker.opened", "Redis is away.", severity="error", fields={"host": "h", "password": "x"}))
    take(Event("prod.cache.hit", "Not worth a line.", severity="debug"))

    (line,) = lines()
    assert (line["event"], line["level"], line["message"]) == ("prod.breaker.opened", "error", "Redis is away.")
    assert line["fields"] == {"host": "h", "password": "[redacted]"}


def test_secrets(shop: Flask, lines: Lines, log_file: Path) -> None:
    """Secrets stay out of messages, fields and stacks, by name, and by value if the request sent them."""

    @shop.get("/leak")
    def leak() -> str:
        logging.getLogger("shop").warning("password=%s", "hunter2-a", extra={"api_key": "hunter2-b"})
        raise ValueError("cannot use hunter2-header of redis://:hunter2-c@host")

    shop.test_client().get("/leak?token=hunter2-q", headers={"Authorization": "Bearer hunter2-header"}).close()

    assert len(lines()) == 3
    assert b"hunter2-a" not in log_file.read_bytes()
    assert "hunter2-" not in log_file.read_text().replace('raise ValueError(\\"cannot use hunter2-header', "")


def test_secrets_of_variables(shop: Flask, lines: Lines, log_file: Path) -> None:
    """What a variable holds under a secret's name does not stand in the exception's text either."""

    @shop.post("/sign-in")
    def sign_in() -> str:
        form = request.form.to_dict()
        raise LookupError(f"nobody has {form['password']}")

    shop.test_client().post("/sign-in", data={"password": "hunter2-form"}).close()

    assert "nobody has [redacted]" in lines()[0]["stack"]
    assert "hunter2" not in log_file.read_text()


def test_secrets_of_the_service(shop: Flask, lines: Lines) -> None:
    """What the service itself keeps secret is starred out of a stack, also where no name gives it away."""
    shop.config["PAYMENT_API_KEY"] = "zq7xk2l9mz"

    @shop.get("/pay")
    def pay() -> str:
        raise ValueError(f"refused with {shop.config['PAYMENT_API_KEY']}")

    shop.test_client().get("/pay").close()

    assert "refused with [redacted]" in lines()[0]["stack"]


def test_console(make_app: MakeApp, log_file: Path) -> None:
    """The console form is one readable line, of an error with the id of its page; a stack follows indented."""
    app = make_app(only=("logs",), LOG_OUTPUT=str(log_file), LOG_LEVEL="INFO", LOG_FORMAT="console",
                   PROPAGATE_EXCEPTIONS=False)  # fmt: skip
    app.add_url_rule("/boom", "boom", boom)
    hostile = "/none\x1b[31m\u2028\nx".encode().decode("latin-1")
    app.test_client().open("/", environ_overrides={"PATH_INFO": hostile}).close()
    failed = app.test_client().get("/boom")

    rows = log_file.read_text().splitlines()
    assert re.fullmatch(r"\d\d:\d\d:\d\d\.\d{3} INFO     GET /none\\x1b\[31m\\u2028\\nx 404 \S+ms \d+B", rows[0])
    assert all(row.startswith("    | ") for row in rows[2:-1])
    assert rows[-1].split(" ")[1] == "ERROR"
    assert all(row.endswith(f" request_id={failed.headers['X-Request-ID']}") for row in (rows[1], rows[-1]))


def test_one_event_is_one_line(shop: Flask, lines: Lines, log_file: Path) -> None:
    """Whatever bytes come in: as many lines as events, each valid JSON, and not one control byte."""
    chance = random.Random(45)
    hostile = [
        "\r\n",
        "\x1b[2J",
        "\x00",
        "\u2028",
        "\u202e",
        "\x7f",
        "\x9b",
        "\ud800",
        "\x85",
        '"}',
        "\\",
        "\ufeff",
        "é",
    ]
    shop.add_url_rule("/echo/<path:rest>", "echo", lambda rest: Response(""))
    logger = logging.getLogger("shop")

    for _ in range(500):
        text = "".join(chance.choices([*hostile, "a", " "], k=12))
        path = text.encode("utf-8", "surrogatepass").decode("latin-1")
        environ: dict[str, Any] = {"PATH_INFO": f"/echo/{path}", "REMOTE_ADDR": text}
        shop.test_client().open("/", environ_overrides=environ, method="GET").close()
        logger.info(text, extra={text: {text: [text]}})
        try:
            raise ValueError(text)
        except ValueError:
            logger.exception("failed %s", text)
    logger.info("x" * 1_000_000)

    content = log_file.read_bytes()
    assert len(lines()) == 1501
    assert re.search(rb"[\x00-\x09\x0b-\x1f\x7f]", content) is None
    assert re.search("[\x7f-\x9f\u2028\u2029\u202e\ufeff]", content.decode()) is None
    assert max(map(len, content.splitlines())) < 50_000


def test_message_with_wrong_arguments(shop: Flask, lines: Lines) -> None:
    """A message whose arguments do not fit is logged all the same."""
    record = logging.makeLogRecord({"msg": "%d items", "args": ("many",), "levelno": 30})
    shop.extensions["prod"].contributions["logs"].handle.write_record(record)

    assert lines()[0]["message"] == "%d items ('many',)"


def test_prod_log(make_app: MakeApp, log_file: Path, lines: Lines, caplog: pytest.LogCaptureFixture) -> None:
    """`prod.log` is a logger of the service that takes fields by keyword; pytest sees its lines too."""
    kit = ProdKit(only=("logs",))
    log: Any = kit.get("logs")
    app = make_app(kit=kit, LOG_OUTPUT=str(log_file), LOG_LEVEL="INFO")

    with app.app_context():
        log.info("order %s placed", "A1", total=9.9, name="Ada", password="x")
    log.warning("outside")

    first, second = lines()
    assert (first["logger"], first["message"]) == ("shop", "order A1 placed")
    assert first["fields"] == {"total": 9.9, "name": "Ada", "password": "[redacted]"}
    assert (second["logger"], second["level"]) == ("app", "warning")
    assert caplog.messages == ["order A1 placed", "outside"]
