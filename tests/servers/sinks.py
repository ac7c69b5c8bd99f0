"""What takes in whatever it is sent, and the proxy that breaks connections."""

from __future__ import annotations

import gzip
import json
import sys
import threading
import zlib
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self

from tests import faultproxy

from .process import HOST, Server, free_port, wait_for


@dataclass(frozen=True)
class Received:
    """One request as the sink saw it; `body` is unpacked."""

    method: str
    path: str
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        """The body as JSON."""
        return json.loads(self.body)


@dataclass
class HttpSink:
    """A small HTTP server that keeps what it is sent: stands for Sentry, a collector, a webhook receiver.

    `mode` may be changed at any time: "ok", "hang" (accepts and never answers) or a status code.
    """

    mode: str | int = "ok"
    answer: bytes = b"{}"
    requests: list[Received] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._released = threading.Event()
        self._server: ThreadingHTTPServer | None = None
        self._thread: threading.Thread | None = None

    def start(self) -> Self:
        """Listen on a free port."""
        sink = self

        def handler(*args: Any) -> SinkHandler:
            return SinkHandler(sink, *args)

        self._server = ThreadingHTTPServer((HOST, 0), handler)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,), name="http-sink")
        self._thread.start()
        return self

    @property
    def port(self) -> int:
        """The port it listens on."""
        if self._server is None:
            raise RuntimeError("not started")
        return int(self._server.server_address[1])

    @property
    def url(self) -> str:
        """The address without a slash at its end."""
        return f"http://{HOST}:{self.port}"

    @property
    def dsn(self) -> str:
        """The address as a SENTRY_DSN."""
        return f"http://public@{HOST}:{self.port}/1"

    def wait_for(self, count: int, seconds: float = 5.0) -> list[Received]:
        """Return the requests once there are at least *count*."""
        wait_for(lambda: len(self.requests) >= count, seconds, f"request number {count}")
        return list(self.requests)

    def stop(self) -> None:
        """Let hanging requests go and stop listening."""
        self._released.set()
        if self._server is not None and self._thread is not None:
            self._server.shutdown()
            self._thread.join(5)
            self._server.server_close()

    def hold(self) -> None:
        """Wait until the sink is stopped: the other end sees a server that hangs."""
        self._released.wait(60)

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()


class SinkHandler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    timeout = 10

    def __init__(self, owner: HttpSink, *args: Any) -> None:
        self.owner = owner
        super().__init__(*args)

    def take(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        encoding = self.headers.get("Content-Encoding", "")
        headers = {name.lower(): value for name, value in self.headers.items()}
        self.owner.requests.append(Received(self.command, self.path, headers, _unpack(body, encoding)))
        if self.owner.mode == "hang":
            self.owner.hold()
            self.close_connection = True
            return
        self.reply(self.owner.mode if isinstance(self.owner.mode, int) else 200, self.owner.answer)

    def reply(self, status: int, body: bytes) -> None:
        with suppress(OSError):
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            # Kept-alive connections would hold a thread of the sink beyond the test.
            self.send_header("Connection", "close")
            self.end_headers()
            self.wfile.write(b"" if self.command == "HEAD" else body)

    def log_message(self, format: str, *args: Any) -> None:
        return

    do_GET = do_POST = do_PUT = do_DELETE = do_HEAD = do_OPTIONS = take


def _unpack(body: bytes, encoding: str) -> bytes:
    if encoding == "gzip":
        return gzip.decompress(body)
    return zlib.decompress(body) if encoding == "deflate" else body


class FaultProxy(Server):
    """A proxy in front of a local port that misbehaves on command; see faultproxy.py for the modes."""

    def __init__(self, upstream: int) -> None:
        super().__init__("faultproxy")
        self.upstream = upstream
        self.port = free_port()
        self._control = free_port()

    def start(self) -> Self:
        """Start transparent."""
        ports = (str(port) for port in (self.port, self.upstream, self._control))
        self.process.launch([sys.executable, "-I", str(faultproxy.__file__), "serve", *ports])
        wait_for(lambda: "control" in self.process.stdout or not self.running, 10, "the proxy's start")
        if not self.running:
            raise RuntimeError(f"the proxy ended:\n{self.process.stderr}")
        return self

    def set(self, mode: str) -> dict[str, Any]:
        """Switch the mode of open and new connections: `latency 200 50`, `blackhole down`, `pass`."""
        answer = faultproxy.ctl(self._control, mode)
        if not answer["ok"]:
            raise ValueError(answer["error"])
        return answer

    def status(self) -> dict[str, Any]:
        """Return the mode and the counters."""
        return faultproxy.ctl(self._control, "status")
