"""Servers without gunicorn: waitress, wsgiref and `flask run` drain on SIGTERM and close what was opened."""

from __future__ import annotations

import http.client
import os
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.servers import HOST, Server, free_port, wait_for

APP = """
import os
import signal
import time
from flask import Flask
from flask_prod import ProdKit
from flask_prod.server.plain import drain_on_sigterm

def create_app():
    app = Flask("shop")
    ProdKit(app, only=("health", "logs"))
    app.add_url_rule("/", "home", lambda: "home")
    return app

app = create_app()
PORT = int(os.environ["PORT"])
"""
WAITRESS = APP + "import waitress\ndrain_on_sigterm(app)\nwaitress.serve(app, host='127.0.0.1', port=PORT)\n"
WSGIREF = APP + (
    "from wsgiref.simple_server import make_server\n"
    "server = make_server('127.0.0.1', PORT, app)\n"
    "drain_on_sigterm(app, server.shutdown)\n"
    "server.serve_forever()\nserver.server_close()\n"
)
FLASK = APP + "drain_on_sigterm(app)\napp.run('127.0.0.1', PORT)\n"


class Plain(Server):
    """A program that serves on a port."""

    def __init__(self, source: str, seconds: str) -> None:
        super().__init__("plain")
        self.port = free_port()
        self._program = self.folder / "program.py"
        self._program.write_text(source)
        root = str(Path(__file__).parents[2])
        self._env = {**os.environ, "PORT": str(self.port), "DRAIN_SECONDS": seconds, "PYTHONPATH": root}

    def start(self) -> Plain:
        self.process.launch([sys.executable, str(self._program)], self._env, self.folder)
        wait_for(lambda: self.get("/") == (200, "home"), 20, "the first answer")
        return self

    def get(self, path: str) -> tuple[int, str]:
        connection = http.client.HTTPConnection(HOST, self.port, timeout=5)
        try:
            connection.request("GET", path)
            answer = connection.getresponse()
            return answer.status, answer.read().decode()
        except OSError:
            return 0, ""
        finally:
            connection.close()


@contextmanager
def serving(source: str, seconds: str) -> Iterator[Plain]:
    with Plain(source, seconds) as server:
        yield server


@pytest.mark.parametrize("source", [WAITRESS, WSGIREF, FLASK], ids=["waitress", "wsgiref", "flask run"])
def test_drain(source: str) -> None:
    """After SIGTERM it is not ready, serves on for DRAIN_SECONDS, ends by itself and has closed everything."""
    with serving(source, "1.5") as server:
        began = time.monotonic()
        server.process.send(signal.SIGTERM)
        wait_for(lambda: server.get("/health/ready") == (503, "draining"), 1.4, "the drain")
        assert server.get("/") == (200, "home")

        assert server.process.wait(10) == 0
        assert time.monotonic() - began >= 1.5
        assert "prod.process.closed" in server.process.stdout


def test_second_term() -> None:
    """A second SIGTERM ends the drain."""
    with serving(WAITRESS, "60") as server:
        server.process.send(signal.SIGTERM)
        wait_for(lambda: server.get("/health/ready")[0] == 503, 15, "the drain")
        server.process.send(signal.SIGTERM)

        assert server.process.wait(20) == 0
