"""`flask prod trace`: from a request id to all that the log says of it."""

from __future__ import annotations

import gzip
import io
import json
import logging
import os
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result
from flask import Flask
from flask.cli import ScriptInfo

from flask_prod.cli.group import prod as command
from flask_prod.components.logs import search as module
from flask_prod.components.logs.search import NotALog, Search, siblings
from flask_prod.core.record import RequestRecord, enter, leave
from tests.apps import MakeApp

ID = "0123456789abcdef0123456789abcdef"


def run(app: Flask, *args: str, stdin: bytes | None = None) -> Result:
    info = ScriptInfo(create_app=lambda: app)
    return app.test_cli_runner().invoke(command, ["trace", *args], obj=info, input=stdin)


def line(ago: float = 0.0, **more: Any) -> bytes:
    moment = (datetime.now(UTC) - timedelta(seconds=ago)).isoformat()
    content = {
        "timestamp": moment,
        "level": "info",
        "message": "hello",
        "logger": "shop",
        "request_id": ID,
        **more,
    }
    return json.dumps(content).encode() + b"\n"


def test_story(shop: Flask) -> None:
    """A failing request is told in order: its lines, stack and job, and where to look further."""

    @shop.get("/checkout")
    def checkout() -> str:
        logging.getLogger("shop.orders").info("reserving", extra={"order": 7})
        logging.getLogger("sqlalchemy.engine.Engine").warning("SELECT 1")  # INFO is off once it is imported
        return str(1 / 0)

    request_id = shop.test_client().get("/checkout").headers["X-Request-ID"]
    shop.test_client().get("/product/1").close()
    environ = {"REQUEST_METHOD": "JOB", "PATH_INFO": "/mail", "wsgi.url_scheme": "job", "SERVER_NAME": ""}
    record = RequestRecord(environ, request_id, 0.0)
    record.note(job="send_receipt", job_id="j1")
    enter(record)
    logging.getLogger("shop.mail").warning("sent")
    leave(record)
    answer = run(shop, request_id)

    assert answer.exit_code == 0, answer.output
    kinds = [row.split()[3] for row in answer.output.splitlines() if row.strip().startswith("+")]
    assert kinds == ["log", "sql", "log", "request", "job"]
    for words in ("reserving order=7", "| ZeroDivisionError: division by zero", "GET /checkout 500",
                  "[send_receipt] sent", f"request_id:{request_id}"):  # fmt: skip
        assert words in answer.output
    assert "/product/1" not in answer.output


def test_raw(shop: Flask, log_file: Path) -> None:
    """--json prints the lines as they stand in the log, in order of time."""
    later, earlier = line(1, message="second"), line(2, message="first")
    log_file.write_bytes(later + earlier)
    answer = run(shop, ID, "--json")

    assert answer.output.encode() == earlier + later


def test_by_trace_and_job(shop: Flask, log_file: Path) -> None:
    """A trace id and a job's id lead to the same lines; an id in mere text does not."""
    trace = "f" * 32
    log_file.write_bytes(
        line(trace_id=trace) + line(request_id="", message=f"talks of {trace}") + line(job_id="job-7")
    )

    assert len(run(shop, trace, "--json").output.splitlines()) == 1
    assert len(run(shop, "job-7", "--json").output.splitlines()) == 1
    assert f"search for the trace {trace}" in run(shop, trace).output


def test_rotated(shop: Flask, log_file: Path) -> None:
    """What logrotate made of the file is looked through too, compressed or not, by any of its names."""
    log_file.write_bytes(line(1, message="d"))
    Path(f"{log_file}.1").write_bytes(line(2, message="c"))
    Path(f"{log_file}.2.gz").write_bytes(gzip.compress(line(3, message="b")))
    Path(f"{log_file}-20261121.gz").write_bytes(gzip.compress(line(4, message="a")))
    Path(f"{log_file}.swp").write_bytes(line(5, message="not a log"))
    old = Path(f"{log_file}.9")
    old.write_bytes(line(6, message="too old"))
    os.utime(old, (0, 0))
    found = [json.loads(raw)["message"] for raw in run(shop, ID, "--json").output.splitlines()]

    assert found == ["a", "b", "c", "d"]


def test_since(shop: Flask, log_file: Path) -> None:
    """Six hours back unless told otherwise; older lines are hinted at."""
    log_file.write_bytes(line(7 * 3600))

    answer = run(shop, ID)
    assert answer.exit_code == 1
    assert "6 h back" in answer.output
    assert "1 older lines have it: give a longer --since" in answer.output
    assert run(shop, ID, "--since", "1d").exit_code == 0


