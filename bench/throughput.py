"""Requests per second through gunicorn: two gthread workers, loaded by wrk over 32 kept-alive connections.

With keep-alive all connections sometimes land on one worker, because every worker accepts from the same socket and
the one that is awake takes them all. The processor time of each worker tells; such a run is told and left out.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from bench.child import HEADERS
from bench.measure import NAMES, Figures

WORKERS, CONNECTIONS, SECONDS, ROUNDS = 2, 32, 4, 5
IDLE = 0.2
"""A worker that used less than this part of its share of processor time did nothing."""


@dataclass(frozen=True)
class Run:
    """One load: requests per second, and the part of the processor time that the lazier worker used."""

    rate: float
    share: float

    @property
    def fair(self) -> bool:
        """False when one worker did all the work."""
        return self.share >= IDLE


def throughput(environ: Callable[[], dict[str, str]]) -> tuple[Figures, str] | str:
    """Return the median requests per second of fair runs, and what was left out; a sentence without wrk."""
    if not shutil.which("wrk"):
        return "needs wrk: apt-get install wrk"
    runs: dict[str, list[Run]] = {name: [] for name in NAMES}
    for _ in range(ROUNDS):
        for name in NAMES:
            runs[name].append(_run(name, environ()))
    fair = {name: [run.rate for run in found if run.fair] for name, found in runs.items()}
    rates = {name: statistics.median(found or [0.0]) for name, found in fair.items()}
    lazy = {name: sum(not run.fair for run in found) for name, found in runs.items()}
    told = ", ".join(f"{name} {count}" for name, count in lazy.items() if count) or "none"
    return rates, f"runs of {ROUNDS} with an idle worker, left out: {told}"


def _run(name: str, environ: dict[str, str]) -> Run:
    with _gunicorn(name, environ) as (address, pid):
        workers = _children(pid)
        before = [_cpu(worker) for worker in workers]
        said = subprocess.run(
            ["wrk", "-t2", f"-c{CONNECTIONS}", f"-d{SECONDS}s", *_headers(), f"{address}/api/items/7"],
            check=True, capture_output=True, text=True, timeout=SECONDS + 30,
        ).stdout  # fmt: skip
        used = [_cpu(worker) - began for worker, began in zip(workers, before, strict=True)]
    rate = re.search(r"Requests/sec:\s*([\d.]+)", said)
    if rate is None or "Non-2xx" in said:
        raise RuntimeError(f"wrk was not answered well:\n{said}")
    return Run(float(rate[1]), min(used) * WORKERS / (sum(used) or 1))


def _headers() -> Iterator[str]:
    for name, value in HEADERS.items():
        yield from ("-H", f"{name}: {value}")


@contextmanager
def _gunicorn(name: str, environ: dict[str, str]) -> Iterator[tuple[str, int]]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [
        sys.executable, "-m", "gunicorn", "--bind", f"127.0.0.1:{port}", "--workers", str(WORKERS),
        "--worker-class", "gthread", "--threads", "4", "--keep-alive", "75", "--log-level", "error",
        "--no-control-socket", f"bench.apps:build('{name}')",
    ]  # fmt: skip
    env = {**os.environ, **environ, "PYTHONPATH": str(Path(__file__).parent.parent)}
    # Not in this repository's folder, whose gunicorn.conf.py would be taken for all three.
    with tempfile.TemporaryDirectory(prefix="bench-") as folder, open(f"{folder}/output", "wb") as output:
        process = subprocess.Popen(command, env=env, cwd=folder, stdout=output, stderr=output)
        try:
            _wait(port, process)
            yield f"http://127.0.0.1:{port}", process.pid
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(30)


def _wait(port: int, process: subprocess.Popen[bytes]) -> None:
    """Wait until all workers have served: the first request of each builds its application."""
    end = time.monotonic() + 30
    while len(_children(process.pid)) < WORKERS or not _answers(port):
        if process.poll() is not None or time.monotonic() > end:
            raise RuntimeError("gunicorn did not start")
        time.sleep(0.1)
    time.sleep(1)


def _answers(port: int) -> bool:
    try:
        with socket.create_connection(("127.0.0.1", port), 1):
            return True
    except OSError:
        return False


def _children(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def _cpu(pid: int) -> float:
    """Return the seconds of processor time that a process has used."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
