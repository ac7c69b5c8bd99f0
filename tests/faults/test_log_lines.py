"""Logs under faults: a pipe that nobody reads, a level changed for all workers, files that are rotated."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.apps import StartGunicorn
from tests.servers import Gunicorn, Valkey, wait_for

from .load import Load

pytestmark = pytest.mark.faults

SHOP = """
import logging
from flask import Flask
from flask_prod import ProdKit

def create_app():
    app = Flask("shop")
    ProdKit(app, only=("logs", "proxy", "metrics", "redis"))

    @app.get("/")
    def home():
        logging.getLogger("shop.orders").debug("looking closely")
        return "home"

    return app
"""
TO_A_PIPE = """
import os
pipe = os.open({path!r}, os.O_WRONLY)
os.dup2(pipe, 1)
os.dup2(pipe, 2)
os.close(pipe)
from flask_prod.server.gunicorn import compose
globals().update(compose(globals()))
"""


@pytest.fixture
def pipe(tmp_path: Path) -> Iterator[tuple[Path, int]]:
    """A pipe with a reader that can forget to read."""
    path = tmp_path / "pipe"
    os.mkfifo(path)
    reader = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    yield path, reader
    os.close(reader)


def drain(reader: int) -> bytes:
    """Return what lies in the pipe."""
    content = b""
    while True:
        try:
            more = os.read(reader, 1_000_000)
        except BlockingIOError:
            return content
        if not more:
            return content
        content += more


def dropped(server: Gunicorn) -> float:
    text = server.get("/metrics").text
    return float(re.search(r"^flask_prod_log_lines_dropped_total (\S+)", text, re.MULTILINE)[1])  # type: ignore[index]


def visits(server: Gunicorn, seconds: float) -> list[float]:
    with Load(server, clients=4) as load:
        time.sleep(seconds)
    assert {visit.status for visit in load.visits} == {200}
    return sorted(visit.seconds for visit in load.visits)


def p99(seconds: list[float]) -> float:
    return seconds[int(len(seconds) * 0.99)]


def test_nobody_reads(gunicorn: StartGunicorn, pipe: tuple[Path, int]) -> None:
    """Neither requests nor gunicorn wait for a reader; what is missing is counted, and told later."""
    path, reader = pipe
    server = gunicorn(source=SHOP, config=TO_A_PIPE.format(path=str(path)), args=["-w", "2"])
    drain(reader)
    with Load(server, clients=4) as load:
        end = time.monotonic() + 3
        content = b""
        while time.monotonic() < end:
            content += drain(reader)
            time.sleep(0.005)
    read = p99(sorted(visit.seconds for visit in load.visits))
    time.sleep(0.2)
    content += drain(reader)
    unread = p99(visits(server, 3))  # the first line of each worker waits 0.1 s, once
    count = dropped(server)
    content += drain(reader)
    time.sleep(1.5)
    for _ in range(10):
        server.get("/")
    time.sleep(0.2)
    content += drain(reader)

    lines = [json.loads(line) for line in content.splitlines()]
    told = [line["fields"]["count"] for line in lines if line.get("event") == "prod.log.lines_dropped"]
    print(f"p99 {read * 1000:.1f} ms read, {unread * 1000:.1f} ms unread; {count:.0f} dropped, told {told}")
    assert count > 0
    assert sum(told) == count
    assert unread < read + 0.05
    assert lines[-1]["event"] == "request"


def test_level_reaches_all_workers(gunicorn: StartGunicorn, tmp_path: Path) -> None:
    """A level ordered by the command holds in every worker within two seconds, and ends by itself."""
    log, run = tmp_path / "log", tmp_path / "run"
    env = {"LOG_OUTPUT": str(log), "RUN_DIR": str(run), "SERVICE_NAME": "shop"}
    server = gunicorn(source=SHOP, config="python:flask_prod.server.gunicorn_conf", args=["-w", "2"], env=env)
    wait_for(lambda: (run / "log-level.lock").exists(), 5, "a leader")
    said = order(server, env, "debug", "--for", "4s")
    wait_for(lambda: closely(server, log) >= 40, 3, "forty requests in a row that are looked at closely")
    time.sleep(4)
    assert closely(server, log) == 0

    assert "follow within a second" in said
    assert "No web process" not in said
    events = [line for line in lines_of(log) if str(line.get("event")).startswith("prod.log.level")]
    assert [line["event"] for line in events] == ["prod.log.level_changed", "prod.log.level_restored"]


def test_level_reaches_another_host(gunicorn: StartGunicorn, tmp_path: Path, valkey: Valkey) -> None:
    """With a Redis a service on another host (another directory) follows within ten seconds and a bit."""
    env = {"REDIS_URL": valkey.url, "SERVICE_NAME": "shop", "RUN_DIR": str(tmp_path / "here")}
    there = {**env, "RUN_DIR": str(tmp_path / "there"), "LOG_OUTPUT": str(tmp_path / "log")}
    server = gunicorn(source=SHOP, config="python:flask_prod.server.gunicorn_conf", args=["-w", "2"], env=there)
    said = order(server, env, "debug", "--for", "1m")
    wait_for(lambda: closely(server, tmp_path / "log") >= 40, 14, "the other host to follow")

    assert "other hosts follow within ten seconds" in said


def order(server: Gunicorn, env: dict[str, str], *args: str) -> str:
    """Run `flask prod log-level` as a person at a terminal would."""
    command = [sys.executable, "-m", "flask", "--app", "app:create_app()", "prod", "log-level", *args]
    environ = {**server.env, **env}
    done = subprocess.run(command, env=environ, cwd=server.folder, capture_output=True, text=True, timeout=30)
    assert done.returncode == 0, done.stderr
    return done.stdout


def closely(server: Gunicorn, log: Path) -> int:
    """Return how many of forty requests, which all workers share, left a debug line."""

    def count() -> int:
        return sum(line.get("message") == "looking closely" for line in lines_of(log))

    before = count()
    for _ in range(40):
        server.get("/")
    time.sleep(0.05)
    return count() - before


def lines_of(log: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in log.read_bytes().splitlines()]