@pytest.mark.parametrize("prefix", [b"", b"web-1  | ", b"2026-11-21T10:00:00.123Z ", b"[pod/shop-1/web] "])
def test_standard_input(make_app: MakeApp, prefix: bytes) -> None:
    """`docker logs web | flask prod trace ID -` works, whatever the tool writes before each line."""
    app = make_app(only=("logs",))
    answer = run(app, ID, "-", stdin=b"booting\n" + prefix + line(99999) + b"{broken " + ID.encode())

    assert answer.exit_code == 0, answer.output
    assert "hello" in answer.output


def test_files(make_app: MakeApp, tmp_path: Path) -> None:
    """Files are named by position or --file, and need no time limit."""
    app = make_app(only=("logs",))
    for name in ("a", "b"):
        (tmp_path / name).write_bytes(line(99999, message=name))

    answer = run(app, ID, str(tmp_path / "a"), "--file", str(tmp_path / "b"), "--json")
    assert len(answer.output.splitlines()) == 2
    missing = run(app, ID, str(tmp_path / "none"))
    assert missing.exit_code == 1
    assert "cannot be read" in missing.output


def test_where_lines_go(make_app: MakeApp) -> None:
    """Without a log file the command says how to get at the lines."""
    answer = run(make_app(only=("logs",)), ID)

    assert answer.exit_code == 1
    assert "LOG_OUTPUT is stdout" in answer.output
    assert f"| flask prod trace {ID} -" in answer.output


def test_nothing_found(shop: Flask, log_file: Path) -> None:
    """Nothing found is exit status 1; lines that are no JSON are hinted at."""
    log_file.write_text(f"10:00 INFO shop: {ID}\n")
    answer = run(shop, ID)

    assert answer.exit_code == 1
    assert "Nothing about" in answer.output
    assert "LOG_FORMAT=console" in answer.output


@pytest.mark.parametrize("wanted", ["", "abc", "a b c d", "x" * 200, "äöüß", 'a"b"c"d'])
def test_no_id(shop: Flask, wanted: str) -> None:
    """What cannot be an id is refused before anything is read."""
    assert run(shop, wanted).exit_code == 2


def test_hostile_lines(shop: Flask, log_file: Path) -> None:
    """A log written by somebody else cannot move the reader's cursor, nor break the command."""
    nasty = "\x1b[2J\r\n\x00\u2028\u202e\x9b"
    log_file.write_bytes(
        line(message=nasty, stack=nasty, logger=nasty, level=nasty, timestamp=nasty, event=nasty)
        + line(fields=[1], timestamp=5, level=None, message={"a": nasty}, trace_id=nasty, user_id=nasty)
        + line(event="request", method=nasty, path=nasty, status=nasty, service=nasty)
        + b'{"request_id": "' + ID.encode() + b'"}\n' + b"[" * 100_000 + ID.encode() + b"\n"
    )  # fmt: skip
    answer = run(shop, ID, "--since", "365d")
    stdin = run(shop, ID, "-", stdin=log_file.read_bytes())

    assert answer.exit_code == stdin.exit_code == 0, answer.output
    assert not set(stdin.output) & {"\x1b", "\r", "\x00", "\u2028", "\u202e", "\x9b"}


def test_torn_archive(tmp_path: Path) -> None:
    """A compressed file that ends early is told of, not crashed on."""
    path = tmp_path / "log.gz"
    path.write_bytes(gzip.compress(line() * 1000)[:-50])

    with pytest.raises(NotALog, match=r"log\.gz"):
        Search(ID).read_file(path)


def test_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lines that lie across the borders of what is read at once are found, each once."""
    monkeypatch.setattr(module, "_CHUNK", 97)
    lines = [line(message=str(number)) for number in range(100)]
    search = Search(ID)
    search.read(io.BytesIO(b"other\n".join(lines) + lines[3].rstrip()))

    assert [found.content["message"] for found in search.in_order()] == [str(number) for number in range(100)]


def test_many_lines(monkeypatch: pytest.MonkeyPatch, shop: Flask, log_file: Path) -> None:
    """A request that logs without end fills no memory: what is left out is said."""
    monkeypatch.setattr(module, "MOST", 50)
    log_file.write_bytes(b"".join(line(message=str(number)) for number in range(100)))
    answer = run(shop, ID, "--json")

    assert len([row for row in answer.output.splitlines() if row.startswith("{")]) == 50
    assert "Only the first" in answer.output


def test_siblings_of_nothing(tmp_path: Path) -> None:
    """A folder that is not there has no log."""
    assert list(siblings(tmp_path / "none" / "log", 0.0)) == []


def test_fast(tmp_path: Path) -> None:
    """50 MB are searched in a fraction of a second: bytes are compared, lines are not parsed."""
    path = tmp_path / "log"
    other = line(request_id="f" * 32, message="x" * 200)
    with open(path, "wb") as file:
        block = other * (1024**2 // len(other))
        for _ in range(50):
            file.write(block)
        file.write(line())
    search = Search(ID)
    began = time.perf_counter()
    search.read_file(path)

    assert len(search.lines) == 1
    assert time.perf_counter() - began < 1.0
