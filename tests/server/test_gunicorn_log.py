"""gunicorn's own lines: each a JSON object, from its first to its last, whatever happens in between."""

from __future__ import annotations

import json
import os
import signal
import socket
import time
from pathlib import Path
from typing import Any

from tests.apps import StartGunicorn
from tests.servers import HOST, Gunicorn, wait_for

SHOP = """
import threading, warnings
from flask import Flask
from flask_prod import ProdKit

warnings.warn("look at me")

def create_app():
    app = Flask("shop")
    ProdKit(app, only=("logs", "proxy"))

    @app.get("/")
    def home():
        return "home"

    @app.get("/thread")
    def thread():
        one = threading.Thread(target=lambda: 1 / 0)
        one.start()
        one.join()
        return "done"

    return app
"""
CONFIG = "python:flask_prod.server.gunicorn_conf"


def lines_of(server: Gunicorn) -> list[dict[str, Any]]:
    """Return all that the server wrote to either stream; fails on anything that is not a JSON object in a line."""
    found = [json.loads(line) for line in f"{server.stdout}{server.stderr}".splitlines()]
    assert all(isinstance(line, dict) for line in found)
    return found


def says(server: Gunicorn, text: str) -> bool:
    return any(text in str(line.get("message")) for line in lines_of(server))


def send(server: Gunicorn, content: bytes) -> None:
    with socket.create_connection((HOST, server.port), 5) as connection:
        connection.sendall(content)
        connection.recv(4096)


def test_every_line(gunicorn: StartGunicorn) -> None:
    """Start, warnings, hostile requests, HUP, USR1, a killed worker, a crashed thread, TERM: all is JSON."""
    server = gunicorn(source=SHOP, config=CONFIG, args=["-w", "2"], env={"SERVICE_VERSION": "7"})
    send(server, b"\x1b[31mNONSENSE\x00 \xe2\x80\xa8\r\n\r\n")
    send(server, b"GET / HTTP/9.9\r\n\r\n")
    server.get("/thread")
    server.signal(signal.SIGUSR1)
    os.kill(server.worker_pids()[0], signal.SIGKILL)
    wait_for(lambda: says(server, "was sent SIGKILL"), 10, "the line about the killed worker")
    wait_for(lambda: len(server.worker_pids()) == 2, 10, "a worker in its place")
    old = set(server.worker_pids())
    server.signal(signal.SIGHUP)
    wait_for(lambda: says(server, "A reload was asked for"), 10, "the line about the reload")
    wait_for(lambda: len(server.worker_pids()) == 2 and not old & set(server.worker_pids()), 20, "new workers")
    server.get("/")
    server.term()
    assert server.wait() == 0

    found = lines_of(server)
    told = " ".join(str(line.get("message")) for line in found)
    for words in ("Listening at", "Booting worker", "Invalid request", "look at me", "Shutting down: Master"):
        assert words in told
    (crash,) = (line for line in found if line.get("error") == "ZeroDivisionError")
    assert crash["logger"] == "uncaught"
    assert {line["version"] for line in found} == {"7"}
    assert {line["service"] for line in found} == {
        "app",
        "shop",
    }  # the module, until the application says its name


def test_hung_worker(gunicorn: StartGunicorn) -> None:
    """A worker that is killed because it hangs is told of in the same form."""
    source = SHOP.replace('return "home"', "import time; time.sleep(60)")
    server = gunicorn(
        source=source, config=CONFIG, args=["-w", "1", "-k", "sync", "--threads", "1", "-t", "2"], ready="/none"
    )
    with socket.create_connection((HOST, server.port), 5) as connection:
        connection.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        wait_for(lambda: says(server, "WORKER TIMEOUT"), 15, "the timeout")
    server.stop()

    assert any(line["level"] == "critical" for line in lines_of(server))


def test_console(gunicorn: StartGunicorn) -> None:
    """LOG_FORMAT=console holds for gunicorn's lines too."""
    server = gunicorn(source=SHOP, config=CONFIG, args=["-w", "1"], env={"LOG_FORMAT": "console"})
    server.stop()

    rows = server.stderr.splitlines()
    assert any("INFO     gunicorn.error: Listening at" in row for row in rows)
    assert not any(row.startswith(("{", "[")) for row in rows)


def test_access_log(gunicorn: StartGunicorn) -> None:
    """gunicorn's own access log, for who wants it beside ours, is JSON as well."""
    server = gunicorn(source=SHOP, config=CONFIG, args=["-w", "1", "--access-logfile", "-"])
    server.stop()

    assert any(line.get("logger") == "gunicorn.access" for line in lines_of(server))


def test_rotation_by_signal(gunicorn: StartGunicorn, tmp_path: Path) -> None:
    """After logrotate moved the file and sent USR1, all workers write to the new one, the old one is complete."""
    log, moved = tmp_path / "shop.log", tmp_path / "shop.log.1"
    server = gunicorn(source=SHOP, config=CONFIG, args=["-w", "2"], env={"LOG_OUTPUT": str(log)})
    for _ in range(20):
        server.get("/")
    log.rename(moved)
    server.signal(signal.SIGUSR1)
    wait_for(lambda: not _holders(server, moved), 15, "every worker to let go of the old file")
    for _ in range(20):
        server.get("/")
    wait_for(lambda: len(log.read_bytes().splitlines()) >= 20, 15, "twenty lines in the new file")
    server.stop()

    lines = [json.loads(line) for path in (moved, log) for line in path.read_bytes().splitlines()]
    assert len([line for line in lines if line.get("event") == "request"]) >= 41


def _holders(server: Gunicorn, path: Path) -> list[int]:
    """Return the workers that have *path* open."""
    found = []
    for pid in server.worker_pids():
        names = [os.readlink(link) for link in Path(f"/proc/{pid}/fd").iterdir() if link.is_symlink()]
        found += [pid] if str(path) in names else []
    time.sleep(0.05)
    return found
