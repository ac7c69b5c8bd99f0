"""How instructions, times, import costs are taken, each for three applications in one run."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

NAMES = ("bare", "by_hand", "kit")
GATED = ("bare", "kit")
"""What a gate compares; the libraries by hand take most of the time."""
COUNTED = 1000
"""Requests under callgrind; twice the same figure to about 1 %."""
ROUNDS, PER_ROUND = 25, 200
"""Interleaved rounds and requests in each: the medians of the three share the machine's moods."""
IMPORTS = 7
_CORES = threading.BoundedSemaphore(len(os.sched_getaffinity(0)))
"""Instructions can be counted beside one another, times cannot."""
_WITHOUT_CLOCKS = {"BENCH_COUNTED": "1", "HEALTH_INTERVAL": "1h", "HEALTH_STALE_AFTER": "1h"}
"""Under callgrind a second holds a fiftieth of its requests, and would charge each with fifty times its share of
what a kit does by the clock (1 % of a core): that is stopped after the warm-up, and its results stay valid."""
_NEEDED = "needs valgrind: apt-get install valgrind"

Figures = dict[str, float]


class Child:
    """One application in a process of its own, optionally under a tool such as valgrind."""

    def __init__(self, name: str, environ: Mapping[str, str], tool: tuple[str, ...] = ()) -> None:
        self._process = subprocess.Popen(
            [*tool, sys.executable, "-m", "bench.child", name],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
            env={**os.environ, **environ, "PYTHONHASHSEED": "0"},
        )  # fmt: skip
        self.pid = self._process.pid
        self._expect("ready")

    def serve(self, times: int) -> float:
        """Serve *times* requests; return the seconds they took."""
        if self._process.stdin is None:
            raise RuntimeError("the child has no input")
        self._process.stdin.write(f"{times}\n")
        self._process.stdin.flush()
        return float(self._expect(""))

    def end(self) -> str:
        """End the process and return what it wrote to its error output."""
        return self._process.communicate(timeout=120)[1]

    def _expect(self, word: str) -> str:
        line = self._process.stdout.readline() if self._process.stdout else ""
        if not line.startswith(word) or not line:
            self._process.kill()
            raise RuntimeError(f"the child said {line!r}:\n{self.end()}")
        return line


@contextlib.contextmanager
def surroundings(redis_url: str | None, sentry_dsn: str) -> Iterator[Callable[[], dict[str, str]]]:
    """Give each child what it needs: an own metrics directory, the sink, and Redis if asked for."""
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:

        def environ() -> dict[str, str]:
            metrics = tempfile.mkdtemp(dir=folder)
            values = {"PROMETHEUS_MULTIPROC_DIR": metrics, "BENCH_SENTRY_DSN": sentry_dsn}
            return values | ({"REDIS_URL": redis_url} if redis_url else {})

        yield environ


def instructions(
    environ: Callable[[], dict[str, str]], names: Sequence[str] = NAMES, counted: int = COUNTED
) -> Figures | str:
    """Count the CPU instructions of one request by callgrind; a sentence when it is not installed."""
    if not shutil.which("valgrind") or not shutil.which("callgrind_control"):
        return _NEEDED
    return _beside(names, lambda name: _count(name, environ(), counted))


def _beside(names: Iterable[str], count: Callable[[str], float]) -> Figures:
    """Count each, as many at a time as there are cores, whoever else counts."""
    names = tuple(names)

    def one(name: str) -> float:
        with _CORES:
            return count(name)

    with ThreadPoolExecutor(len(names)) as pool:
        return dict(zip(names, pool.map(one, names), strict=True))


def _count(name: str, environ: dict[str, str], counted: int) -> float:
    with tempfile.TemporaryDirectory(prefix="callgrind-") as folder:
        tool = ("valgrind", "--tool=callgrind", "--instr-atstart=no", f"--callgrind-out-file={folder}/out")
        child = Child(name, {**environ, **_WITHOUT_CLOCKS}, tool)
        _control("-i", "on", child.pid)
        child.serve(counted)
        _control("-i", "off", child.pid)
        said = child.end()
        return _collected(said) / counted


def _collected(said: str) -> float:
    """Return how many instructions callgrind says it has seen."""
    totals = re.search(r"Collected\s*:\s*(\d+)", said)
    if totals is None:
        raise RuntimeError(f"callgrind counted nothing:\n{said}")
    return int(totals[1])


def _control(option: str, value: str, pid: int) -> None:
    subprocess.run(["callgrind_control", option, value, str(pid)], check=True, capture_output=True, timeout=60)


def times(
    environ: Callable[[], dict[str, str]], names: Sequence[str] = NAMES, per_round: int = PER_ROUND
) -> Figures:
    """Return the median microseconds of one in-process request, the applications taking turns."""
    children = {name: Child(name, environ()) for name in names}
    taken: dict[str, list[float]] = {name: [] for name in names}
    for _ in range(ROUNDS):
        for name, child in children.items():
            taken[name].append(child.serve(per_round) / per_round)
    for child in children.values():
        child.end()
    return {name: statistics.median(values) * 1e6 for name, values in taken.items()}


_BUILD = (
    "import sys, time; t = time.perf_counter(); from bench.apps import build; build(sys.argv[1]);"
    "print((time.perf_counter() - t) * 1000);"
    "print(next(l.split()[1] for l in open('/proc/self/status') if l.startswith('VmRSS')))"
)


def imports(
    environ: Callable[[], dict[str, str]], names: Sequence[str] = NAMES, rounds: int = IMPORTS
) -> tuple[Figures, Figures]:
    """Return the median milliseconds from a bare interpreter to a built application, and its megabytes then."""
    taken: dict[str, list[list[float]]] = {name: [] for name in names}
    with _compiled(environ, names) as compiled:
        for _ in range(rounds):
            for name in names:
                taken[name].append([float(word) for word in _build(name, compiled()).stdout.split()])
    milliseconds, kilobytes = ({n: statistics.median(v[i] for v in taken[n]) for n in names} for i in (0, 1))
    return milliseconds, {name: size / 1024 for name, size in kilobytes.items()}


def import_instructions(environ: Callable[[], dict[str, str]], names: Sequence[str] = NAMES) -> Figures | str:
    """Count the CPU instructions from nothing to a built application; a sentence without callgrind."""
    if not shutil.which("valgrind"):
        return _NEEDED
    tool = ("valgrind", "--tool=callgrind", "--callgrind-out-file=/dev/null")
    with _compiled(environ, names) as compiled:
        return _beside(names, lambda name: _collected(_build(name, compiled(), tool).stderr))


@contextlib.contextmanager
def _compiled(
    environ: Callable[[], dict[str, str]], names: Sequence[str]
) -> Iterator[Callable[[], dict[str, str]]]:
    """Let all modules be compiled before they are measured, as pip does when it installs them."""
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:

        def compiled() -> dict[str, str]:
            return {**environ(), "PYTHONPYCACHEPREFIX": folder, "PYTHONDONTWRITEBYTECODE": ""}

        for name in names:
            _build(name, compiled())
        yield compiled


def _build(name: str, environ: dict[str, str], tool: tuple[str, ...] = ()) -> subprocess.CompletedProcess[str]:
    """Build an application in a process of its own, which says how long it took and how large it is."""
    return subprocess.run(
        [*tool, sys.executable, "-c", _BUILD, name], env={**os.environ, **environ, "PYTHONHASHSEED": "0"},
        check=True, capture_output=True, text=True, timeout=300,
    )  # fmt: skip


RESULTS = Path(__file__).parent / "results.json"
