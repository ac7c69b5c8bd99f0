"""Connections over the forks of gunicorn and of RQ's workers, and at the end of processes."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

import redis

from tests.apps import StartGunicorn
from tests.servers import Process, Valkey, wait_for

ROOT = Path(__file__).parent.parent.parent.parent
MODULE = "python:flask_prod.server.gunicorn_conf"
SHOP = """
import os

from flask import Flask

from flask_prod import ProdKit

prod = ProdKit(only=("redis", "jobs", "health"))
app = Flask("shop")
prod.init_app(app)
handle = app.extensions["prod"].contributions["redis"].handle
born = handle.ask("CLIENT", "ID"), handle.client("jobs").client_id()


def identity():
    return [os.getpid(), handle.ask("CLIENT", "ID"), handle.client("jobs").client_id(), *born]


@app.get("/")
def home():
    return identity()


@prod.get("jobs").job
def tell():
    handle.client("jobs").rpush("told", repr(identity()))
"""


def connections(valkey: Valkey) -> int:
    """Return how many others are connected."""
    with redis.Redis(port=valkey.port) as client:
        clients: Any = client.client_list()
    return len(clients) - 1


def test_gunicorn_that_loads_the_application_before_it_forks(gunicorn: StartGunicorn, valkey: Valkey) -> None:
    """Each worker has connections of its own, none of the master's, and leaves none open at its end."""
    env = {"REDIS_URL": valkey.url, "ENVIRONMENT": "test", "WEB_CONCURRENCY": "2", "LOG_OUTPUT": os.devnull}
    server = gunicorn("app:app", source=SHOP, config=MODULE, args=["--preload"], env=env, ready="/health/live")
    seen: dict[int, tuple[int, ...]] = {}

    def both() -> bool:
        pid, *ids = server.get("/").json
        assert seen.setdefault(pid, tuple(ids)) == tuple(ids)
        return len(seen) == 2

    wait_for(both, 15, "answers of two workers")
    first, second = seen.values()
    assert first[2:] == second[2:]  # the master's
    assert len({*first, *second}) == 6

    server.term()
    server.wait(15)
    wait_for(lambda: connections(valkey) == 0, 5, "closed connections")


def test_the_children_of_a_worker_for_jobs(tmp_path: Path, valkey: Valkey) -> None:
    """The process of a job has connections of its own, none of the worker's, and the end leaves none open."""
    (tmp_path / "shop.py").write_text(SHOP)
    env = {
        **os.environ, "REDIS_URL": valkey.url, "ENVIRONMENT": "test",
        "PYTHONPATH": f"{tmp_path}{os.pathsep}{ROOT}",
    }  # fmt: skip
    worker = Process(tmp_path)
    worker.launch([sys.executable, "-m", "flask", "--app", "shop:app", "prod", "worker"], env, tmp_path)
    try:
        client = redis.Redis(port=valkey.port, decode_responses=True)
        wait_for(lambda: client.scard("rq:workers") or not worker.running, 15, "a worker")
        _dispatch(valkey, tmp_path, 2)
        wait_for(lambda: client.llen("told") == 2, 15, f"two jobs: {worker.stderr}{worker.stdout}")
        told: Any = client.lrange("told", 0, -1)
        client.close()
    finally:
        worker.finish(10)

    for pid, *ids in map(json.loads, told):
        assert pid != worker.pid
        assert len(set(ids)) == 4  # two of this process, two of the worker's
    wait_for(lambda: connections(valkey) == 0, 5, "closed connections")


def _dispatch(valkey: Valkey, folder: Path, times: int) -> None:
    """Dispatch the job by a process of its own."""
    code = f"import shop\nwith shop.app.app_context():\n    [shop.tell.dispatch() for _ in range({times})]"
    process = Process(folder)
    process.folder = folder / "dispatch"
    process.folder.mkdir()
    env = {
        **os.environ,
        "REDIS_URL": valkey.url,
        "ENVIRONMENT": "test",
        "PYTHONPATH": f"{folder}{os.pathsep}{ROOT}",
    }
    process.launch([sys.executable, "-c", code], env, folder)
    assert process.wait(20) == 0, process.stderr
