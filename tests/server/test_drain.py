"""Real gunicorn, real SIGTERM: ready no more, serving still, then gone in time."""

from __future__ import annotations

import os
import signal
import threading
import time

from tests.apps import StartGunicorn
from tests.servers import Answer, Gunicorn, wait_for

MODULE = "python:flask_prod.server.gunicorn_conf"

SHOP = """
import os
import time

from flask import Flask
from flask_prod import ProdKit


def create_app():
    app = Flask("shop")
    ProdKit(app, only=("health", "logs"))

    @app.get("/")
    def home():
        return str(os.getpid())

    @app.get("/slow")
    def slow():
        time.sleep(1.5)
        return "whole"

    return app
"""


def draining(server: Gunicorn) -> bool:
    answer = server.get("/health/ready")
    return answer.status == 503 and answer.text == "draining"


def started(gunicorn: StartGunicorn, seconds: str, *args: str) -> Gunicorn:
    return gunicorn(source=SHOP, config=MODULE, args=["-w", "2", *args], env={"DRAIN_SECONDS": seconds})


def test_drain(gunicorn: StartGunicorn) -> None:
    """After SIGTERM no worker is ready, all serve and close connections; what began late is still answered."""
    server = started(gunicorn, "3")
    assert server.get("/").headers["Connection"] == "keep-alive"

    server.term()
    began = time.monotonic()
    wait_for(lambda: draining(server), 2.5, "the drain")
    assert all(draining(server) for _ in range(10))  # whichever worker answers
    answer = server.get("/")
    assert (answer.status, answer.headers["Connection"]) == (200, "close")
    assert server.get("/health/live").status == 200
    late: list[Answer] = []
    asking = threading.Thread(target=lambda: late.append(server.get("/slow")))
    asking.start()

    assert server.wait(10) == 0
    asking.join()
    assert late[0].text == "whole"
    assert 3 <= time.monotonic() - began < 20


def test_second_term_ends_the_drain(gunicorn: StartGunicorn) -> None:
    """Who cannot wait sends SIGTERM again: requests under way end, the drain does not."""
    server = started(gunicorn, "30")

    server.term()
    wait_for(lambda: draining(server), 15, "the drain")
    began = time.monotonic()
    server.term()

    assert server.wait(10) == 0
    assert time.monotonic() - began < 15


def test_third_term_ends_the_stop(gunicorn: StartGunicorn) -> None:
    """A third SIGTERM does not wait for requests under way either."""
    server = gunicorn(
        source=SHOP.replace("1.5", "60"),
        config=MODULE,
        args=["-w", "1", "-k", "sync"],
        env={"DRAIN_SECONDS": "30"},
    )
    threading.Thread(target=lambda: _ignore(server), daemon=True).start()
    time.sleep(0.3)

    for _ in range(3):
        server.term()
        time.sleep(0.3)

    assert server.wait(15) == 0


def test_killed_worker_returns_draining(gunicorn: StartGunicorn) -> None:
    """A worker that is born during the drain says so too."""
    server = started(gunicorn, "30")
    server.term()
    wait_for(lambda: draining(server), 15, "the drain")
    old = server.worker_pids()
    os.kill(old[0], signal.SIGKILL)
    wait_for(lambda: len(server.worker_pids()) == 2 and server.worker_pids() != old, 15, "its successor")

    assert all(draining(server) for _ in range(10))
    server.term()
    assert server.wait(10) == 0


def _ignore(server: Gunicorn) -> None:
    try:
        server.get("/slow", timeout=10)
    except OSError:
        return
