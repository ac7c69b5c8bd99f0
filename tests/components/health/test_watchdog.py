"""Workers that serve nobody any more: noticed by their stacks and by their signs of life."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from flask import Flask

from flask_prod.components.health import watchdog as module
from flask_prod.components.health.board import Board
from flask_prod.components.health.watchdog import Watchdog
from flask_prod.core.component import Event
from tests.apps import MakeApp, StartGunicorn
from tests.servers import wait_for


@pytest.fixture
def gate() -> Iterator[threading.Event]:
    """Give what views wait for; it is open at the end."""
    event = threading.Event()
    yield event
    event.set()


@pytest.fixture
def app(make_app: MakeApp, gate: threading.Event) -> Flask:
    """Give an application with a view that hangs, and one that sends for ever."""
    app = make_app(only=("health",))

    @app.get("/hangs")
    def hangs() -> str:
        gate.wait(20)
        return "done"

    return app


def visit(app: Flask) -> threading.Thread:
    """Visit the view that hangs in a thread of its own."""
    thread = threading.Thread(target=lambda: app.test_client().get("/hangs"), name="a-worker-thread")
    thread.start()
    return thread


def look(dog: Watchdog, seconds: float = 0.0) -> tuple[int, ...]:
    """Look now, however short ago the last time was."""
    time.sleep(seconds)
    dog._look_at = 0.0
    dog.look()
    return dog.stuck


def test_stuck(app: Flask, gate: threading.Event, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Stuck is when every thread has the same request for so long: told once with its stack, and when it ends."""
    monkeypatch.setenv("WEB_THREADS", "2")
    events: list[Event] = []
    dog = Watchdog(Board(tmp_path, lambda: "mark"), events.append, 0.2)
    threads = [visit(app)]
    assert [look(dog, 0.15) for _ in range(3)] == [(), (), ()]  # one thread is free
    threads.append(visit(app))
    look(dog, 0.05)
    assert look(dog, 0.3) == (os.getpid(),)
    assert look(dog, 0.1) == (os.getpid(),)
    gate.set()
    for thread in threads:
        thread.join(5)

    assert look(dog) == ()
    assert [event.name for event in events] == ["prod.health.stuck", "prod.health.unstuck"]
    stacks = str(events[0].fields["stacks"])
    assert "a-worker-thread" in stacks
    assert "hangs" in stacks
    assert len(stacks) <= module._LONGEST + 200


def test_busy_is_not_stuck(
    app: Flask, gate: threading.Event, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Short requests one after the other keep a thread busy for long, and are none."""
    monkeypatch.setenv("WEB_THREADS", "1")
    dog = Watchdog(Board(tmp_path, lambda: "mark"), lambda event: None, 0.15)
    gate.set()
    stop = threading.Event()

    def visits() -> None:
        while not stop.is_set():
            app.test_client().get("/hangs")

    thread = threading.Thread(target=visits)
    thread.start()
    seen = {look(dog, 0.05) for _ in range(8)}
    stop.set()
    thread.join(5)

    assert seen == {()}


CHILD = """
import sys
from pathlib import Path
from flask_prod.components.health.board import Board
Board(Path(sys.argv[1]), lambda: "mark").beat(stuck=False)
sys.stdin.read()
"""


def test_another_worker(tmp_path: Path) -> None:
    """A worker that lives and gives no sign is seen by the others; one that has died is forgotten."""
    events: list[Event] = []
    dog = Watchdog(Board(tmp_path, lambda: "mark"), events.append, 0.4)
    with subprocess.Popen([sys.executable, "-c", CHILD, str(tmp_path)], stdin=subprocess.PIPE) as child:
        beat = tmp_path / f"health-mark.{child.pid}.beat"
        wait_for(beat.exists, 10)
        assert wait_for(lambda: look(dog), 15) == (child.pid,)
        assert [(event.name, event.fields["pid"]) for event in events] == [("prod.health.stuck", child.pid)]

    assert look(dog) == ()
    assert not beat.exists()


def test_never(tmp_path: Path) -> None:
    """HEALTH_STUCK_AFTER=0 looks at nothing and leaves no sign."""
    dog = Watchdog(Board(tmp_path, lambda: "mark"), lambda event: None, 0)

    assert look(dog) == ()
    assert list(tmp_path.iterdir()) == []


STUCK = """
import os, pathlib, time
from flask import Flask
from flask_prod import ProdKit

def create_app():
    app = Flask("shop")
    ProdKit(app, only=("health", "logs", "metrics"))
    here = pathlib.Path(os.environ["HERE"])

    @app.get("/hangs/<name>")
    def hangs(name):
        (here / name).write_text(str(os.getpid()))
        while not (here / "end").exists():
            time.sleep(0.05)
        return "done"

    return app
"""


def test_gunicorn(gunicorn: StartGunicorn, tmp_path: Path) -> None:
    """Of two real workers one is stuck in both of its threads: the liveness of the other says so, and a line."""
    server = gunicorn(
        source=STUCK, config="python:flask_prod.server.gunicorn_conf", ready="/health/live",
        args=["-w", "2", "--threads", "2"],
        env={"HERE": str(tmp_path), "HEALTH_STUCK_AFTER": "1s", "RUN_DIR": str(tmp_path / "run")},
    )  # fmt: skip

    def live() -> tuple[int, str]:
        try:
            answer = server.get("/health/live", timeout=0.5)
        except OSError:  # the stuck one took it, and has no thread for it
            return 0, ""
        return answer.status, answer.text

    def hang(name: str) -> None:
        with suppress(OSError):
            server.get(f"/hangs/{name}", timeout=30)

    visits = [threading.Thread(target=hang, args=(name,)) for name in "abc"]
    for visit_ in visits:
        visit_.start()
    try:
        wait_for(lambda: live() == (503, "stuck"), 15, "a worker that says so of the other")
        wait_for(lambda: '"event":"prod.health.stuck"' in server.stdout, 15, "the line")
    finally:
        (tmp_path / "end").touch()
        for visit_ in visits:
            visit_.join()
    wait_for(lambda: live() == (200, "alive"), 10, "all is well again")
    assert " hangs" in server.stdout
