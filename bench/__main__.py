"""`python -m bench [NAME ...]`: run the benchmarks, print the table, write bench/results.json."""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from bench.measure import NAMES, RESULTS, Figures, imports, instructions, surroundings, times
from bench.sink import Sink
from flask_prod.server.embedded import EmbeddedValkey

Row = dict[str, Any]
GROUPS = ("request.memory", "request.redis", "import")


def main() -> None:
    """Run what was asked for and show it."""
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument(
        "names", nargs="*", metavar="NAME", help=f"beginning of a benchmark's name: {', '.join(GROUPS)}"
    )
    wanted = tuple(parser.parse_args().names) or ("",)

    rows: list[Row] = []
    for row in _rows(lambda name: name.startswith(wanted) or any(one.startswith(name) for one in wanted if one)):
        _show(row, first=not rows)
        rows.append(row)
    RESULTS.write_text(json.dumps(rows, indent=2) + "\n")
    print(f"\nRatios to bare Flask in the same run; absolute times mean little. Written to {RESULTS.name}.")


def _rows(wanted: Callable[[str], bool]) -> Iterator[Row]:
    with ExitStack() as stack:
        sink = stack.enter_context(Sink())
        memory = stack.enter_context(surroundings(None, sink.dsn))
        if wanted("request.memory"):
            yield from _request("request.memory", memory)
        if wanted("request.redis"):
            valkey = EmbeddedValkey(Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="bench-"))))
            url = valkey.start()
            stack.callback(valkey.stop)
            yield from _request("request.redis", stack.enter_context(surroundings(url, sink.dsn)))
        if wanted("import"):
            milliseconds, megabytes = imports(memory)
            yield _row("import.ms", milliseconds, "ms")
            yield _row("import.mb", megabytes, "MB")


def _request(name: str, environ: Callable[[], dict[str, str]]) -> Iterator[Row]:
    counted = instructions(environ)
    yield {"name": name, "note": counted} if isinstance(counted, str) else _row(name, counted, "instructions")
    yield _row(f"{name}.time", times(environ), "us")


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
    if "note" in row:
        print(f"{row['name']:<22}{row['note']}")
        return
    figures = "".join(f"{row[name]:>12,.1f}" for name in NAMES)
    print(f"{row['name']:<22}{figures}  {row['unit']:<13}{row['ratio_by_hand']:>7.2f}x{row['ratio_kit']:>7.2f}x")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
