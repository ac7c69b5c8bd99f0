"""A worker in a container of its own: what it answers to probes and to Prometheus."""

from __future__ import annotations

import http.client
import json
import os
import signal
import socket
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Self

import pytest
from werkzeug.test import Client

from flask_prod.components.jobs.delivery.processes import AWAY, SERVING, STOPPING, Board
from flask_prod.core.errors import ConfigError
from flask_prod.server.crew import Crew
from flask_prod.server.lookout import Lookout
from tests.apps import MakeApp
from tests.servers import HOST, Process, Valkey, children, free_port, wait_for

ROOT = Path(__file__).parent.parent.parent
TOKEN = "s" * 24
STUCK_AFTER = 2.5

SHOP = """
import time
from pathlib import Path
from flask import Flask
from flask_prod import ProdKit

prod = ProdKit(only=ROOMS)


@prod.job
def note(seconds=0.0):
    with open("begun", "a") as file:
        file.write("x")
    time.sleep(seconds)
    if (orders := prod.get("metrics") and paid) is not None:
        orders.inc()


paid = prod.metrics.business.counter("shop_paid_total", "Orders paid") if "metrics" in ROOMS else None


def create_app():
    app = Flask("shop")
    prod.init_app(app)
    return app
"""
REDIS_ROOMS = ("jobs", "health", "metrics", "logs")


class Watched:
    """A folder with an application, and `flask prod worker` run on it with a port of its own."""

    def __init__(self, folder: Path, rooms: tuple[str, ...], settings: Mapping[str, str]) -> None:
        self.folder = folder
        self.port = free_port()
        (folder / "shop.py").write_text(SHOP.replace("ROOMS", repr(rooms)))
        self.env = {
            "ENVIRONMENT": "test", "WORKER_PORT": str(self.port), "WORKER_BIND": HOST, "METRICS_TOKEN": TOKEN,
            "HEALTH_STUCK_AFTER": f"{STUCK_AFTER}s", "SHUTDOWN_SECONDS": "20", "JOBS_WORKERS": "2",
            "PYTHONPATH": f"{folder}{os.pathsep}{ROOT}", "RUN_DIR": str(folder / "run"), "ENV_FILE": os.devnull,
            "SECRETS_DIR": os.devnull, "PATH": os.environ["PATH"], **settings,
        }  # fmt: skip
        self.process = Process(folder)

    def run(self, *words: str) -> None:
        """Run a command of the application to its end."""
        process = Process(self.folder)
        process.launch([sys.executable, *words], self.env, self.folder)
        assert process.wait(30) == 0, process.stderr

    def flask(self, *words: str) -> list[str]:
        """Return the words of a command of the kit."""
        return ["-m", "flask", "--app", "shop", "prod", *words]

    def start(self) -> Watched:
        """Start the worker, and return when it is ready."""
        self.process.launch([sys.executable, *self.flask("worker")], self.env, self.folder)
        wait_for(self.is_ready, 20, "readiness")
        return self

    def dispatch(self, *seconds: float) -> None:
        """Dispatch jobs that take so long each."""
        each = f"for seconds in {seconds!r}: shop.note.dispatch(seconds)"
        self.run("-c", f"import shop\nwith shop.create_app().app_context():\n  {each}\n")

    def ask(self, path: str, method: str = "GET", **headers: str) -> tuple[int, str, Mapping[str, str]]:
        """Return status, text and headers; 0 when nobody listens."""
        connection = http.client.HTTPConnection(HOST, self.port, timeout=5)
        try:
            connection.request(method, path, headers=headers)
            answer = connection.getresponse()
            return answer.status, answer.read().decode(), dict(answer.getheaders())
        except OSError:
            return 0, "", {}
        finally:
            connection.close()

    def word(self, probe: str) -> tuple[int, str]:
        """Return status and body of a probe."""
        return self.ask(f"/health/{probe}")[:2]

    def is_ready(self) -> bool:
        """Tell whether the worker says so."""
        return self.word("ready") == (200, "ready")

    def metrics(self) -> dict[str, float]:
        """Return the numbers of a scrape, by name and labels."""
        lines = self.ask("/metrics", Authorization=f"Bearer {TOKEN}")[1].splitlines()
        pairs = (line.rpartition(" ") for line in lines if not line.startswith("#"))
        return {name: float(value) for name, _, value in pairs}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.finish()

    def begun(self) -> int:
        """Return how many jobs have begun."""
        path = self.folder / "begun"
        return len(path.read_text()) if path.exists() else 0

    def crew(self) -> tuple[int, set[int]]:
        """Return the process that answers, and the workers."""
        everybody = children(self.process.pid)
        (lookout,) = (pid for pid in everybody if _listens(pid, self.port))
        return lookout, everybody - {lookout}


