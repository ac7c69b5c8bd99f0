"""What each room costs alone, written to docs/cost.md."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from bench.measure import instructions
from flask_prod.core.registry import BUILT_IN

PAGE = Path(__file__).parent.parent / "docs" / "cost.md"
HEAD = """# Cost per request

Made by `python -m bench rooms`: CPU instructions of one request under callgrind, as a part of a bare Flask request
(1.00), everything in memory, 1 % sampled by Sentry. A room alone is a kit with this room and those it
requires; its row says what it adds to a kit without rooms. Figures repeat to about 0.01.

| kit with | instructions, bare Flask = 1 | adds |
|---|---|---|
"""
TAIL = """
`make bench` compares the whole with bare Flask and the libraries by hand; `bench/floor.json` holds what CI allows.
"""


def write_costs(environ: Callable[[], dict[str, str]]) -> int:
    """Count every room, write the page, and return the exit code."""
    names = ["bare", "kit.", *(f"kit.{room}" for room in BUILT_IN), "kit"]
    counted = instructions(environ, names)
    if isinstance(counted, str):
        print(counted)
        return 1
    ratios = {name: count / counted["bare"] for name, count in counted.items()}
    rows = [f"| no room: the pass itself | {ratios['kit.']:.2f} | |"]
    for room in BUILT_IN:
        ratio = ratios[f"kit.{room}"]
        rows.append(f"| {room} | {ratio:.2f} | {max(0.0, ratio - ratios['kit.']):.2f} |")
    rows.append(f"| **all rooms** | **{ratios['kit']:.2f}** | |")
    PAGE.write_text(HEAD + "\n".join(rows) + "\n" + TAIL)
    print(PAGE.read_text())
    return 0
