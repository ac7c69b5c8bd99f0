"""An application with jobs that leave marks, and `flask prod worker` run on it as a user would."""

from __future__ import annotations

import importlib.util
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import Any, Self

from flask import Flask
from rq.job import Job

from flask_prod.components.jobs.engine import Engine
from tests.servers import Process, children, wait_for

ROOT = Path(__file__).parent.parent.parent

SOURCE = """
import logging, os, subprocess, time
from pathlib import Path
from flask import Flask, current_app, g
from rq import get_current_job
from flask_prod import ProdKit
from flask_prod.core.record import current_record

prod = ProdKit(only=ROOMS)
jobs = prod.get("jobs")
marks = Path(__file__).with_name("marks")


def mark(*words):
    with open(marks, "a") as file:
        file.write(" ".join(str(word) for word in words) + "\\n")


def given_up(job, reason):
    mark("given-up", job.id, current_app.name, os.getpid())


@jobs.job(on_failure=given_up)
def note(*words):
    mark("note", *words)
    return list(words)


@jobs.job
def context():
    mark("context", current_app.name, current_record().request_id, get_current_job().id, os.getpid())


@jobs.job(retry=2, backoff="1s", on_failure=given_up)
def flaky(times):
    job = get_current_job()
    mark("flaky", job.retries_left)
    if job.retries_left > 2 - times:
        raise ValueError("not yet")


@jobs.job(retry=2, backoff=0, on_failure=given_up)
def slow(seconds):
    mark("begin", os.getpid())
    time.sleep(seconds)
    mark("end", os.getpid())


@jobs.job(on_failure=given_up)
def crash():
    mark("crash")
    os.kill(os.getpid(), 9)


@jobs.job(on_failure=given_up)
def tick(pause=0.0):
    mark("tick", get_current_job().id, os.getpid())
    time.sleep(pause)


@jobs.job(timeout=1, on_failure=given_up)
def deaf():
    mark("deaf", os.getpid())
    end = time.monotonic() + 60
    while time.monotonic() < end:
        try:
            time.sleep(60)
        except Exception:
            pass


@jobs.job
def long_once():
    first = not marks.exists() or "long" not in marks.read_text()
    mark("long", get_current_job().id)
    if first:
        time.sleep(60)


@jobs.job
def broken():
    raise ValueError("no good")


@jobs.job(queue="high")
def urgent(word):
    mark("urgent", word)


@jobs.job
def program():
    child = subprocess.Popen(["sleep", "60"])
    child.terminate()
    mark("program", child.wait(5))


def create_app():
    app = Flask("shop")
    prod.init_app(app)

    @app.teardown_appcontext
    def closed(error):
        if current_record() is not None:
            mark("closed", os.getpid())

    return app
"""


class Shop:
    """A folder with the application, the application itself, and its workers."""

    def __init__(
        self, folder: Path, redis_url: str, rooms: Sequence[str] | None = ("jobs", "health"), **settings: str
    ) -> None:
        self.folder = folder
        self.settings = {
            "REDIS_URL": redis_url,
            "JOBS_RECOVERY": "5s",
            "ENVIRONMENT": "test",
            "SHUTDOWN_SECONDS": "30",
        }
        self.settings |= settings
        self.workers: list[Process] = []
        (folder / "shop.py").write_text(SOURCE.replace("ROOMS", repr(rooms)))
        self.module = self._load()
        self.app = self._build()

    @property
    def engine(self) -> Engine:
        """The jobs of the application in this process."""
        engine: Engine = self.app.extensions["prod"].contributions["jobs"].handle
        return engine

    @property
    def redis(self) -> Any:
        """A client for what a test wants to see or plant."""
        return self.engine.redis.client("jobs")

    def dispatch(self, name: str, *args: Any) -> Job:
        """Dispatch a job of the application."""
        with self.app.app_context():
            job: Job = getattr(self.module, name).dispatch(*args)
        return job

    def marks(self, word: str) -> list[list[str]]:
        """Return what jobs have left under this word, without the word."""
        path = self.folder / "marks"
        lines = path.read_text().splitlines() if path.exists() else []
        return [line.split()[1:] for line in lines if line.split()[0] == word]

    def wait_for_marks(self, word: str, count: int = 1, seconds: float = 15) -> list[list[str]]:
        """Return the marks once there are so many."""
        wait_for(lambda: len(self.marks(word)) >= count, seconds, f"{count} x {word}")
        return self.marks(word)

    def start(self, *args: str, **settings: str) -> Process:
        """Start `flask prod worker`, and return when it is known in Redis."""
        before = self.redis.smembers("rq:workers")
        folder = self.folder / f"worker{len(self.workers)}"
        folder.mkdir()
        process = Process(folder)
        env = {
            **os.environ, **self.settings, **settings, "PYTHONPATH": f"{self.folder}{os.pathsep}{ROOT}",
            "PYTHONUNBUFFERED": "1",
        }  # fmt: skip
        process.launch([sys.executable, "-m", "flask", "--app", "shop", "prod", "worker", *args], env, self.folder)
        self.workers.append(process)
        # By name: who comes may have removed one that was killed before anybody looks.
        wait_for(lambda: self.redis.smembers("rq:workers") - before or not process.running, 40, "a worker")
        return process

    def horse(self, worker: Process) -> int:
        """Return the process id of the child that runs the job."""
        return int(wait_for(lambda: next(iter(children(worker.pid)), None), 5, "a child"))

    def kill(self, worker: Process) -> None:
        """Kill a worker and its child with -9, as an out-of-memory kill or a lost machine would."""
        for pid in (worker.pid, *children(worker.pid)):
            os.kill(pid, signal.SIGKILL)
        worker.wait(5)

    def close(self) -> None:
        """End everything."""
        for worker in self.workers:
            worker.kill()
        self.app.extensions["prod"].lifecycle.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _load(self) -> ModuleType:
        """Import the module under the name that the worker imports it by, without keeping it."""
        spec = importlib.util.spec_from_file_location("shop", self.folder / "shop.py")
        if spec is None or spec.loader is None:
            raise ImportError("shop")
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        return module

    def _build(self) -> Flask:
        app = Flask("shop", root_path=str(self.folder))
        app.config.update(self.settings)
        self.module.prod.init_app(app)
        return app
