"""The load of a rehearsal: whom it asks, and what it takes for lost."""

from __future__ import annotations

import http.server
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

from flask_prod.server.load import Load, Rotation, Tally, status
from tests.servers import wait_for


class Answering(http.server.BaseHTTPRequestHandler):
    """Answers with the server's code, or closes the connection where that is 0."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        code = self.server.codes.get(self.path, 200)  # type: ignore[attr-defined]  # set by `serving`
        self.server.seen.append(self.path)  # type: ignore[attr-defined]
        if code == 0:
            self.close_connection = True
            return
        self.send_response(code)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""


@contextmanager
def serving(**codes: int) -> Iterator[http.server.ThreadingHTTPServer]:
    """Run a server that answers /name with codes[name]."""
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Answering)
    server.codes = {f"/{name}": code for name, code in codes.items()}  # type: ignore[attr-defined]
    server.seen = []  # type: ignore[attr-defined]
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


def test_lost_requests() -> None:
    """No answer and answers from 500 on are lost, refusals are not; the first are told one by one."""
    with serving(ok=200, refused=429, broken=500, gone=0) as server:
        port = server.server_port
        with (
            Rotation([port], None) as rotation,
            Load(rotation, ("/ok", "/refused", "/broken", "/gone"), 4) as load,
        ):
            wait_for(lambda: load.tally.requests >= 200, 10, "200 requests")
    tally = load.tally

    assert tally.lost == tally.statuses[0] + tally.statuses[500] > 50
    assert min(tally.statuses[200], tally.statuses[429]) > 0
    assert any("/gone on a new connection: RemoteDisconnected" in line for line in tally.told)
    assert any("/broken on a kept connection: status 500" in line for line in tally.told)
    assert len(tally.told) < 100


def test_rotation_follows_readiness_late() -> None:
    """A port that is not ready any more is given away for the lag, and again after two good answers."""
    with serving() as one, serving() as other:
        codes: dict[str, int] = one.codes  # type: ignore[attr-defined]
        with Rotation([one.server_port, other.server_port], "/ready", lag=0.6) as rotation:
            assert {rotation.next() for _ in range(4)} == {one.server_port, other.server_port}
            codes["/ready"] = 503
            time.sleep(0.3)
            assert one.server_port in rotation.ports
            wait_for(lambda: rotation.ports == (other.server_port,), 15, "the port to be left out")
            assert {rotation.next() for _ in range(4)} == {other.server_port}
            codes["/ready"] = 200
            wait_for(lambda: len(rotation.ports) == 2, 15, "both ports")


def test_status_of_nobody() -> None:
    """A port where nobody listens has no status."""
    with serving() as server:
        port = server.server_port
        assert status(port, "/") == 200

    assert status(port, "/") == 0


def test_tally_keeps_few_words() -> None:
    """However many requests are lost, few of them are told."""
    tally = Tally()
    for _ in range(100):
        tally.add(0.1, 0, "gone")

    assert (tally.requests, tally.lost, len(tally.told), tally.slowest) == (100, 100, 20, 0.1)
