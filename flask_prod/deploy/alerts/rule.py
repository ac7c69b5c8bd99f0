"""What an alert is: its condition with a limit, what it says, where help is, and two cases that prove it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

CRITICAL, WARNING = "critical", "warning"
"""Somebody is called at night; somebody looks in the morning."""


@dataclass(frozen=True, kw_only=True)
class Case:
    """Series as promtool writes them, and the moment at which the alert is looked at."""

    series: Mapping[str, str]
    at: str = "30m"
    labels: Mapping[str, str] = field(default_factory=dict)
    """Labels that come from the series, where it fires."""

    description: str = ""
    """What the description then says, with its values."""


@dataclass(frozen=True, kw_only=True)
class Alert:
    """One alert: it fires while each of `values` compares with `limit` as `compare` says, and `guard` holds.

    `about` names what it is about: a critical one silences the warnings about the same thing. `page` is the page
    of its runbook, whose heading of the alert's name is the anchor.
    """

    name: str
    values: tuple[str, ...]
    limit: float
    summary: str
    description: str
    severity: str
    about: str
    page: str
    fires: Case
    quiet: Case
    compare: str = ">"
    guard: str = ""
    wait: str = "0m"
    step: str = "1m"
    """How far the values of its cases lie apart: those of windows of days would be thousands otherwise."""

    @property
    def expr(self) -> str:
        """The condition in PromQL."""
        parts = [f"{value} {self.compare} {self.limit:.10g}" for value in self.values]
        return "\nand\n".join([*parts, self.guard] if self.guard else parts)

    def runbook(self, base: str) -> str:
        """Return the address of its runbook."""
        return f"{base.rstrip('/')}/{self.page}.md#{self.name.lower()}"


@dataclass(frozen=True, kw_only=True)
class Recording:
    """A series that Prometheus computes once, for alerts and dashboards; `level:metric:operation`."""

    record: str
    expr: str


@dataclass(frozen=True)
class Scope:
    """How the rules name the processes of one service: by the label `job` that the scrape gives them."""

    name: str
    jobs: bool

    @property
    def web(self) -> str:
        """The matcher of web instances."""
        return f'job="{self.name}"'

    @property
    def worker(self) -> str:
        """The matcher of job workers that have a page of their own."""
        return f'job="{self.name}-worker"'

    @property
    def all(self) -> str:
        """The matcher of everything: a job worker counts in its own page, or beside a web server in that one's."""
        return f'job=~"{self.name}|{self.name}-worker"' if self.jobs else self.web
