"""Real gunicorn, several workers, preloaded and not: settings, hooks, metrics of processes that live and die."""

from __future__ import annotations

import os
import signal
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from flask_prod.server import gunicorn as hooks
from tests import servers
from tests.apps import StartGunicorn
from tests.servers import wait_for

TOP_LEVEL = Path(__file__).parents[2] / "gunicorn.conf.py"
MODULE = "python:flask_prod.server.gunicorn_conf"
OWN_FILE = """
import os
workers = 2
def _write(word):
    with open(os.environ["DIARY"], "a") as diary:
        diary.write(f"{word} {os.getpid()}\\n")
def post_worker_init(worker):
    _write("own-init")
def worker_exit(server, worker):
    _write("own-exit")
    raise RuntimeError("a hook of mine fails")
from flask_prod.server.gunicorn import compose
globals().update(compose(globals()))
"""
WAYS: dict[str, str | Path] = {"top-level file": TOP_LEVEL, "module": MODULE, "own file": OWN_FILE}

APP = """
import os
import time

from flask import Flask, jsonify, request
from prometheus_client import CollectorRegistry, Counter, Gauge, generate_latest
from prometheus_client.multiprocess import MultiProcessCollector

from flask_prod import ProdKit
from flask_prod.core.component import Component, Contribution
from flask_prod.core.registry import BUILT_IN


def write(word):
    with open(os.environ["DIARY"], "a") as diary:
        diary.write(f"{word} {os.getpid()}\\n")


class Probe(Component):
    name = "probe"

    def install(self, app, settings, kit):
        write("install")
        return Contribution(
            handle=None,
            start=lambda: write("start"),
            after_fork=lambda: write("fork"),
            close=lambda: write("close"),
        )


BUILT_IN["probe"] = "app:Probe"
VISITS = Counter("visits", "How often somebody came")
ALIVE = Gauge("alive", "One for each living process", multiprocess_mode="liveall")


def create_app():
    app = Flask("shop")
    ProdKit(app, only=("probe",))

    @app.get("/")
    def home():
        VISITS.inc()
        ALIVE.set(1)
        return jsonify(
            pid=os.getpid(), scheme=request.scheme, peer=request.remote_addr,
            folder=os.environ.get("PROMETHEUS_MULTIPROC_DIR", ""),
        )

    @app.get("/slow")
    def slow():
        time.sleep(20)
        return "late"

    @app.get("/metrics")
    def metrics():
        registry = CollectorRegistry()
        MultiProcessCollector(registry)
        return generate_latest(registry)

    return app
"""


@pytest.fixture
def diary(tmp_path: Path) -> Path:
    """Give the file in which processes note what happened to them."""
    return tmp_path / "diary"


@pytest.fixture
def shop(gunicorn: StartGunicorn, diary: Path) -> Iterator[Any]:
    """Give a factory of gunicorns that serve the application above with two workers."""

    def start(config: str | Path = MODULE, *args: str, **env: str) -> servers.Gunicorn:
        env = {"WEB_CONCURRENCY": "2", "DIARY": str(diary), "ENVIRONMENT": "test", **env}
        return gunicorn(source=APP, config=config, args=args, env=env, ready="/metrics")

    return start  # type: ignore[return-value]  # a factory; nothing follows


def entries(diary: Path) -> dict[str, list[int]]:
    """Return who wrote what: word -> process ids, in order."""
    noted: dict[str, list[int]] = {}
    for line in diary.read_text().splitlines():
        word, pid = line.split()
        noted.setdefault(word, []).append(int(pid))
    return noted


def visit_both_workers(server: servers.Gunicorn) -> int:
    """Visit until two workers have answered; return how many visits that took."""
    seen: Counter[int] = Counter()
    while len(seen) < 2 and seen.total() < 500:
        seen[server.get("/").json["pid"]] += 1
    assert len(seen) == 2
    return seen.total()


def sample(server: servers.Gunicorn, name: str) -> list[float]:
    """Return the values of the series called *name*."""
    lines = server.get("/metrics").text.splitlines()
    return [float(line.rpartition(" ")[2]) for line in lines if line.startswith(name)]


@pytest.mark.parametrize("preload", [False, True], ids=["lazy", "preload"])
@pytest.mark.parametrize("way", WAYS)
def test_worker_starts_and_closes_once(shop: Any, diary: Path, way: str, preload: bool) -> None:
    """However the configuration is used, each worker starts and closes its kit exactly once."""
    server: servers.Gunicorn = shop(WAYS[way], *(["--preload"] if preload else []))
    wait_for(lambda: len(entries(diary).get("start", ())) == 2, 10, "the start of both workers")
    workers, master = server.worker_pids(), server.pid

    server.term()
    code = server.wait(15)

    noted = entries(diary)
    assert code == 0, server.stderr
    assert sorted(noted["start"]) == workers
    assert sorted(noted["close"]) == sorted([*workers, *([master] if preload else [])])
    assert noted["install"] == ([master] if preload else noted["install"])
    assert (sorted(noted.get("fork", ())) == workers) is preload
    if way == "own file":
        assert sorted(noted["own-init"]) == sorted(noted["own-exit"]) == workers


@pytest.mark.parametrize("preload", [False, True], ids=["lazy", "preload"])
def test_metrics_of_all_workers_are_added(shop: Any, preload: bool) -> None:
    """Whichever worker is scraped, the answer counts the visits of all; the directory goes with the service."""
    server: servers.Gunicorn = shop(MODULE, *(["--preload"] if preload else []))
    visits = visit_both_workers(server)
    folder = Path(server.get("/").json["folder"])

    assert {sample(server, "visits_total")[0] for _ in range(5)} == {visits + 1}
    assert folder.is_dir()

    server.term()
    assert server.wait(15) == 0
    assert not folder.exists()


