"""SIGHUP to real gunicorn under load: code that does not load is refused, code that does costs nobody a wait."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from flask_prod.server.trial import Trial, Verdict, read, reason
from tests.apps import StartGunicorn
from tests.servers import Gunicorn, wait_for

MODULE = "python:flask_prod.server.gunicorn_conf"

SHOP = """
import sys
import time

from flask import Flask
from flask_prod import ProdKit

CODE = "one"
time.sleep(0.6)


def create_app():
    app = Flask("shop")
    ProdKit(app, only=("logs",))
    app.add_url_rule("/", "home", lambda: CODE)
    return app
"""
BROKEN = "def create_app():\n    raise RuntimeError('no ' + 'such thing')\n"
ONLY_IN_TRIALS = """
import sys
import flask

def create_app():
    assert "--check-config" in sys.argv
    return flask.Flask("x")
"""


class Load:
    """Asks again and again, from several threads; keeps what was answered, and how long the longest took."""

    def __init__(self, server: Gunicorn) -> None:
        self.answers: Counter[str] = Counter()
        self.longest = 0.0
        self._server = server
        self._over = threading.Event()

    @property
    def failed(self) -> list[str]:
        return [answer for answer in self.answers if not answer.startswith("200")]

    @contextmanager
    def on(self) -> Iterator[Load]:
        threads = [threading.Thread(target=self._ask) for _ in range(3)]
        for thread in threads:
            thread.start()
        try:
            yield self
        finally:
            self._over.set()
            for thread in threads:
                thread.join()

    def _ask(self) -> None:
        while not self._over.is_set():
            began = time.monotonic()
            try:
                answer = self._server.get("/")
                self.answers[f"{answer.status} {answer.text}"] += 1
            except OSError as error:
                self.answers[repr(error)] += 1
            self.longest = max(self.longest, time.monotonic() - began)
            time.sleep(0.005)


def put(server: Gunicorn, source: str) -> None:
    """Deploy: a file that appears as a whole."""
    new = server.folder / "app.new"
    new.write_text(source)
    new.replace(server.folder / "app.py")


def test_reload(gunicorn: StartGunicorn) -> None:
    """Broken code is refused with its reason, good code is served, no request fails or waits for the import."""
    server = gunicorn(source=SHOP, config=MODULE, args=["-w", "2"])
    first = server.worker_pids()
    with Load(server).on() as load:
        put(server, BROKEN)
        server.signal(signal.SIGHUP)
        wait_for(lambda: "prod.reload.refused" in server.stderr, 15, "the refusal")
        assert server.worker_pids() == first

        put(server, SHOP.replace('"one"', '"two"'))
        for _ in range(3):
            server.signal(signal.SIGHUP)
        wait_for(lambda: load.answers["200 two"], 20, "the new code")
        wait_for(lambda: not set(first) & set(server.worker_pids()), 10, "the end of the old workers")
        assert server.get("/").text == "two"

    assert load.failed == []
    assert load.longest < 0.5  # the import takes longer
    (refusal,) = (line for line in server.stderr.splitlines() if "prod.reload.refused" in line)
    assert "RuntimeError: no such thing" in refusal


def test_code_that_comes_up_in_the_trial_only(gunicorn: StartGunicorn) -> None:
    """Workers that do not come up after all change nothing, nor does one that cannot be replaced."""
    server = gunicorn(source=SHOP.replace("0.6", "0"), config=MODULE, args=["-w", "2"])
    first = server.worker_pids()
    with Load(server).on() as load:
        put(server, ONLY_IN_TRIALS)
        server.signal(signal.SIGHUP)
        wait_for(lambda: "prod.worker.unborn" in server.stderr, 15, "the failure")
        wait_for(lambda: server.worker_pids() == first, 10, "the end of the new workers")
    assert load.failed == []

    os.kill(first[0], signal.SIGKILL)
    told = server.stderr.count("prod.worker.unborn")
    wait_for(lambda: server.stderr.count("prod.worker.unborn") > told, 10, "a successor that does not come up")
    assert server.get("/").text == "one"

    put(server, SHOP.replace('"one"', '"three"'))
    wait_for(lambda: len(server.worker_pids()) == 2 and server.get("/").text == "three", 20, "the repaired code")


ONE_AFTER_THE_OTHER = """
import os, time
def create_app():
    try:
        os.close(os.open("first", os.O_CREAT | os.O_EXCL))
    except FileExistsError:
        time.sleep(0.7)
    raise RuntimeError("no such thing")
"""


@pytest.mark.parametrize("source", [BROKEN, ONE_AFTER_THE_OTHER], ids=["together", "one after the other"])
def test_start_with_broken_code(gunicorn: StartGunicorn, source: str) -> None:
    """Where no worker serves yet, one that does not come up ends the service with 3 and says why, however many."""
    with pytest.raises(RuntimeError, match="gunicorn ended with 3") as caught:
        gunicorn(source=source, config=MODULE, args=["-w", "2"])

    assert "Worker failed to boot" in str(caught.value)
    assert "Nobody caught" not in str(caught.value)


def test_reload_under_preload(gunicorn: StartGunicorn) -> None:
    """What SIGHUP cannot do under preload_app is said, and what can is named."""
    server = gunicorn(source=SHOP.replace("0.6", "0"), config=MODULE, args=["-w", "1", "--preload"])
    old = server.worker_pids()

    server.signal(signal.SIGHUP)

    wait_for(lambda: "use SIGUSR2" in server.stderr, 10, "the advice")
    wait_for(lambda: len(server.worker_pids()) == 1 and server.worker_pids() != old, 10, "a new worker")


def test_workers_are_renewed_one_at_a_time(gunicorn: StartGunicorn) -> None:
    """Workers that have served WEB_MAX_REQUESTS go one after the other, and only when another serves already."""
    server = gunicorn(source=SHOP.replace("0.6", "0.2"), config=MODULE, args=["-w", "2", "--max-requests", "60"])
    first, fewest = server.worker_pids(), 9
    with Load(server).on() as load:
        end = time.monotonic() + 20
        while set(first) & set(server.worker_pids()) and time.monotonic() < end:
            fewest = min(fewest, len(server.worker_pids()))
            time.sleep(0.02)

    assert not set(first) & set(server.worker_pids())
    assert fewest == 2
    assert load.failed == []


def test_trial_that_hangs() -> None:
    """What does not load in time is refused, and the process that tried is gone."""
    trial = Trial(["sleep", "60"], os.environ, 0.3)

    verdict = wait_for(trial.verdict, 10, "the verdict")

    assert verdict == Verdict(False, "it did not load within 0.3 s")
    os.waitpid(-1, 0)


def test_reason() -> None:
    """The reason is the exception with all of its message, or the last line, or the exit code, never a secret."""
    lines = ["Traceback:", '  File "x"', "shop.ConfigError: cannot start:", "  - A must be B.", ""]

    assert reason("\n".join(lines)) == "shop.ConfigError: cannot start: - A must be B."
    assert reason("just words\n") == "just words"
    assert read(b'[7, ""]') == Verdict(False, "exit code 7")
    assert read(b"") == Verdict(False, "the trial ended without a word")
    assert "hunter2" not in read(b'[1, "OSError: redis://:hunter2@cache:6379/0 is away"]').reason
