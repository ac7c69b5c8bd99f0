"""Findings as lines for people and as objects for programs: what `check` and `audit` print."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator

import click

from flask_prod.review import Finding, Report

from .table import printable

_COLOURS = {"error": "red", "warning": "yellow", "info": "cyan"}
_WIDTH = 100
_PAGE = "docs/check.md"


def as_object(one: Finding) -> dict[str, object]:
    """Return a finding as plain data."""
    told: dict[str, object] = {
        "id": one.id, "severity": one.severity, "title": one.title, "evidence": one.evidence, "remedy": one.remedy,
        "setting": one.key or None, "file": str(one.path) if one.path else None, "mendable": one.fix is not None,
        "help": f"{_PAGE}#{one.id.lower()}",
    }  # fmt: skip
    return told | ({"reason": one.reason} if one.reason is not None else {})


def lines(report: Report, what: str) -> Iterator[str]:
    """Yield what a person reads; *what* says at the end how much was asked."""
    for one in report.findings:
        label = click.style(f"{one.severity:<7}", fg=_COLOURS[one.severity])
        yield f"{click.style(one.id, bold=True)}  {label}  {printable(one.title)}"
        yield from _wrapped("found:  ", one.evidence)
        yield from _wrapped("do:     ", one.remedy)
        yield ""
    for one in report.silenced:
        yield click.style(printable(f"{one.id}  silenced: {one.evidence} ({one.reason})"), dim=True)
    for id in report.unneeded:
        yield f"{id}  is silenced, and there is nothing to silence: take it out."
    counts = [(name, sum(one.severity == name for one in report.findings)) for name in _COLOURS]
    found = ", ".join(f"{count} {name}{'s' if count > 1 else ''}" for name, count in counts if count)
    yield click.style(f"{found or 'Nothing found'} ({what}).", fg="red" if found else "green", bold=True)
    if found:
        yield f"Each is explained in {_PAGE}."


def _wrapped(label: str, text: str) -> list[str]:
    return textwrap.wrap(printable(text), _WIDTH, initial_indent=f"      {label}", subsequent_indent=" " * 14)
