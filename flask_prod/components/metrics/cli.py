"""`flask prod metrics`: what this service measures."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from .face import AppMetrics

APPLICATION = "application"
"""The origin of what the application declared itself."""


@dataclass(frozen=True, order=True)
class Row:
    """One metric: who made it, what it is called and means."""

    origin: str
    name: str
    kind: str
    labels: tuple[str, ...]
    documentation: str


def metrics_command(metrics: AppMetrics) -> click.Command:
    """Build the command for one application."""

    @click.command("metrics")
    @click.option("--markdown", is_flag=True, help="As a table for a page, of the rooms' metrics only.")
    def command(markdown: bool) -> None:
        """Show which metrics this service has: those of the rooms and its own.

        \b
        Examples:
          flask prod metrics
          flask prod metrics --markdown > metrics.md
        """
        metrics.materialise()
        rows = sorted(metrics.instruments.rows())
        click.echo(as_markdown(row for row in rows if row.origin != APPLICATION) if markdown else as_text(rows))

    return command


def as_markdown(rows: Iterable[Row]) -> str:
    """Return a table for a page."""
    lines = ["| metric | type | labels | | room |", "|---|---|---|---|---|"]
    for row in rows:
        labels = ", ".join(f"`{label}`" for label in row.labels)
        lines.append(f"| `{row.name}` | {row.kind} | {labels} | {row.documentation} | {row.origin} |")
    return "\n".join(lines)


def as_text(rows: Iterable[Row]) -> str:
    """Return lines for a terminal, the rooms one after another."""
    lines: list[str] = []
    origin = ""
    for row in rows:
        if row.origin != origin:
            origin = row.origin
            lines += ["", f"{origin}:"]
        labels = "{" + ", ".join(row.labels) + "}" if row.labels else ""
        lines += [f"  {row.name}{labels}", f"      {row.kind}. {row.documentation}"]
    return "\n".join(lines[1:])
