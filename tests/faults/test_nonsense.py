"""A Redis that answers every command with something else: no shape of an answer may become a server error."""

from __future__ import annotations

import random
import socketserver
import threading
import time
from collections import Counter
from collections.abc import Iterator

import pytest
from flask import Flask

from flask_prod import ProdKit
from tests.apps import MakeApp
from tests.servers import HOST

pytestmark = pytest.mark.faults

SECONDS = 4.0
"""Enough for some thousand answers of all kinds."""

DICE = random.Random()


def answer(dice: random.Random, deep: bool = False) -> bytes:
    """Return any answer that the protocol knows, plausible ones among them."""
    text = dice.choice([b"", b"1", b"0 1 2 3 4 5", b"0 1763000000000 1763000000000 1 0 0", dice.randbytes(20)])
    bulk = b"$%d\r\n%s\r\n" % (len(text), text)
    if deep:
        return dice.choice([bulk, b"$-1\r\n", b":7\r\n"])
    errors = [b"-ERR what\r\n", b"-NOSCRIPT\r\n", b"-OOM\r\n", b"-MOVED 1 a:1\r\n", b"-LOADING\r\n"]
    size = dice.randrange(5)
    several = b"*%d\r\n" % size + b"".join(answer(dice, deep=True) for _ in range(size))
    return dice.choice(
        [bulk, several, b"$-1\r\n", b"*-1\r\n", b":0\r\n", b":-1\r\n", b"+OK\r\n", dice.choice(errors)]
    )


class Talker(socketserver.StreamRequestHandler):
    """Reads commands and answers none of them."""

    def handle(self) -> None:
        for line in self.rfile:
            if not line.startswith(b"*"):
                return
            for _ in range(int(line[1:])):
                self.rfile.read(int(self.rfile.readline()[1:]) + 2)
            self.wfile.write(answer(DICE))


class Babel(socketserver.ThreadingTCPServer):
    """Listens on a free port; its connections end with it."""

    daemon_threads = True
    block_on_close = False

    def handle_error(self, *_: object) -> None:
        """Say nothing of clients that have had enough."""


@pytest.fixture
def babel() -> Iterator[int]:
    """Run the server and give its port."""
    with Babel((HOST, 0), Talker) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        yield server.server_address[1]
        server.shutdown()
        thread.join()


def test_cache_survives_nonsense(make_app: MakeApp, babel: int) -> None:
    """Pages, memoised functions and values are served whatever Redis answers."""
    prod = ProdKit()
    app = make_app(kit=prod, REDIS_URL=f"redis://{HOST}:{babel}/0", RATE_LIMIT_ENABLED=False)
    app.add_url_rule("/page", "page", prod.cache.cached(ttl="1s")(lambda: "page"))
    price = prod.cache.memoize(ttl="1s")(lambda: 7)
    app.add_url_rule("/memo", "memo", lambda: str(price()))

    def values() -> str:
        prod.cache.set("a", {"b": 1})
        prod.cache.get_many("a", "b")
        prod.cache.delete_many("a", "b")
        return "values"

    app.add_url_rule("/values", "values", values)

    assert statuses(app, "/page", "/memo", "/values") == {200}


def test_limits_survive_nonsense(make_app: MakeApp, babel: int) -> None:
    """Limits of the kit and of the library admit or refuse whatever Redis answers, and never fail."""
    prod = ProdKit()
    app = make_app(kit=prod, REDIS_URL=f"redis://{HOST}:{babel}/0", RATE_LIMIT_PUBLIC=1_000_000)
    app.add_url_rule("/ours", "ours", prod.limit("wide", "1000000/1h")(lambda: "ours"))
    app.add_url_rule("/library", "library", prod.limiter.limit("1000000/hour")(lambda: "library"))

    assert statuses(app, "/ours", "/library") <= {200, 429}


def statuses(app: Flask, *paths: str) -> set[int]:
    """Visit the paths in turn with the breaker closed by hand each time; return what they answered."""
    client = app.test_client()
    breaker = app.extensions["prod"].contributions["redis"].handle.breaker
    seen: Counter[int] = Counter()
    end = time.monotonic() + SECONDS
    while time.monotonic() < end:
        breaker.reset()
        seen.update(client.get(path).status_code for path in paths)
    assert seen.total() > 100
    return set(seen)
