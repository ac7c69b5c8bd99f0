"""What a dashboard is: rows of panels, each with a title, what it means, its unit and its queries."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from zlib import crc32

from ..alerts import Scope
from ..plan import Plan

WIDTH = 24
"""Columns of a dashboard."""

GRAPH, STAT, HEAT = "timeseries", "stat", "heatmap"

GREEN, YELLOW, RED = "green", "yellow", "red"

_LONGEST_UID = 40

_CHOSEN = 'instance=~"$instance", environment=~"$environment"'


@dataclass(frozen=True)
class Query:
    """One expression of PromQL, and what its series are called: `{{label}}` stands for the label's value.

    A query `now` is asked once, for the end of the time that is shown, rather than for each of its moments.
    """

    expr: str
    legend: str = ""
    now: bool = False
    exemplars: bool = False


@dataclass(frozen=True, kw_only=True)
class Panel:
    """One picture. `steps` are values from which on a colour holds; the first holds from the beginning."""

    title: str
    description: str
    unit: str
    queries: tuple[Query, ...]
    kind: str = GRAPH
    width: int = 8
    height: int = 8
    stacked: bool = False
    most: float | None = None
    """The value at the upper end of the axis, where it is known."""

    steps: tuple[tuple[float, str], ...] = ()

    @property
    def number(self) -> int:
        """The panel's id: it stays when others come and go, so that links to it hold."""
        return crc32(self.title.encode()) & 0x7FFFFFFF


@dataclass(frozen=True)
class Row:
    """Panels below one heading, laid from left to right."""

    title: str
    panels: tuple[Panel, ...]

    @property
    def number(self) -> int:
        """The row's id."""
        return crc32(f"row {self.title}".encode()) & 0x7FFFFFFF

    def placed(self, top: int) -> Iterator[tuple[Panel, int, int]]:
        """Yield each panel with its column and line, the first at line *top*."""
        column, line, lowest = 0, top, top
        for panel in self.panels:
            if column + panel.width > WIDTH:
                column, line = 0, lowest
            yield panel, column, line
            column, lowest = column + panel.width, max(lowest, line + panel.height)


@dataclass(frozen=True, kw_only=True)
class Board:
    """One dashboard; `page` is the page of runbooks about what it shows, empty for none."""

    name: str
    title: str
    description: str
    rows: tuple[Row, ...]
    page: str = ""
    span: str = "now-3h"
    """What is shown at first: until now, from then on."""

    def uid(self, plan: Plan) -> str:
        """Return what links and provisioning know the dashboard by."""
        uid = f"{plan.name}-{self.name}"
        if len(uid) <= _LONGEST_UID:
            return uid
        return f"{plan.name[: _LONGEST_UID - 10 - len(self.name)]}-{crc32(uid.encode()):08x}-{self.name}"


@dataclass(frozen=True)
class Lens:
    """The matchers of one service's series, narrowed to what is chosen above the dashboard."""

    scope: Scope

    @property
    def web(self) -> str:
        """The web instances."""
        return f"{self.scope.web}, {_CHOSEN}"

    @property
    def all(self) -> str:
        """The web instances and the job workers."""
        return f"{self.scope.all}, {_CHOSEN}"

    @property
    def service(self) -> str:
        """What is recorded of the whole service, and of no single instance."""
        return f'{self.scope.web}, environment=~"$environment"'


def lens_of(plan: Plan) -> Lens:
    """Return the matchers of an application."""
    return Lens(Scope(plan.name, plan.uses_jobs))


def rate(metric: str, where: str, *by: str) -> str:
    """Return the growth of a counter in a second, added up over instances but for the labels *by*."""
    return f"sum{_by(by)} (rate({metric}{{{where}}}[$__rate_interval]))"


def quantile(share: float, histogram: str, where: str, *by: str) -> str:
    """Return what a share of the values stays below, over all instances, for each combination of labels *by*."""
    rates = f"rate({histogram}_bucket{{{where}}}[$__rate_interval])"
    return f"histogram_quantile({share:g}, sum{_by(('le', *by))} ({rates}))"


def highest(metric: str, where: str, *by: str) -> str:
    """Return the highest value that any instance tells: for what all tell alike, and for the fullest process."""
    return f"max{_by(by)} ({metric}{{{where}}})"


def ratio(part: str, whole: str) -> str:
    """Return a share, 0 where nothing of the part has been seen yet."""
    return f"({part} or 0 * {whole}) / {whole}"


def words(name: str) -> str:
    """Return the name of a metric, or a part of it, as people write."""
    text = re.sub(r"[_:]+", " ", name).strip()
    return text[:1].upper() + text[1:]


def _by(labels: tuple[str, ...]) -> str:
    return f" by ({', '.join(labels)})" if labels else ""
