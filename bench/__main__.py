"""`python -m bench [NAME ...]`: run the benchmarks, print the table, write bench/results.json.

`--gate` compares with bench/floor.json and ends with 1 when a request is dearer; `rooms` writes docs/cost.md.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from bench.cache import memory_hit, redis_hit, tiered_hit
from bench.concurrency import concurrency
from bench.health import probe_instructions, probe_times
from bench.jobs import jobs
from bench.measure import (
    GATED,
    NAMES,
    RESULTS,
    Figures,
    import_instructions,
    imports,
    instructions,
    surroundings,
    times,
)
from bench.pages import page_instructions, page_times
from bench.queries import query_instructions, query_times, told
from bench.rooms import write_costs
from bench.routing import chosen, routing_instructions, routing_times
from bench.sink import Sink
from bench.throughput import throughput
from flask_prod.server.embedded import EmbeddedValkey

Row = dict[str, Any]
Environ = Callable[[], dict[str, str]]
GROUPS = (
    "request.memory",
    "request.redis",
    "request.traced",
    "throughput.memory",
    "throughput.redis",
    "query.overhead",
    "query.traced",
    "query.routing",
    "cache.page",
    "cache.memory_hit",
    "cache.tiered_hit",
    "cache.redis_hit",
    "health.live",
    "jobs",
    "import",
)
LONG = ("concurrency.10k",)
"""Those that run only when they are named."""

_BESIDE = {
    "cache.page": (page_instructions, page_times),
    "health.live": (probe_instructions, probe_times),
    "query.routing": (routing_instructions, routing_times),
}

_WORDS = {"query.routing": chosen}
"""What the times of one of them are worth in words."""

FLOOR = Path(__file__).parent / "floor.json"
PLAY = 1.05
"""By how much a ratio may exceed its floor: callgrind repeats itself to about 1 %."""


def main() -> None:
    """Run what was asked for and show it."""
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    names = ", ".join((*GROUPS, *LONG))
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"beginnings of {names}; or rooms")
    parser.add_argument("--gate", action="store_true", help="only count the kit, and compare with the floor")
    asked = parser.parse_args()

    with ExitStack() as stack:
        surround = _Surroundings(stack)
        if asked.names == ["rooms"]:
            sys.exit(write_costs(surround.memory()))
        rows: list[Row] = []
        beginnings = tuple(asked.names) or ("",)
        for row in (_gated if asked.gate else _rows)(surround, beginnings):
            _show(row, first=not rows)
            rows.append(row)
    RESULTS.write_text(json.dumps(rows, indent=2) + "\n")
    print(f"\nRatios to bare Flask in the same run; absolute times mean little. Written to {RESULTS.name}.")
    if asked.gate:
        sys.exit(gate(rows, json.loads(FLOOR.read_text())))


def gate(rows: Sequence[Row], floor: dict[str, float]) -> int:
    """Tell what has become dearer than its floor allows; return the exit code."""
    dearer = [row for row in rows if row.get("ratio_kit", 0) > PLAY * floor.get(row["name"], float("inf"))]
    for row in dearer:
        print(
            f"{row['name']} costs {row['ratio_kit']}x bare Flask; bench/floor.json allows {floor[row['name']]}x."
        )
    return 1 if dearer else 0


class _Surroundings:
    """What the applications need, started when it is first asked for."""

    def __init__(self, stack: ExitStack) -> None:
        self._stack = stack
        self._sink = stack.enter_context(Sink())
        self._dsn = self._sink.dsn

    def memory(self) -> Environ:
        return self._stack.enter_context(surroundings(None, self._dsn))

    def traced(self) -> Environ:
        environ = self.memory()
        # Under callgrind a second holds few requests: spans go by number, as they do at full speed, for all alike.
        batches = {"OTEL_BSP_MAX_EXPORT_BATCH_SIZE": "100", "OTEL_BSP_SCHEDULE_DELAY": "60000"}
        return lambda: {**environ(), **batches, "BENCH_OTLP": self._sink.url}

    def redis(self) -> Environ:
        folder = self._stack.enter_context(tempfile.TemporaryDirectory(prefix="bench-"))
        valkey = EmbeddedValkey(Path(folder))
        url = valkey.start()
        self._stack.callback(valkey.stop)
        return self._stack.enter_context(surroundings(url, self._dsn))


def _gated(surround: _Surroundings, beginnings: tuple[str, ...]) -> Iterator[Row]:
    """Count what has a floor, beside one another: counts, unlike times, do not mind."""
    counts: list[Callable[[], Row]] = []

    def add(name: str, count: Callable[..., Figures | str], start: Callable[[], Environ]) -> None:
        if name.startswith(beginnings):
            environ = start()
            counts.append(lambda: _counted(name, count(environ, names=GATED)))

    # The longest first.
    add("import", import_instructions, surround.memory)
    add("request.redis", instructions, surround.redis)
    add("request.traced", instructions, surround.traced)
    add("request.memory", instructions, surround.memory)
    add("cache.page", page_instructions, surround.memory)
    add("query.overhead", query_instructions, surround.memory)
    add("health.live", probe_instructions, surround.memory)
    with ThreadPoolExecutor(len(counts) or 1) as pool:
        yield from pool.map(lambda count: count(), counts)
    if "import".startswith(beginnings):
        yield _row("import.mb", imports(surround.memory(), GATED, rounds=1)[1], "MB")


def _rows(surround: _Surroundings, beginnings: tuple[str, ...]) -> Iterator[Row]:
    for store, start in (("memory", surround.memory), ("redis", surround.redis)):
        wanted = [kind for kind in ("request", "throughput") if f"{kind}.{store}".startswith(beginnings)]
        environ = start() if wanted else None
        if environ is not None and "request" in wanted:
            yield from _request(f"request.{store}", environ)
        if environ is not None and "throughput" in wanted:
            yield _noted(f"throughput.{store}", throughput(environ), "requests/s")
    if "request.traced".startswith(beginnings):
        yield from _request("request.traced", surround.traced())
    yield from _queries(surround, beginnings)
    for name, (count, take) in _BESIDE.items():
        if name.startswith(beginnings):
            environ = surround.memory()
            yield _counted(name, count(environ))
            taken = take(environ)
            words = _WORDS.get(name)
            yield _row(f"{name}.time", taken, "us") | ({"note": words(taken)} if words is not None else {})
    yield from _hits(surround, beginnings)
    if "jobs".startswith(tuple(name[:4] for name in beginnings)):
        yield from jobs()
    if "import".startswith(beginnings):
        yield from _imports(surround.memory())
    if set(LONG) & set(beginnings):
        yield _noted("concurrency.10k", concurrency(surround.redis()), "KB")


def _request(name: str, environ: Environ) -> Iterator[Row]:
    yield _counted(name, instructions(environ))
    yield _row(f"{name}.time", times(environ), "us")


def _imports(environ: Environ) -> Iterator[Row]:
    yield _counted("import", import_instructions(environ))
    milliseconds, megabytes = imports(environ)
    yield _row("import.ms", milliseconds, "ms")
    yield _row("import.mb", megabytes, "MB")


def _queries(surround: _Surroundings, beginnings: tuple[str, ...]) -> Iterator[Row]:
    for name, start in (("query.overhead", surround.memory), ("query.traced", surround.traced)):
        if name.startswith(beginnings):
            environ = start()
            yield _counted(name, query_instructions(environ))
            taken = query_times(environ)
            yield {**_row(f"{name}.time", taken, "us"), "note": told(taken)}


def _hits(surround: _Surroundings, beginnings: tuple[str, ...]) -> Iterator[Row]:
    if "cache.memory_hit".startswith(beginnings):
        yield _row("cache.memory_hit", memory_hit(), "us")
    wanted = [(f"cache.{hit.__name__}", hit) for hit in (tiered_hit, redis_hit)]
    wanted = [(name, hit) for name, hit in wanted if name.startswith(beginnings)]
    url = surround.redis()()["REDIS_URL"] if wanted else ""
    for name, hit in wanted:
        yield _row(name, hit(url), "us")


def _counted(name: str, found: Figures | str) -> Row:
    return {"name": name, "note": found} if isinstance(found, str) else _row(name, found, "instructions")


def _noted(name: str, found: tuple[Figures, str] | str, unit: str) -> Row:
    if isinstance(found, str):
        return {"name": name, "note": found}
    figures, told = found
    return {**_row(name, figures, unit), "note": told}


def _row(name: str, figures: Figures, unit: str) -> Row:
    row: Row = {"name": name, "unit": unit} | {one: round(figures[one], 1) for one in NAMES if one in figures}
    ratios = {one: round(figures[one] / figures["bare"], 2) for one in NAMES[1:] if one in figures}
    return row | {f"ratio_{one}": ratio for one, ratio in ratios.items()}


def _show(row: Row, first: bool) -> None:
    if first:
        print(f"{'benchmark':<22}{'bare':>12}{'by hand':>12}{'kit':>12}  {'unit':<13}{'by hand':>8}{'kit':>8}")
    if "bare" in row:
        figures = "".join(f"{_told(row, one, ',.1f'):>12}" for one in NAMES)
        ratios = "".join(f"{_told(row, f'ratio_{one}', '.2f', 'x'):>8}" for one in NAMES[1:])
        print(f"{row['name']:<22}{figures}  {row['unit']:<13}{ratios}")
    if "note" in row:
        print(f"{row['name']:<22}{row['note']}")
    sys.stdout.flush()


def _told(row: Mapping[str, Any], key: str, form: str, unit: str = "") -> str:
    """Return a figure, or a dash for what was left out."""
    return f"{row[key]:{form}}{unit}" if key in row else "-"


if __name__ == "__main__":
    main()