def test_killed_worker_is_forgotten_and_replaced(shop: Any) -> None:
    """After kill -9 of a worker its live gauge goes, its counts stay, and another takes its place."""
    server: servers.Gunicorn = shop()
    visits = visit_both_workers(server)
    first, second = server.worker_pids()
    assert sample(server, f'alive{{pid="{first}"') == [1]

    os.kill(first, signal.SIGKILL)

    wait_for(lambda: len(server.worker_pids()) == 2 and first not in server.worker_pids(), 10, "a new worker")
    # The new worker has a gauge of its own as soon as it has imported the application.
    wait_for(lambda: not sample(server, f'alive{{pid="{first}"'), 15, "the gauge to go")
    assert sample(server, f'alive{{pid="{second}"') == [1]
    assert sample(server, "visits_total") == [visits]
    assert second in server.worker_pids()


def test_worker_killed_at_the_deadline_is_forgotten(shop: Any, tmp_path: Path) -> None:
    """gunicorn calls no hook for a worker it kills after SHUTDOWN_SECONDS; its live gauge goes all the same."""
    folder = tmp_path / "metrics"
    server: servers.Gunicorn = shop(MODULE, PROMETHEUS_MULTIPROC_DIR=str(folder), SHUTDOWN_SECONDS="1")
    visit_both_workers(server)
    with suppress(TimeoutError):
        server.get("/slow", timeout=0.3)

    server.term()

    assert server.wait(10) == 0
    assert list(folder.glob("counter_*.db"))
    assert not list(folder.glob("gauge_live*.db"))


def test_named_directory_is_swept_and_kept(shop: Any, tmp_path: Path) -> None:
    """A directory of the user's stays, without what processes of an earlier life left in it."""
    folder = tmp_path / "metrics"
    folder.mkdir()
    (folder / "counter_999999.db").write_bytes(b"")
    server: servers.Gunicorn = shop(MODULE, PROMETHEUS_MULTIPROC_DIR=str(folder))

    assert not (folder / "counter_999999.db").exists()
    assert server.get("/").json["folder"] == str(folder)
    server.term()
    assert server.wait(15) == 0
    assert folder.is_dir()


def test_killed_master_leaves_nothing_for_long(shop: Any) -> None:
    """What a service killed with -9 could not remove, the next one removes."""
    first: servers.Gunicorn = shop()
    left = Path(first.get("/").json["folder"])
    first.kill()
    assert left.is_dir()

    shop()

    assert not left.exists()


def test_directory_that_cannot_be_written_is_replaced(shop: Any, tmp_path: Path) -> None:
    """The service starts, keeps its metrics elsewhere, and says so once."""
    file = tmp_path / "file"
    file.write_text("")
    server: servers.Gunicorn = shop(MODULE, PROMETHEUS_MULTIPROC_DIR=str(file / "metrics"))

    assert Path(server.get("/").json["folder"]).is_dir()
    assert server.stderr.count("cannot be written") == 1


def test_reload_keeps_counting(shop: Any, diary: Path) -> None:
    """After HUP new workers serve, the directory is the same and no count is lost."""
    server: servers.Gunicorn = shop(TOP_LEVEL)
    visits = visit_both_workers(server)
    old, folder = server.worker_pids(), server.get("/").json["folder"]

    server.signal(signal.SIGHUP)

    wait_for(
        lambda: len(server.worker_pids()) == 2 and not set(old) & set(server.worker_pids()), 15, "new workers"
    )
    assert server.get("/").json["folder"] == folder
    assert sample(server, "visits_total") == [visits + 2]
    assert sorted(entries(diary)["close"]) == old


def test_scheme_is_not_gunicorns_to_change(shop: Any) -> None:
    """A forwarded header of a peer on loopback changes neither scheme nor address; two are no error."""
    server: servers.Gunicorn = shop()
    headers = {"X-Forwarded-Proto": "https", "X-Forwarded-Protocol": "http", "X-Forwarded-For": "203.0.113.9"}

    answer = server.get("/", headers)

    assert answer.status == 200
    assert answer.json["scheme"] == "http"
    assert answer.json["peer"] == "127.0.0.1"


def test_settings_of_the_user_win() -> None:
    """What a file defines itself stays; a hook that it imported from here is not called twice."""
    own: dict[str, Any] = {"workers": 7, "threads": 1, "child_exit": hooks.child_exit}

    composed = hooks.compose(own)

    assert "workers" not in composed
    assert "threads" not in composed
    assert composed["worker_class"] == "gthread"
    assert composed["child_exit"] is hooks.child_exit


def test_wrong_setting_ends_gunicorn_with_a_sentence(gunicorn: StartGunicorn) -> None:
    """A setting that is wrong is named as typed, without a traceback."""
    with pytest.raises(RuntimeError) as caught:
        gunicorn(source=APP, config=TOP_LEVEL, env={"WEB_THREADS": "many", "SHUTDOWN_SECONDS": "-1"})

    assert "WEB_THREADS must be a whole number" in str(caught.value)
    assert "SHUTDOWN_SECONDS must be" in str(caught.value)
    assert "Traceback" not in str(caught.value)


def test_defaults_follow_the_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    """PORT, HOST, WEB_CONCURRENCY and the time limits reach gunicorn under its own names."""
    for name, value in {"PORT": "9000", "HOST": "::1", "WEB_CONCURRENCY": "5", "SHUTDOWN_SECONDS": "1m"}.items():
        monkeypatch.setenv(name, value)

    values = hooks.defaults(hooks.read_server_settings())

    assert values["bind"] == "[::1]:9000"
    assert values["workers"] == 5
    assert values["graceful_timeout"] == 60
    assert values["control_socket_disable"] is True
