"""A scrape on a port of its own: who has it, who gets it next, and whom it answers."""

from __future__ import annotations

import http.client
import os
import signal
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from flask_prod.components.metrics.port import OwnPort
from flask_prod.core.errors import ConfigError
from flask_prod.core.run_dir import Leader
from tests.apps import MakeApp, StartGunicorn
from tests.servers import HOST, free_port, wait_for

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIEnvironment

SHOP = """
from flask import Flask
from flask_prod import ProdKit

def create_app():
    app = Flask("shop")
    app.config["ENVIRONMENT"] = "test"
    app.add_url_rule("/", "home", lambda: "home")
    ProdKit(app, only=("metrics",))
    return app
"""


def hello(environ: WSGIEnvironment, start_response: StartResponse) -> list[bytes]:
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [environ["PATH_INFO"].encode()]


def ask(port: int, path: str = "/metrics", headers: dict[str, str] | None = None) -> tuple[int, str]:
    """Return status and text; 0 when nobody listens."""
    connection = http.client.HTTPConnection(HOST, port, timeout=5)
    try:
        connection.request("GET", path, headers=headers or {})
        answer = connection.getresponse()
        return answer.status, answer.read().decode()
    except OSError:
        return 0, ""
    finally:
        connection.close()


OpenPort = Callable[[], OwnPort]


@pytest.fixture
def open_port(tmp_path: Path) -> Iterator[OpenPort]:
    """Give competitors for one port, each as a process of its own would be."""
    made: list[OwnPort] = []
    port = free_port()

    def build() -> OwnPort:
        own = OwnPort((HOST, port), hello, Leader(tmp_path, "port"), lambda error: None)
        made.append(own)
        return own

    yield build
    for own in made:
        own.close()


def test_one_has_it(open_port: OpenPort) -> None:
    """One of two has the port; when it ends, the other takes it at its next attempt."""
    first, second = open_port(), open_port()
    first.take()
    second.take()
    assert ask(first._address[1], "/a") == (200, "/a")
    assert second._server is None

    first.close()
    second.take()

    assert ask(first._address[1], "/b") == (200, "/b")


def test_fork(open_port: OpenPort) -> None:
    """A forked child neither keeps the port open nor takes it away."""
    own, heir = open_port(), open_port()
    own.take()
    (reading, writing), (told, tell) = os.pipe(), os.pipe()
    child = os.fork()
    if child == 0:
        own.after_fork()
        os.write(tell, b".")
        os.read(reading, 1)
        os._exit(0)
    os.read(told, 1)
    own.close()
    heir.take()
    answer = ask(own._address[1])
    os.write(writing, b".")
    os.waitpid(child, 0)
    for end in (reading, writing, told, tell):
        os.close(end)

    assert answer[0] == 200


def test_silent_callers(open_port: OpenPort) -> None:
    """Callers that connect and say nothing take few threads, and a scrape is answered once they are gone."""
    own = open_port()
    own.take()
    silent = [socket.create_connection((HOST, own._address[1])) for _ in range(50)]
    for one in silent:
        one.close()

    assert wait_for(lambda: ask(own._address[1])[0] == 200)


@pytest.mark.parametrize("line", [b"GET /metrics HTTP/1.1", b"nonsense", b"GET /" + b"x" * 70_000 + b" HTTP/1.1"])
def test_nothing_of_itself(open_port: OpenPort, line: bytes) -> None:
    """No answer names the software that gave it, whatever was asked."""
    own = open_port()
    own.take()
    with socket.create_connection((HOST, own._address[1]), 10) as caller:
        caller.sendall(line + b"\r\nHost: metrics\r\nConnection: close\r\n\r\n")
        answer = caller.recv(65536).lower()

    assert answer
    assert b"server:" not in answer
    assert not any(name in answer for name in (b"wsgi", b"python", b"flask"))


def test_taken_by_another(tmp_path: Path) -> None:
    """A port that some other program has is told, once, after a few attempts, and taken when it is free."""
    told: list[OSError] = []
    with socket.create_server((HOST, 0)) as other:
        own = OwnPort((HOST, other.getsockname()[1]), hello, Leader(tmp_path, "port"), told.append)
        for _ in range(10):
            own.take()
    assert len(told) == 1

    own.take()

    assert ask(own._address[1])[0] == 200
    own.close()


def test_application(make_app: MakeApp) -> None:
    """The page is on the port, with its token, and no more in the application."""
    port = free_port()
    app = make_app(only=("metrics",), METRICS_PORT=port, METRICS_BIND=HOST, METRICS_TOKEN="t" * 20)
    assert app.test_client().get("/metrics", headers={"Authorization": "Bearer " + "t" * 20}).status_code == 404

    wait_for(lambda: ask(port)[0], 3)

    assert ask(port)[0] == 404
    assert ask(port, headers={"Authorization": "Bearer wrong"})[0] == 404
    status, text = ask(port, headers={"Authorization": "Bearer " + "t" * 20})
    assert status == 200
    assert 'flask_http_request_total{method="GET",status="404"} 1.0' in text
    assert ask(port, "/", headers={"Authorization": "Bearer " + "t" * 20})[0] == 404


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"METRICS_PORT": 9000, "PORT": 9000}, "METRICS_PORT must differ"),
        ({"METRICS_BIND": "everywhere"}, "address"),
    ],
)
def test_mistakes(make_app: MakeApp, settings: dict[str, Any], words: str) -> None:
    """A port or an address that cannot be is refused at the start."""
    with pytest.raises(ConfigError, match=words):
        make_app(only=("metrics",), **settings)


@pytest.mark.parametrize("kind", ["gthread", "sync", "gevent"])
def test_workers(gunicorn: StartGunicorn, kind: str) -> None:
    """Under two workers of any kind one has the port; it is killed, and the other has it within about a second."""
    if kind == "gevent":
        pytest.importorskip("gevent")
    port = free_port()
    server = gunicorn(
        source=SHOP, args=["-w", "2", "-k", kind], config="python:flask_prod.server.gunicorn_conf",
        env={"METRICS_PORT": str(port), "METRICS_BIND": HOST},
    )  # fmt: skip
    assert server.get("/metrics").status == 404
    wait_for(lambda: ask(port)[0] == 200, 5)
    (holder,) = (pid for pid in server.worker_pids() if port in listening(pid))

    os.kill(holder, signal.SIGKILL)
    wait_for(lambda: ask(port)[0] == 0, 5)
    began = time.monotonic()
    wait_for(lambda: ask(port)[0] == 200, 5)
    assert time.monotonic() - began < 2
    assert "flask_http_request_duration_seconds_count{" in ask(port)[1]

    server.term()
    server.wait()
    assert ask(port)[0] == 0


def listening(pid: int) -> set[int]:
    """Return the ports that a process listens on."""
    sockets = set()
    for link in Path(f"/proc/{pid}/fd").iterdir():
        with suppress(OSError):
            sockets.add(os.readlink(link).removeprefix("socket:[").removesuffix("]"))
    lines = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    return {int(words[1].partition(":")[2], 16) for words in lines if words[3] == "0A" and words[9] in sockets}
