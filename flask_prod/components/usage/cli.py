"""`flask prod usage`: who used what, how much."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from datetime import UTC, datetime

import click

from flask_prod.core.errors import Unavailable
from flask_prod.core.values import parse_duration

from .engine import CLIENT, HOUR, ROUTE, Cell, Name, fold
from .settings import UsageSettings
from .stores import UsageStore

_COLUMNS = ("requests", "errors", "refused", "bytes", "seconds")
_LATER = "What was counted in the last 20 seconds is not in it yet."


def usage_command(store: UsageStore, settings: UsageSettings) -> click.Command:
    """Build the command for one application."""

    @click.command("usage")
    @click.option("--by", type=click.Choice(["route", "key", "client"]), default="route", show_default=True)
    @click.option("--since", default="24h", show_default=True, help="How far back: 90m, 24h, 7d.")
    @click.option("--limit", default=50, show_default=True, help="Rows to show; 0 for all.")
    @click.option("--json", "as_json", is_flag=True, help="For programs: all rows, and each hour.")
    def usage(by: str, since: str, limit: int, as_json: bool) -> None:
        """Show who used what, and how much, by the hour in UTC.

        \b
        Examples:
          flask prod usage
          flask prod usage --by key --since 7d
          flask prod usage --json
        """
        if by == "client" and not settings.clients:
            raise click.ClickException("Clients are not counted: set USAGE_CLIENTS to true.")
        first, last = _hours(since)
        try:
            hours = dict(store.read(first, last))
        except Unavailable as error:
            raise click.ClickException(f"Usage cannot be read now: {error}.") from error
        kind = CLIENT if by == "client" else ROUTE
        if as_json:
            click.echo(json.dumps(_document(hours, kind, by, first), indent=2))
        else:
            sums = _sum(hours, kind, by)
            click.echo(_table(sums, by, _time(first), limit) if sums else _nothing(store, _time(first)))

    return usage


def _hours(since: str) -> tuple[int, int]:
    try:
        seconds = parse_duration(since)
    except ValueError:
        raise click.BadParameter("takes a duration such as 90m, 24h or 7d", param_hint="--since") from None
    now = time.time()
    return int(now - min(seconds, now)) // HOUR, int(now) // HOUR


def _sum(hours: Mapping[int, Mapping[Name, Cell]], kind: str, by: str) -> dict[str, Cell]:
    """Add hours up, the most used first."""
    sums: dict[str, Cell] = {}
    for cells in hours.values():
        for name, cell in fold(cells, kind, by).items():
            known = sums.setdefault(name, [0, 0, 0, 0, 0.0])
            known[:] = (mine + more for mine, more in zip(known, cell, strict=True))
    return dict(sorted(sums.items(), key=lambda row: (-row[1][0], row[0])))


def _document(hours: Mapping[int, Mapping[Name, Cell]], kind: str, by: str, first: int) -> dict[str, object]:
    return {
        "by": by,
        "since": _time(first),
        "rows": [{by: name, **_numbers(cell)} for name, cell in _sum(hours, kind, by).items()],
        "hours": [
            {
                "hour": _time(hour),
                "rows": [{by: name, **_numbers(cell)} for name, cell in fold(cells, kind, by).items()],
            }
            for hour, cells in sorted(hours.items())
        ],
    }


def _numbers(cell: Cell) -> dict[str, float]:
    whole = dict(zip(_COLUMNS[:4], map(int, cell), strict=False))
    return {**whole, "seconds": round(cell[4], 3)}


def _nothing(store: UsageStore, since: str) -> str:
    """Say where was looked: a command with another environment than the service looks elsewhere."""
    return f"Nothing was counted since {since} in {store.where}. {_LATER}"


def _table(sums: Mapping[str, Cell], by: str, since: str, limit: int) -> str:
    shown = list(sums.items())[: limit or None]
    total = [sum(numbers) for numbers in zip(*sums.values(), strict=True)]
    rows = [(by, *_COLUMNS), *(_row(name, cell) for name, cell in shown), _row("total", total)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = [
        "  ".join(
            [
                row[0].ljust(widths[0]),
                *(text.rjust(width) for text, width in zip(row[1:], widths[1:], strict=True)),
            ]
        )
        for row in rows
    ]
    left = len(sums) - len(shown)
    more = f"{left} more rows: --limit 0 shows them.\n" if left else ""
    return "\n".join([f"Since {since}:", "", *lines, "", more + _LATER])


def _row(name: str, cell: Cell) -> tuple[str, ...]:
    return (name, *(f"{int(number):,}" for number in cell[:4]), f"{cell[4]:,.1f}")


def _time(hour: int) -> str:
    return datetime.fromtimestamp(hour * HOUR, UTC).strftime("%Y-%m-%dT%H:00Z")