def _listens(pid: int, port: int) -> bool:
    lines = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    ours = {f"socket:[{x[9]}]" for x in lines if x[3] == "0A" and int(x[1].partition(":")[2], 16) == port}
    with suppress(OSError):  # it may end meanwhile
        return any(os.readlink(link) in ours for link in list(Path(f"/proc/{pid}/fd").iterdir()))
    return False


@pytest.fixture(scope="module")
def watched(tmp_path_factory: pytest.TempPathFactory, shared_valkey: Valkey) -> Iterator[Watched]:
    """Give one worker of two processes that serves jobs from Redis."""
    settings = {"REDIS_URL": f"{shared_valkey.url.rpartition('/')[0]}/9"}
    with Watched(tmp_path_factory.mktemp("watched"), REDIS_ROOMS, settings) as watched:
        yield watched.start()


def test_probes(watched: Watched) -> None:
    """Probes say one word, which nobody keeps; as JSON where asked, and anything else is not there."""
    status, body, headers = watched.ask("/health/live")
    assert (status, body, headers["Cache-Control"]) == (200, "alive", "no-store")
    assert json.loads(watched.ask("/health/ready", Accept="application/json")[1]) == {"status": "ready"}
    assert watched.ask("/health/ready", "HEAD")[:2] == (200, "")

    others = ("/", "/health", "/health/", "/health/redis", "/health/startup", "/metrics/", "/health/live/x")
    assert {watched.ask(path)[0] for path in others} == {404}
    assert watched.ask("/health/live", "POST")[0] == 404


def test_metrics(watched: Watched) -> None:
    """A scrape adds up what jobs in all processes counted, from zero on, for whoever has the token."""
    assert watched.metrics()["shop_paid_total"] == 0
    watched.dispatch(0, 0, 0)
    finished = 'flask_prod_jobs_finished_total{job="shop.note",queue="default"}'
    wait_for(lambda: watched.metrics().get(finished) == 3, 10, "three jobs")

    assert watched.metrics()["shop_paid_total"] == 3
    assert watched.metrics()["process_resident_memory_bytes"] > 0
    assert watched.ask("/metrics")[0] == 404
    assert watched.ask("/metrics", Authorization="Bearer wrong")[0] == 404


def test_killed_worker(watched: Watched) -> None:
    """A worker process that is killed is replaced: what it counted stays, and nobody need restart the whole."""
    _, workers = watched.crew()
    before = watched.metrics()["shop_paid_total"]
    for pid in workers:
        os.kill(pid, signal.SIGKILL)
        assert watched.word("live") == (200, "alive")

    wait_for(lambda: len(watched.crew()[1] - workers) == 2, 10, "two successors")
    wait_for(watched.is_ready, 10, "readiness")
    assert watched.metrics()["shop_paid_total"] == before


def test_killed_lookout(watched: Watched) -> None:
    """The process that answers is replaced within about a second, and no job hears of it."""
    lookout, workers = watched.crew()
    os.kill(lookout, signal.SIGKILL)

    wait_for(lambda: watched.word("ready")[0] == 0, 5, "nobody")
    wait_for(watched.is_ready, 5, "its successor")
    assert watched.crew()[1] == workers


def test_frozen_worker(watched: Watched) -> None:
    """A frozen worker makes the whole stuck after HEALTH_STUCK_AFTER, and not before; it may come back."""
    (pid, *_) = watched.crew()[1]
    os.kill(pid, signal.SIGSTOP)
    try:
        began = time.monotonic()
        wait_for(lambda: watched.word("live") == (503, "stuck"), 10, "stuck")
        assert STUCK_AFTER / 5 < time.monotonic() - began < STUCK_AFTER * 3
        assert watched.word("ready") == (503, "unready")
    finally:
        os.kill(pid, signal.SIGCONT)
    wait_for(watched.is_ready, 5, "readiness")


def test_frozen_supervisor(watched: Watched) -> None:
    """A frozen supervisor is told as well, since the process that answers is another one."""
    watched.process.send(signal.SIGSTOP)
    try:
        wait_for(lambda: watched.word("live") == (503, "stuck"), STUCK_AFTER * 3, "stuck")
    finally:
        watched.process.send(signal.SIGCONT)
    wait_for(watched.is_ready, 5, "readiness")


