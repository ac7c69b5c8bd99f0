"""A Sentry server and an OTLP collector that take everything and keep nothing."""

from __future__ import annotations

import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType


class Sink:
    """Listens on a free port of loopback while the `with` block runs."""

    def __init__(self) -> None:
        self._server = _Server(("127.0.0.1", 0), _Take)
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)

    @property
    def dsn(self) -> str:
        """The address in the form that the Sentry SDK takes."""
        return f"http://key@127.0.0.1:{self._server.server_port}/1"

    @property
    def url(self) -> str:
        """The address of the collector."""
        return f"http://127.0.0.1:{self._server.server_port}"

    def __enter__(self) -> Sink:
        self._thread.start()
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        self._server.shutdown()
        self._server.server_close()


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, *_: object) -> None:
        """Say nothing of a client that left in the middle: benchmarks end without waiting for their reports."""


class _Take(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.send_response(200)
        self.send_header("Content-Length", "2")
        self.end_headers()
        self.wfile.write(b"{}")

    def log_message(self, *_: object) -> None:
        """Say nothing."""
