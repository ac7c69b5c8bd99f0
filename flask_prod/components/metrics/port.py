"""The scrape on a port of its own, served by whichever process of the service has it."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable
from socketserver import ThreadingMixIn
from typing import IO, TYPE_CHECKING, Any, cast
from wsgiref.simple_server import ServerHandler, WSGIRequestHandler, WSGIServer

from flask_prod.core.run_dir import Leader

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIApplication

PERIOD = 1.0
"""Seconds between a process's attempts to take the port; so long there may be no scrape when its holder dies."""

_MOST_AT_ONCE = 8
"""Scrapes at the same time; more are hung up on."""

_PATIENCE = 3
"""Attempts before a port that is taken is reported."""

_LONGEST_LINE = 65536
"""Bytes of a request's first line."""

_POLL = 0.1
"""Seconds that the end of the process waits for the listener at most."""


class OwnPort:
    """Serves one WSGI application on a port, in the one process that leads.

    `on_trouble` is told once when the port cannot be had, with the reason.
    """

    def __init__(
        self,
        address: tuple[str, int],
        serve: WSGIApplication,
        leader: Leader,
        on_trouble: Callable[[OSError], None],
    ) -> None:
        self._address = address
        self._serve = serve
        self._leader = leader
        self._on_trouble = on_trouble
        self._server: _Server | None = None
        self._refused = 0
        self.wanted = True
        """False in processes whose numbers are shown elsewhere."""

    def take(self) -> None:
        """Listen, unless this process does already or another one leads."""
        if self._server is not None or not self.wanted or not self._leader.leads():
            return
        try:
            server = _Server(self._address)
        except OSError as error:
            self._refused += 1
            if self._refused == _PATIENCE:
                self._on_trouble(error)
            return
        server.set_app(self._serve)
        self._server, self._refused = server, 0
        threading.Thread(
            target=server.serve_forever, args=(_POLL,), name="flask-prod-metrics", daemon=True
        ).start()

    def after_fork(self) -> None:
        """Let go of the parent's listener, which goes on."""
        if self._server is not None:
            self._server.socket.close()
            self._server = None
        self._leader.resign()

    def close(self) -> None:
        """Leave the port to another process."""
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()
            self._server = None
        self._leader.resign()


class _Server(ThreadingMixIn, WSGIServer):
    daemon_threads = True
    block_on_close = False

    def __init__(self, address: tuple[str, int]) -> None:
        self.address_family = socket.AF_INET6 if ":" in address[0] else socket.AF_INET
        self._free = threading.BoundedSemaphore(_MOST_AT_ONCE)
        super().__init__(address, _Handler)

    def server_bind(self) -> None:
        """Bind without asking the name server who we are, as the library would."""
        if self.address_family == socket.AF_INET6:
            self.socket.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.socket.bind(self.server_address)
        self.server_address = self.socket.getsockname()
        self.server_name, self.server_port = "metrics", self.server_address[1]
        self.setup_environ()

    def process_request(self, request: Any, client_address: Any) -> None:
        """Answer in a thread, while there are not too many."""
        if self._free.acquire(blocking=False):
            super().process_request(request, client_address)
        else:
            self.shutdown_request(request)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        """Answer, and make room for the next."""
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._free.release()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing of a caller that hung up."""


class _Handler(WSGIRequestHandler):
    timeout = 10  # a caller that says nothing does not keep a thread

    def handle(self) -> None:
        """Answer one request, as the library does, by what keeps quiet about itself."""
        self.raw_requestline = self.rfile.readline(_LONGEST_LINE + 1)
        if len(self.raw_requestline) > _LONGEST_LINE:
            self.requestline = self.request_version = self.command = ""
            self.send_error(414)
        elif self.parse_request():
            server: Any = self.server
            answer: Any = _Answer(self.rfile, cast(IO[bytes], self.wfile), self.get_stderr(), self.get_environ())
            answer.request_handler = self
            answer.run(server.get_app())

    def send_response(self, code: int, message: str | None = None) -> None:
        """Begin the answer to what is no request, without the library's `Server`."""
        self.send_response_only(code, message)
        self.send_header("Date", self.date_time_string())

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing of every scrape."""


class _Answer(ServerHandler):
    server_software = ""  # no `Server` header: nobody need know what answers, and in which version
