"""`python -m bench [NAME ...]`: run the benchmarks, print the table, write bench/results.json.

`--gate` compares with bench/floor.json and ends with 1 when a request is dearer; `rooms` writes docs/cost.md.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from bench.cache import memory_hit, redis_hit, tiered_hit
from bench.concurrency import concurrency
from bench.health import probe_instructions, probe_times
from bench.jobs import jobs
from bench.measure import (
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
from bench.routing import routing_instructions, routing_times
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

FLOOR = Path(__file__).parent / "floor.json"
PLAY = 1.05
"""By how much a ratio may exceed its floor: callgrind repeats itself to about 1 %."""


def main() -> None:
    """Run what was asked for and show it."""
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    names = ", ".join((*GROUPS, *LONG))
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"beginnings of {names}; or rooms")
    parser.add_argument("--gate", action="store_true", help="only count, and compare with the floor")
    asked = parser.parse_args()

    with ExitStack() as stack:
        surround = _Surroundings(stack)
        if asked.names == ["rooms"]:
            sys.exit(write_costs(surround.memory()))
        rows: list[Row] = []
        for row in _rows(surround, tuple(asked.names) or ("",), asked.gate):
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


def _rows(surround: _Surroundings, beginnings: tuple[str, ...], gated: bool) -> Iterator[Row]:
    for store, start in (("memory", surround.memory), ("redis", surround.redis)):
        wanted = [kind for kind in ("request", "throughput") if f"{kind}.{store}".startswith(beginnings)]
        environ = start() if wanted else None
        if environ is not None and "request" in wanted:
            yield from _request(f"request.{store}", environ, gated)
        if environ is not None and "throughput" in wanted and not gated:
            yield _noted(f"throughput.{store}", throughput(environ), "requests/s")
    if "request.traced".startswith(beginnings):
        yield from _request("request.traced", surround.traced(), gated)
    yield from _queries(surround, beginnings, gated)
    for name in _asked_beside(beginnings, gated):
        yield from _beside(name, surround.memory(), gated)
    if not gated:
        yield from _hits(surround, beginnings)
    if "jobs".startswith(tuple(name[:4] for name in beginnings)) and not gated:
        yield from jobs()
    if "import".startswith(beginnings):
        yield from _imports(surround.memory(), gated)
    if set(LONG) & set(beginnings):
        yield _noted("concurrency.10k", concurrency(surround.redis()), "KB")


def _request(name: str, environ: Environ, gated: bool) -> Iterator[Row]:
    counted = instructions(environ)
    yield {"name": name, "note": counted} if isinstance(counted, str) else _row(name, counted, "instructions")
    if not gated:
        yield _row(f"{name}.time", times(environ), "us")


def _imports(environ: Environ, gated: bool) -> Iterator[Row]:
    counted = import_instructions(environ)
    yield (
        {"name": "import", "note": counted}
        if isinstance(counted, str)
        else _row("import", counted, "instructions")
    )
    milliseconds, megabytes = imports(environ)
    if not gated:
        yield _row("import.ms", milliseconds, "ms")
    yield _row("import.mb", megabytes, "MB")


def _queries(surround: _Surroundings, beginnings: tuple[str, ...], gated: bool) -> Iterator[Row]:
    for name, start in (("query.overhead", surround.memory), ("query.traced", surround.traced)):
        if not name.startswith(beginnings) or (gated and name == "query.traced"):
            continue
        environ = start()
        counted = query_instructions(environ)
        yield {"name": name, "note": counted} if isinstance(counted, str) else _row(name, counted, "instructions")
        if not gated:
            taken = query_times(environ)
            yield {**_row(f"{name}.time", taken, "us"), "note": told(taken)}


def _asked_beside(beginnings: tuple[str, ...], gated: bool) -> list[str]:
    """Return what is asked for of those that are counted and timed with applications of their own."""
    # What routing costs is told in microseconds, which a gate does not ask for.
    return [name for name in _BESIDE if name.startswith(beginnings) and not (gated and name == "query.routing")]


def _beside(name: str, environ: Environ, gated: bool) -> Iterator[Row]:
    count, take = _BESIDE[name]
    counted = count(environ)
    yield {"name": name, "note": counted} if isinstance(counted, str) else _row(name, counted, "instructions")
    if not gated:
        yield _row(f"{name}.time", take(environ), "us")


def _hits(surround: _Surroundings, beginnings: tuple[str, ...]) -> Iterator[Row]:
    if "cache.memory_hit".startswith(beginnings):
        yield _row("cache.memory_hit", memory_hit(), "us")
    wanted = [(f"cache.{hit.__name__}", hit) for hit in (tiered_hit, redis_hit)]
    wanted = [(name, hit) for name, hit in wanted if name.startswith(beginnings)]
    url = surround.redis()()["REDIS_URL"] if wanted else ""
    for name, hit in wanted:
        yield _row(name, hit(url), "us")


def _noted(name: str, found: tuple[Figures, str] | str, unit: str) -> Row:
    if isinstance(found, str):
        return {"name": name, "note": found}
    figures, told = found
    return {**_row(name, figures, unit), "note": told}


def _row(name: str, figures: Figures, unit: str) -> Row:
    bare, by_hand, kit = (figures[one] for one in NAMES)
    return {
        "name": name,
        "bare": round(bare, 1),
        "by_hand": round(by_hand, 1),
        "kit": round(kit, 1),
        "unit": unit,
        "ratio_by_hand": round(by_hand / bare, 2),
        "ratio_kit": round(kit / bare, 2),
    }


def _show(row: Row, first: bool) -> None:
    if first:
        print(f"{'benchmark':<22}{'bare':>12}{'by hand':>12}{'kit':>12}  {'unit':<13}{'by hand':>8}{'kit':>8}")
    if "bare" in row:
        figures = "".join(f"{row[name]:>12,.1f}" for name in NAMES)
        print(
            f"{row['name']:<22}{figures}  {row['unit']:<13}{row['ratio_by_hand']:>7.2f}x{row['ratio_kit']:>7.2f}x"
        )
    if "note" in row:
        print(f"{row['name']:<22}{row['note']}")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
