"""SIGUSR2 and SIGINT to real gunicorn: what gunicorn documents still holds with the kit."""

from __future__ import annotations

import os
import signal
from pathlib import Path

from tests import servers
from tests.apps import StartGunicorn
from tests.server.test_reload import MODULE, SHOP, Load, put
from tests.servers import wait_for

QUICK = SHOP.replace("0.6", "0")


def test_usr2(gunicorn: StartGunicorn, tmp_path: Path) -> None:
    """A second master serves the new code, also under preload; SIGTERM drains the old one, and nothing is lost."""
    pidfile = tmp_path / "pid"
    server = gunicorn(source=QUICK, config=MODULE, args=["-w", "1", "--preload", "--pid", str(pidfile)])
    put(server, QUICK.replace('"one"', '"two"'))
    with Load(server).on() as load:
        server.signal(signal.SIGUSR2)
        wait_for(lambda: load.answers["200 two"], 15, "the new code")
        (tmp_path / "pid.2").read_text()
        server.term()
        assert server.wait(10) == 0
        wait_for(lambda: pidfile.exists() and int(pidfile.read_text()) != server.pid, 10, "the promotion")
        new = int(pidfile.read_text())
        assert server.get("/").text == "two"
    os.kill(new, signal.SIGTERM)
    wait_for(lambda: not servers.alive(new), 10, "the end of the new master")

    assert load.failed == []


def test_int(gunicorn: StartGunicorn) -> None:
    """Ctrl-C does not drain, closes everything and ends with 0, long before a worker is killed after 20 s."""
    server = gunicorn(source=QUICK, config=MODULE, args=["-w", "1"], env={"DRAIN_SECONDS": "60"})
    server.signal(signal.SIGINT)

    assert server.wait(15) == 0
    assert "prod.process.closed" in server.stdout
