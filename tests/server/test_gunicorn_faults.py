"""gunicorn under fire: workers are killed and reloaded at random while people visit."""

from __future__ import annotations

import http.client
import os
import random
import signal
import time
from contextlib import suppress
from pathlib import Path

import pytest

from tests import servers
from tests.apps import StartGunicorn
from tests.server.test_gunicorn import APP, MODULE, sample
from tests.servers import wait_for

SECONDS = float(os.environ.get("FAULTS_SECONDS", "60"))


@pytest.mark.faults
def test_service_survives_random_kills(gunicorn: StartGunicorn, tmp_path: Path) -> None:
    """After any number of kill -9 and HUP two workers serve, and only they have live gauges."""
    folder = tmp_path / "metrics"
    env = {"WEB_CONCURRENCY": "2", "DIARY": str(tmp_path / "diary"), "PROMETHEUS_MULTIPROC_DIR": str(folder)}
    server = gunicorn(source=APP, config=MODULE, env=env, ready="/metrics")
    answered, end = 0, time.monotonic() + SECONDS

    while time.monotonic() < end:
        pids = server.worker_pids()
        if pids and random.random() < 0.7:
            with suppress(ProcessLookupError):
                os.kill(random.choice(pids), signal.SIGKILL)
        else:
            server.signal(signal.SIGHUP)
        for _ in range(20):
            answered += visit(server)
            time.sleep(random.uniform(0, 0.05))

    assert server.running, server.stderr
    wait_for(lambda: len(server.worker_pids()) == 2 and visit(server), 15, "two serving workers")
    assert answered > 0
    wait_for(lambda: with_gauges(folder) <= set(server.worker_pids()), 15, "no gauge of a worker that is gone")
    assert sample(server, "visits_total")[0] >= answered


def with_gauges(folder: Path) -> set[int]:
    """Return the processes that have live gauges; the master forgets one when it has buried it, a moment later."""
    return {int(path.stem.rpartition("_")[2]) for path in folder.glob("gauge_live*.db")}


def visit(server: servers.Gunicorn) -> int:
    """Return 1 for an answer, 0 for a connection that a kill has torn."""
    with suppress(OSError, http.client.HTTPException):
        return int(server.get("/", timeout=5).status == 200)
    return 0
