"""What users hold: own checks before any application exists, and the health of the current application."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from typing import TypeAlias, TypeVar

from flask_prod.core.component import Check, Finding
from flask_prod.core.kit import current_state
from flask_prod.core.settings import ServiceSettings
from flask_prod.core.values import parse_duration

from .engine import Engine, Plan, Report
from .shown import described, moment

Probe: TypeAlias = Callable[[], "Finding | bool | None"]
ProbeT = TypeVar("ProbeT", bound=Probe)

RESERVED = frozenset({"live", "ready", "startup"})
"""Names that are probes of their own below HEALTH_PATH."""


class HealthHandle:
    """The health of one application in one process; `kit.handle("health")` is one."""

    def __init__(self, engine: Engine, service: ServiceSettings) -> None:
        self.engine = engine
        self._service = service
        self._draining: list[Callable[[], bool]] = []
        self.after_fork()

    def after_fork(self) -> None:
        """Begin anew in a forked child: not started, not draining."""
        self.started = False
        self._drained = False
        self.born = time.time()
        self.engine.after_fork()

    def start(self) -> None:
        """Say that start-up is done: from now on this process may be ready."""
        self.started = True

    def drain(self) -> None:
        """Answer not ready from now on, so that load balancers send no new requests; liveness goes on."""
        self._drained = True

    def drain_when(self, ask: Callable[[], bool]) -> None:
        """Drain also while *ask* returns true: a flag that many processes share. It is asked on every probe."""
        self._draining.append(ask)

    @property
    def draining(self) -> bool:
        """True once this process is about to stop."""
        return self._drained or any(ask() for ask in self._draining)

    def report(self) -> Report:
        """Return the state and every result, asking the checks whose kept result has expired."""
        return self.engine.look()

    def summary(self, report: Report | None = None) -> dict[str, object]:
        """Return *report*, or a new one, as JSON can hold it; `uptime` is in seconds, of this process."""
        report = report or self.report()
        now = time.time()
        return {
            "status": report.state,
            "service": self._service.service_name,
            "version": self._service.service_version,
            "environment": self._service.environment,
            "uptime": round(now - self.born, 1),
            "timestamp": moment(now),
            "checks": described(report),
        }

    def readiness(self) -> tuple[str, Report]:
        """Return ready, starting, draining or unready, and the checks that have a say in it."""
        if not self.started:
            return "starting", Report("", {})
        if self.draining:
            return "draining", Report("", {})
        found = self.engine.look(lambda check: check.ready)
        failed = any(result.finding.status == "fail" for _, result in found.results.values())
        return ("unready" if failed else "ready"), found

    def close(self) -> None:
        """Leave the balancer and wait a moment for checks under way: what they ask is about to be closed."""
        self.drain()
        self.engine.join(0.5)


class HealthFace:
    """`prod.get("health")`: register checks of your own, and look at the current application's health."""

    def __init__(self) -> None:
        self._checks: dict[str, tuple[Check, float | None]] = {}

    def check(
        self,
        name: str,
        *,
        critical: bool = True,
        ready: bool = False,
        timeout: float | str | None = None,
        interval: float | str | None = None,
    ) -> Callable[[ProbeT], ProbeT]:
        """Make the decorated function a health check of every application of this kit.

        It returns None, a bool or a `Finding`, or raises; it runs in a thread of its own, inside an application
        context. Durations are seconds or text such as `"2s"`; None means HEALTH_TIMEOUT and HEALTH_INTERVAL.
        ValueError for a name that is taken or would not make a path, and for what is not a duration.
        """
        self._refuse(name)
        limit = None if timeout is None else parse_duration(timeout)
        kept = None if interval is None else parse_duration(interval)

        def register(probe: ProbeT) -> ProbeT:
            # A bool is judged by the engine; the vocabulary of rooms knows findings only.
            check = Check(name, probe, critical, ready, limit)  # type: ignore[arg-type]
            self._checks[name] = (check, kept)
            return probe

        return register

    def plans(self, timeout: float, interval: float) -> Iterable[Plan]:
        """Return the registered checks with these defaults for their times."""
        return [plan(check, timeout, interval if kept is None else kept) for check, kept in self._checks.values()]

    def report(self) -> Report:
        """Return the health of the current application."""
        return self._current().report()

    def drain(self) -> None:
        """Take this process of the current application out of the load balancer."""
        self._current().drain()

    @staticmethod
    def _current() -> HealthHandle:
        handle: HealthHandle = current_state().contributions["health"].handle
        return handle

    def _refuse(self, name: str) -> None:
        if not name or name in RESERVED or "/" in name:
            raise ValueError(f"A health check cannot be called {name!r}: its name is the end of a path.")
        if name in self._checks:
            raise ValueError(f"There is a health check called {name!r} already.")


def plan(check: Check, timeout: float, interval: float) -> Plan:
    """Return how *check* is run, with the settings' time limit where it names none."""
    return Plan(check, timeout if check.timeout is None else check.timeout, interval)
