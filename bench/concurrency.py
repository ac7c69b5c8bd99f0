"""Memory of a connection: 10,000 requests in flight at once, each of which takes ten seconds, on gevent workers.

`python -m bench concurrency.10k` takes two minutes and needs a limit of some 10,500 open files; it is no part of
the gate. The clients live in a process of their own. They come within a few seconds, so that all of them wait
before the first is answered.
"""

from __future__ import annotations

import contextlib
import json
import os
import resource
import selectors
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from flask import Flask

from bench.child import HEADERS
from bench.measure import NAMES, Figures

CONNECTIONS, SECONDS, WORKERS = 10_000, 10.0, 2
RAMP = 1200
"""Connections opened per second: all wait before the first is answered."""

QUEUE = 1000
"""Connections that may wait to be accepted: on a busy machine the kernel would refuse more than 4,096 of them."""

PATIENCE = 90.0
FILES = CONNECTIONS + 500
WARM = 200
"""Requests before the first measurement: what is made once belongs to no connection."""

_REQUEST = "GET {path} HTTP/1.1\r\n{headers}\r\n"


@dataclass(frozen=True)
class Crowd:
    """What became of the clients: answers 200, everything else, and how many waited at the same time."""

    answered: int
    errors: int
    peak: int
    why: str = ""
    """What the first error was."""


def build(name: str) -> Flask:
    """Build one of the three applications with a view that takes its time."""
    from bench.apps import build as build_app

    app = build_app(name)

    @app.get("/wait")
    def wait() -> dict[str, str]:
        time.sleep(SECONDS)
        return {"name": "Teapot"}

    return app


def concurrency(environ: Callable[[], dict[str, str]]) -> tuple[Figures, str] | str:
    """Return the kilobytes of a connection in each application, and how all fared; a sentence if it cannot."""
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    if hard != resource.RLIM_INFINITY and hard < FILES:
        return f"needs a limit of {FILES} open files (ulimit -Hn); here it is {hard}"
    figures: Figures = {}
    told = []
    for name in NAMES:
        # By hand with Redis most of them get 500: every counter waits for one of a hundred connections in vain.
        without = {"REDIS_URL": "memory://"} if name == "by_hand" else {}
        crowd, kilobytes = _run(name, {**environ(), **without})
        figures[name] = kilobytes
        told.append(
            f"{name} {crowd.errors} errors, {crowd.peak:,} at once" + (f" ({crowd.why})" if crowd.why else "")
        )
    return figures, "; ".join(told)


def _run(name: str, environ: dict[str, str]) -> tuple[Crowd, float]:
    with _gunicorn(name, environ) as (port, workers):
        _visit(port, "/api/items/7", WARM)
        before = _memory(workers)
        with _Watch(workers) as watch:
            crowd = _visit(port, "/wait", CONNECTIONS)
        return crowd, (watch.most - before) / max(1, crowd.peak)


class _Watch:
    """Notes the most memory that processes had together while the block ran."""

    def __init__(self, pids: list[int]) -> None:
        self.most = 0.0
        self._pids = pids
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._look)

    def __enter__(self) -> _Watch:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._end.set()
        self._thread.join()

    def _look(self) -> None:
        while not self._end.wait(0.25):
            self.most = max(self.most, _memory(self._pids))


def _memory(pids: list[int]) -> float:
    """Return the kilobytes that are the processes' own, and their part of what they share."""
    total = 0
    for pid in pids:
        with contextlib.suppress(OSError):  # a worker may have been killed under the load
            lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
            total += next(int(line.split()[1]) for line in lines if line.startswith("Pss:"))
    return total


def _visit(port: int, path: str, count: int) -> Crowd:
    """Let a process of its own open *count* connections and ask for *path* once on each."""
    command = [sys.executable, "-m", "bench.concurrency", str(port), path, str(count)]
    said = subprocess.run(command, check=True, capture_output=True, text=True, timeout=PATIENCE + 30).stdout
    return Crowd(**json.loads(said))