def test_long_job(watched: Watched) -> None:
    """A worker that is long in a job is not stuck; a stop waits for it, says so, and ends with 0.

    The last test of this one worker.
    """
    before = watched.begun()
    watched.dispatch(STUCK_AFTER + 2)
    wait_for(lambda: watched.begun() > before, 5, "the job")
    time.sleep(STUCK_AFTER + 0.5)
    assert watched.word("live") == (200, "alive")

    watched.process.send(signal.SIGTERM)
    wait_for(lambda: watched.word("ready") == (503, "draining"), 3, "the drain")
    assert watched.word("live") == (200, "alive")
    _, workers = watched.crew()
    assert workers
    assert watched.process.wait(15) == 0
    assert watched.word("live")[0] == 0


def test_port_in_use(tmp_path: Path, redis_url: str) -> None:
    """Jobs run although the port is somebody else's; one event says so, and it is taken when it is free."""
    settings = {"REDIS_URL": redis_url, "JOBS_WORKERS": "1"}
    with Watched(tmp_path, ("jobs", "health", "logs"), settings) as shop:
        with socket.create_server((HOST, shop.port)):
            shop.process.launch([sys.executable, *shop.flask("worker")], shop.env, tmp_path)
            shop.dispatch(0)
            wait_for(lambda: shop.begun() == 1, 15, "the job")
            wait_for(lambda: "prod.worker.port_unavailable" in shop.process.stdout + shop.process.stderr, 10)

        wait_for(shop.is_ready, 5, "readiness")
        assert shop.ask("/metrics")[0] == 404


def test_without_redis(tmp_path: Path) -> None:
    """A worker that takes its jobs from the database answers the same."""
    settings = {"DATABASE_URL": f"sqlite:///{tmp_path / 'jobs.db'}", "JOBS_OUTBOX": "always", "JOBS_WORKERS": "1"}
    with Watched(tmp_path, ("jobs", "database", "health", "metrics"), settings) as shop:
        shop.run(*shop.flask("jobs", "outbox", "create"))
        shop.start()

        assert shop.word("live") == (200, "alive")
        assert shop.ask("/metrics", Authorization=f"Bearer {TOKEN}")[0] == 200


def words_of(board: Board, after: float = 60.0) -> tuple[str, str]:
    """Return what probes are told."""
    client = Client(Lookout(board, after, "/h", None))
    return client.get("/h/live").text, client.get("/h/ready").text


def test_stages(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is ready once a worker asks for jobs, and not while the source is away or the crew stops."""
    board = Board(2)
    board.beat(SERVING)
    board.slots[0].clear()
    assert words_of(board) == ("alive", "starting")

    board.slots[0].publish()
    assert words_of(board) == ("alive", "ready")
    board.beat(AWAY)
    assert words_of(board) == ("alive", "unready")
    board.beat(STOPPING)
    assert words_of(board) == ("alive", "draining")
    board.beat(SERVING)
    board.slots[0].leave()
    assert words_of(board) == ("alive", "starting")


def test_silence(monkeypatch: pytest.MonkeyPatch) -> None:
    """A worker is missed that never came up, or that waits for jobs; not one in a job, nor one that is gone."""
    board = Board(1)
    (slot,) = board.slots
    later: Any = time.monotonic() + 100
    slot.clear()
    slot.publish()
    slot.began = slot.seen
    slot.publish()
    monkeypatch.setattr(time, "monotonic", lambda: later)
    board.beat(SERVING)
    assert words_of(board)[0] == "alive"

    slot.began = 0.0
    slot._write()
    assert words_of(board) == ("stuck", "unready")
    assert words_of(board, after=0.0) == ("alive", "ready")
    slot.leave()
    assert words_of(board)[0] == "alive"
    slot.clear()
    later += 100
    board.beat(SERVING)
    assert words_of(board)[0] == "stuck"


def test_silent_supervisor(monkeypatch: pytest.MonkeyPatch) -> None:
    """The supervisor's silence counts."""
    board = Board(1)
    board.beat(SERVING)
    later = time.monotonic() + 100
    monkeypatch.setattr(time, "monotonic", lambda: later)

    assert words_of(board)[0] == "stuck"


def test_mistake(make_app: MakeApp) -> None:
    """An address that is none is refused at the start."""
    with pytest.raises(ConfigError, match="WORKER_BIND must be an address"):
        make_app(only=("jobs",), WORKER_BIND="everywhere")


def test_free_place(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody is missed at a place whose worker has ended, while its successor is not due yet."""
    source: Any = None
    crew = Crew(source, ("default",), lambda *_: 0, "worker")
    (berth,) = crew._children
    berth.pid = 1
    berth.slot.clear()
    crew._ended(berth, 0)
    later = time.monotonic() + 100
    monkeypatch.setattr(time, "monotonic", lambda: later)
    crew._board.beat(SERVING)

    assert words_of(crew._board) == ("alive", "starting")
