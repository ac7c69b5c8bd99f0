"""Tables on a terminal: aligned, coloured where colours are shown, and safe whatever the cells hold."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import click

COLOURS = {
    "ok": "green", "healthy": "green", "ready": "green", "alive": "green",
    "warn": "yellow", "degraded": "yellow", "starting": "yellow", "draining": "yellow",
    "fail": "red", "unhealthy": "red", "unready": "red",
}  # fmt: skip


def printable(text: str) -> str:
    """Return *text* without what could move a cursor or change a terminal: a remote service wrote it."""
    return "".join(char if char.isprintable() else " " for char in text)


def lines(header: Sequence[str], rows: Iterable[Sequence[str]], colours: Mapping[str, str] = COLOURS) -> list[str]:
    """Return a table, one line per row; a cell that is a known state has its colour."""
    cells = [[printable(cell) for cell in row] for row in rows]
    widths = [max(len(row[column]) for row in [list(header), *cells]) for column in range(len(header))]
    bold = [click.style(_line(header, widths), bold=True)]
    return bold + [_line(row, widths, colours) for row in cells]


def coloured(state: str) -> str:
    """Return a state in its colour."""
    return click.style(printable(state), fg=COLOURS.get(state), bold=True)


def _line(cells: Sequence[str], widths: Sequence[int], colours: Mapping[str, str] | None = None) -> str:
    padded = [cell.ljust(width) for cell, width in zip(cells, widths, strict=True)]
    if colours:
        padded = [
            click.style(text, fg=colours[cell]) if cell in colours else text
            for cell, text in zip(cells, padded, strict=True)
        ]
    return "  ".join(padded).rstrip()
