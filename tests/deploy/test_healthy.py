"""The image's health check, run as it is rendered, against a server on this machine."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import trustme

from flask_prod.server.load import HOST


class Health(BaseHTTPRequestHandler):
    """Answers what the server was made to answer, to the one path that must be asked for."""

    def do_GET(self) -> None:
        self.send_response(self.server.answer if self.path == "/health/live" else 404)  # type: ignore[attr-defined]
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:
        return


@contextmanager
def serving(answer: int, secure: bool = False) -> Iterator[int]:
    """Serve on a free port while the block runs."""
    server = ThreadingHTTPServer((HOST, 0), Health)
    server.answer = answer  # type: ignore[attr-defined]
    server.handle_error = lambda *_: None  # type: ignore[method-assign]
    if secure:
        import ssl

        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        trustme.CA().issue_cert("shop.example.com").configure_cert(context)
        server.socket = context.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    try:
        yield server.server_port
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.fixture(scope="module")
def script(rendered: Path) -> str:
    """Return the check's text."""
    return (rendered / "docker/bin/healthy").read_text()


def asked(script: str, folder: Path, port: int, first: str = "/opt/venv/bin/python\0/usr/local/bin/web\0") -> int:
    """Run the check where *first* is the command line of process 1; return its exit code."""
    (folder / "cmdline").write_text(first)
    text = script.replace("/proc/1/cmdline", str(folder / "cmdline"))
    done = subprocess.run(
        [sys.executable, "-IS", "-c", text], env={"PORT": str(port)}, capture_output=True, timeout=20, check=False
    )
    return done.returncode


@pytest.mark.parametrize("secure", [False, True])
def test_alive(script: str, tmp_path: Path, secure: bool) -> None:
    """A server that lives is healthy, by https as well, whatever name its certificate has."""
    with serving(200, secure) as port:
        assert asked(script, tmp_path, port) == 0


def test_stuck(script: str, tmp_path: Path) -> None:
    """One that says 503 is not."""
    with serving(503) as port:
        assert asked(script, tmp_path, port) == 1


def test_away(script: str, tmp_path: Path) -> None:
    """Nor is one that nobody can reach."""
    with serving(200) as port:
        pass

    assert asked(script, tmp_path, port) == 1


def test_worker(script: str, tmp_path: Path) -> None:
    """A container without a web server is healthy while it lives."""
    assert asked(script, tmp_path, 9, "/opt/venv/bin/python\0/usr/local/bin/worker\0") == 0
