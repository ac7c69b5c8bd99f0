"""Jobs a minute and Redis commands a job: stock RQ's workers and ours, on the same no-op job in the same run.

The columns mean: bare is two `rq worker`, by hand is `rq worker-pool -n 2`, kit is `flask prod worker
--processes 2`. Of dispatches, bare is RQ's `Queue.enqueue`, by hand the same with JSON.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from flask import Flask

from flask_prod import ProdKit
from flask_prod.server.embedded import EmbeddedValkey

Row = dict[str, Any]
STOCK, OURS = 600, 20_000
"""Jobs in one measurement: some ten seconds of each."""
COUNTED = 2000
FIFTY = 50
PATIENCE = 180.0
_TALK = frozenset({"info", "config", "client", "hello", "ping", "select", "script|load", "llen"})
"""Commands of this program and of connecting, which no job costs."""

prod = ProdKit(only=("jobs",))


PLAIN = "time.monotonic"
"""A no-op for RQ whose module costs nothing: each of its children would import this one anew."""


@prod.job
def noop() -> None:
    """Do nothing, for the kit."""


def create_app() -> Flask:
    """Build the application of the kit's workers."""
    app = Flask("bench")
    prod.init_app(app)
    return app


def jobs() -> list[Row]:
    """Measure everything; return the rows."""
    with ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="bench-"))
        valkey = EmbeddedValkey(Path(folder))
        url = valkey.start()
        stack.callback(valkey.stop)
        bench = _Bench(url)
        rates = {
            "bare": bench.rate([bench.rq("worker")] * 2, "stock", STOCK),
            "by_hand": bench.rate([bench.rq("worker-pool", "-n", "2")], "stock", STOCK),
            "kit": bench.rate([bench.kit("--processes", "2")], bench.queue, OURS),
        }
        commands = {
            "bare": bench.commands([bench.rq("worker")], "stock", COUNTED // 4),
            "by_hand": bench.commands([bench.rq("worker-pool", "-n", "2")], "stock", COUNTED // 4),
            "kit": bench.commands([bench.kit()], bench.queue, COUNTED),
        }
        one, many = bench.sends(batch=False), bench.sends(batch=True)
    return [
        _row("jobs.noop", rates, "jobs/min"),
        _row("jobs.commands", commands, "Redis calls"),
        _row("jobs.dispatch", one, "us"),
        _row("jobs.dispatch_many", many, "us a job"),
    ]


class _Bench:
    """One Redis, its queues, and workers on them."""

    def __init__(self, url: str) -> None:
        import redis
        from rq import Queue

        os.environ |= {"REDIS_URL": url, "ENVIRONMENT": "test", "SERVICE_NAME": "bench", "LOG_LEVEL": "WARNING"}
        self.client = redis.Redis.from_url(url)
        self.stock = Queue("stock", connection=self.client)
        self.app = create_app()
        self.queue = "bench:test:default"
        self.url = url

    def rq(self, *words: str) -> list[str]:
        program = str(Path(sys.executable).with_name("rq"))
        return [program, *words, "--url", self.url, "--quiet", "stock"]

    def kit(self, *words: str) -> list[str]:
        return [sys.executable, "-m", "flask", "--app", "bench.jobs", "prod", "worker", *words]

    def fill(self, queue: str, count: int) -> None:
        if queue == "stock":
            data = [self.stock.prepare_data(PLAIN) for _ in range(count)]
            self.stock.enqueue_many(data)
            return
        with self.app.app_context():
            if count > COUNTED:
                noop.dispatch_many([{}] * count)
                return
            for _ in range(count):
                noop.dispatch()

    def rate(self, commands: list[list[str]], queue: str, count: int) -> float:
        """Return jobs a minute between a twentieth and nineteen twentieths of *count*."""
        self.client.flushdb()
        self.fill(queue, count)
        with _Workers(commands):
            begin = self._wait_for(queue, count * 19 // 20)
            first, left = time.monotonic(), begin
            end = self._wait_for(queue, count // 20)
            return (left - end) / (time.monotonic() - first) * 60

    def commands(self, commands: list[list[str]], queue: str, count: int) -> float:
        """Return Redis commands for each job, from dispatch to end, scripts' own commands included."""
        self.client.flushdb()
        with _Workers(commands):
            time.sleep(3)  # it has started, and waits
            before = self._called()
            self.fill(queue, count)
            self._wait_for(queue, 0)
            time.sleep(0.2)
            return (self._called() - before) / count

    def sends(self, batch: bool) -> dict[str, float]:
        """Return the median microseconds of one dispatch, the three taking turns; *batch* is fifty at once."""
        from rq import Queue
        from rq.serializers import JSONSerializer

        self.client.flushdb()
        by_hand = Queue("by_hand", connection=self.client, serializer=JSONSerializer)
        ways: dict[str, Callable[[], Any]] = {
            "bare": lambda: _many(self.stock) if batch else _one_by_one(self.stock),
            "by_hand": lambda: _many(by_hand) if batch else _one_by_one(by_hand),
            "kit": lambda: noop.dispatch_many([{}] * FIFTY) if batch else [noop.dispatch() for _ in range(FIFTY)],
        }
        taken: dict[str, list[float]] = {name: [] for name in ways}
        with self.app.app_context():
            for _ in range(20):
                for name, send in ways.items():
                    began = time.perf_counter()
                    send()
                    taken[name].append((time.perf_counter() - began) / FIFTY)
        return {name: sorted(values)[len(values) // 2] * 1e6 for name, values in taken.items()}

    def _called(self) -> int:
        stats: Mapping[str, Any] = self.client.info("commandstats")
        return sum(
            int(values["calls"])
            for name, values in stats.items()
            if name.removeprefix("cmdstat_").split("|")[0] not in _TALK
        )

    def _wait_for(self, queue: str, left: int) -> int:
        until = time.monotonic() + PATIENCE
        while time.monotonic() < until:
            waiting = int(self.client.llen(f"rq:queue:{queue}"))
            if waiting <= left:
                return waiting
            time.sleep(0.02)
        raise RuntimeError(f"{queue} still has {waiting} jobs after {PATIENCE:g} s")


def _one_by_one(queue: Any) -> None:
    for _ in range(FIFTY):
        queue.enqueue(PLAIN)


def _many(queue: Any) -> None:
    queue.enqueue_many([queue.prepare_data(PLAIN) for _ in range(FIFTY)])


class _Workers:
    """Workers that run while the block does."""

    def __init__(self, commands: list[list[str]]) -> None:
        self._commands = commands

    def __enter__(self) -> None:
        nowhere = subprocess.DEVNULL
        self._processes = [subprocess.Popen(command, stdout=nowhere, stderr=nowhere) for command in self._commands]

    def __exit__(self, *_: object) -> None:
        for process in self._processes:
            process.terminate()
        for process in self._processes:
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()


def _row(name: str, figures: Mapping[str, float], unit: str) -> Row:
    return {
        "name": name,
        **{column: round(value, 1) for column, value in figures.items()},
        "unit": unit,
        "ratio_by_hand": round(figures["by_hand"] / figures["bare"], 2),
        "ratio_kit": round(figures["kit"] / figures["bare"], 2),
    }


if __name__ == "__main__":
    for row in jobs():
        print(row)
