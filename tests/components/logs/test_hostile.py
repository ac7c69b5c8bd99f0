"""One event is one line, whatever bytes come in by path, header, user, exception or job name."""

from __future__ import annotations

import json
import logging
import random
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from flask import Flask, Response, request
from werkzeug.test import create_environ

from flask_prod.core.record import RequestRecord, current_record, enter, leave
from tests.apps import MakeApp
from tests.faults.load import SHORT

NASTY = [
    "\r\n", "\n", "\r", "\x1b[2J", "\x1b]0;title\x07", "\x00", "\x08", "\x7f", "\x85", "\x9b31m",
    "\u2028", "\u2029", "\u202e", "\u200b", "\ufeff", "\ud800", "\udfff", "\U000e0041", "\ufffe", '"', "\\",
    "\\u000a", '"}\n{"level":"info"}', "%s%n", "{}", "é", "漢", "a", " ", "\t", "<script>",
    "' OR 1=1", "\N{SKULL}",
]  # fmt: skip
CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\u202e\u200b\ufeff\ud800-\udfff\U000e0041]")


def hostile(count: int) -> list[str]:
    """Return strings that are the same in every run; each hundredth is a megabyte long."""
    chance = random.Random(45)
    made = ["".join(chance.choices(NASTY, k=12)) for _ in range(count)]
    return [text * (1_000_000 // len(text)) if number % 100 == 99 else text for number, text in enumerate(made)]


@pytest.fixture(autouse=True)
def nothing_captured() -> Iterator[None]:
    """Keep pytest from keeping all that is logged: it would be some hundred megabytes."""
    handlers = [(handler, handler.level) for handler in logging.getLogger().handlers]
    for handler, _ in handlers:
        handler.setLevel(logging.CRITICAL)
    yield
    for handler, level in handlers:
        handler.setLevel(level)


def shop(make_app: MakeApp, **config: Any) -> Flask:
    app = make_app(
        only=("logs", "proxy"), LOG_LEVEL="INFO", TRUSTED_PROXIES=1, PROPAGATE_EXCEPTIONS=False, **config
    )

    @app.route("/", defaults={"rest": ""}, methods=["GET", "POST"])
    @app.route("/<path:rest>", methods=["GET", "POST"])
    def crash(rest: str) -> Response:
        record = current_record()
        assert record is not None
        record.user_id = request.environ["hostile"]
        raise type(rest.replace("\0", "") or "Empty", (ValueError,), {})(request.environ["hostile"])

    return app


def serve(app: Flask, environ: dict[str, Any]) -> int:
    """Serve a request as a server does, and return its status; werkzeug's client takes seconds for a megabyte."""
    begun: list[str] = []

    def begin(status: str, headers: object, exc_info: object = None) -> Callable[[bytes], object]:
        begun.append(status)
        return lambda chunk: None

    body: Any = app(environ, begin)
    for _ in body:
        pass
    body.close()
    return int(begun[-1][:3])


def attack(app: Flask, text: str) -> int:
    """Let *text* come in by every way there is; return how many events that makes."""
    latin = text.encode("utf-8", "surrogatepass").decode("latin-1")
    headers = {f"HTTP_{name}": latin for name in ("X_REQUEST_ID", "USER_AGENT", "X_FORWARDED_FOR", "COOKIE")}
    environ = {"PATH_INFO": f"/{latin}", "hostile": text, "QUERY_STRING": latin, "REMOTE_ADDR": text, **headers}
    crashed = serve(app, create_environ() | environ) == 500  # no route has a line break in it

    job = {"REQUEST_METHOD": "JOB", "PATH_INFO": "/", "wsgi.url_scheme": "job", "SERVER_NAME": ""}
    record = RequestRecord(job, "0" * 32, 0.0)
    record.note(job=text, job_id=text)
    enter(record)
    logging.getLogger("shop.jobs").warning("Job %s failed", text, extra={"job": text, "deep": [{text: (text,)}]})
    leave(record)
    logging.getLogger(text).error(text)
    return 4 if crashed else 3


MANY = 1_000 if SHORT else 10_000
SIZES = [pytest.param(300, id="few"), pytest.param(MANY, id="many", marks=pytest.mark.faults)]


@pytest.mark.parametrize("count", SIZES)
def test_json(make_app: MakeApp, tmp_path: Path, count: int) -> None:
    """As many lines as events, each valid JSON, and no control byte anywhere."""
    log = tmp_path / "log"
    app = shop(make_app, LOG_OUTPUT=str(log))
    events = sum(attack(app, text) for text in hostile(count))

    rows = log.read_bytes().split(b"\n")
    assert rows.pop() == b""
    assert len(rows) == events
    for row in rows:
        assert CONTROL.search(row.decode()) is None
        assert json.loads(row)["service"] == "shop"
    assert max(map(len, rows)) < 300_000


@pytest.mark.parametrize("count", SIZES)
def test_console(make_app: MakeApp, tmp_path: Path, count: int) -> None:
    """The form for people holds to the same: one line for each event, stacks indented below."""
    log = tmp_path / "log"
    app = shop(make_app, LOG_OUTPUT=str(log), LOG_FORMAT="console")
    events = sum(attack(app, text) for text in hostile(count))

    rows = log.read_bytes().decode().split("\n")
    assert rows.pop() == ""
    assert len([row for row in rows if not row.startswith("    | ")]) == events
    for row in rows:
        assert CONTROL.search(row) is None