@contextlib.contextmanager
def _gunicorn(name: str, environ: dict[str, str]) -> Iterator[tuple[int, list[int]]]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    config = "python:flask_prod.server.gunicorn_conf" if name == "kit" else os.devnull
    command = [
        sys.executable, "-m", "gunicorn", "-c", config, "--bind", f"127.0.0.1:{port}", "--workers", str(WORKERS),
        "--worker-class", "gevent", "--worker-connections", str(FILES), "--backlog", "8192", "--log-level",
        "error", "--no-control-socket", f"bench.concurrency:build('{name}')",
    ]  # fmt: skip
    root = str(Path(__file__).parent.parent)
    env = {**os.environ, "DRAIN_SECONDS": "0", **environ, "PYTHONPATH": root}
    with tempfile.TemporaryDirectory(prefix="bench-") as folder, open(f"{folder}/output", "wb") as output:
        process = subprocess.Popen(
            command, env=env, cwd=folder, stdout=output, stderr=output, preexec_fn=_raise_limit
        )
        try:
            yield port, _workers(port, process)
        finally:
            process.terminate()
            process.wait(40)


def _workers(port: int, process: subprocess.Popen[bytes]) -> list[int]:
    """Wait until all workers are there and answer; return their process ids."""
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
    end = time.monotonic() + 30
    while time.monotonic() < end and process.poll() is None:
        pids = [int(pid) for pid in children.read_text().split()]
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
            if len(pids) == WORKERS:
                time.sleep(1)
                return pids
        time.sleep(0.1)
    raise RuntimeError("gunicorn did not start")


def _raise_limit() -> None:
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


class _Clients:
    """Opens connections at a steady pace, asks once on each, and waits for all answers."""

    def __init__(self, port: int, path: str, count: int) -> None:
        headers = "".join(f"{name}: {value}\r\n" for name, value in HEADERS.items())
        self._request = _REQUEST.format(path=path, headers=headers).encode()
        self._port, self._count = port, count
        self._selector = selectors.DefaultSelector()
        self._why = ""
        self._opened = self._waiting = self._peak = self._answered = self._errors = 0

    def run(self) -> Crowd:
        """Return what became of them; whoever has no answer in time is an error."""
        began = time.monotonic()
        while self._answered + self._errors < self._count and time.monotonic() - began < PATIENCE:
            due = min(self._count, int((time.monotonic() - began) * RAMP) + 1)
            if _unaccepted(self._port) < QUEUE:
                for _ in range(min(due - self._opened, QUEUE // 4)):
                    self._open()
            for key, events in self._selector.select(0.01):
                self._go_on(key.fileobj, events)  # type: ignore[arg-type]  # only sockets are registered
        return Crowd(self._answered, self._count - self._answered, self._peak, self._why)

    def _open(self) -> None:
        client = socket.socket()
        client.setblocking(False)
        client.connect_ex(("127.0.0.1", self._port))
        self._opened += 1
        self._selector.register(client, selectors.EVENT_WRITE)

    def _go_on(self, client: socket.socket, events: int) -> None:
        try:
            if events & selectors.EVENT_WRITE:
                client.sendall(self._request)
                self._selector.modify(client, selectors.EVENT_READ)
                self._waiting += 1
                self._peak = max(self._peak, self._waiting)
                return
            said = client.recv(65536)[:20].decode("latin-1")
        except OSError as error:
            said = str(error)
        good = said.startswith("HTTP/1.1 200")
        self._why = self._why or ("" if good else said or "closed")
        self._waiting -= 1
        self._answered += good
        self._errors += not good
        self._selector.unregister(client)
        client.close()


def _unaccepted(port: int) -> int:
    """Return how many connections wait in the queue of the listener on *port*."""
    address = f"0100007F:{port:04X}"  # 127.0.0.1 as the kernel writes it
    with open("/proc/net/tcp") as table:
        for line in table:  # listeners come first
            words = line.split()
            if words[1] == address and words[3] == "0A":
                return int(words[4].partition(":")[2], 16)
    return 0


if __name__ == "__main__":
    _raise_limit()
    asked = sys.argv[1:]
    print(json.dumps(vars(_Clients(int(asked[0]), asked[1], int(asked[2])).run())))
