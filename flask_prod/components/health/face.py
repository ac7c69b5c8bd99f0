"""What users hold: own checks before any application exists, and the health of the current application."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterable
from typing import TypeAlias, TypeVar

from flask_prod.core.component import Check, Finding
from flask_prod.core.kit import current_state
from flask_prod.core.settings import ServiceSettings
from flask_prod.core.values import parse_duration

from .engine import FAIL, UNKNOWN, Engine, Plan, Report
from .names import is_name
from .rounds import Rounds
from .shown import described, moment
from .watchdog import Watchdog

Probe: TypeAlias = Callable[[], "Finding | bool | None"]
ProbeT = TypeVar("ProbeT", bound=Probe)

_NOTHING = Report("", {})


class HealthHandle:
    """The health of one application in one process; `kit.handle("health")` is one."""

    started: bool
    born: float

    def __init__(self, engine: Engine, service: ServiceSettings) -> None:
        self.engine = engine
        self._up = False
        self._drained = False
        self._service = service
        self._draining: list[Callable[[], bool]] = []
        self._rounds: Rounds | None = None
        self._watchdog: Watchdog | None = None
        self._begin()

    def run_in_background(self, rounds: Rounds, watchdog: Watchdog) -> None:
        """Let checks run in the background from `start` on."""
        self._rounds = rounds
        self._watchdog = watchdog

    def after_fork(self) -> None:
        """Begin anew in a forked child: not started, not draining."""
        self._begin()
        self.engine.after_fork()
        if self._rounds is not None:
            self._rounds.after_fork()

    def start(self) -> None:
        """Say that start-up is done: from now on this process may be ready."""
        self.started = True
        if self._rounds is not None:
            self._rounds.start()

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

    @property
    def stuck(self) -> bool:
        """True while a worker of this host serves nobody any more: a restart helps."""
        return self._watchdog is not None and bool(self._watchdog.stuck)

    def observed(self, name: str, detail: str, sure: bool = False) -> None:
        """Count a failure that a request met as one of the check *name*, which is then asked at once.

        *sure* is one that stands for several, as when a circuit breaker opens. *detail* holds no secrets.
        """
        if self._rounds is None:
            self.engine.observed(name, detail, sure)
        else:
            self._rounds.observed(name, detail, sure)

    def report(self) -> Report:
        """Return the state and every result; without a background it asks where a kept result has expired."""
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
            "groups": sorted(self.engine.groups()),
        }

    def readiness(self) -> tuple[str, Report]:
        """Return ready, starting, draining or unready, and the checks that have a say in it."""
        if not self.started:
            return "starting", _NOTHING
        if self.draining:
            return "draining", _NOTHING
        found = self.engine.glance(_has_a_say)
        if found.pending:
            return "starting", found
        failed = any(result.finding.status in (FAIL, UNKNOWN) for _, result in found.results.values())
        return ("unready" if failed else "ready"), found

    def has_started(self) -> bool:
        """Tell whether start-up is done, with the first results of checks that have a say; true for ever after."""
        if not self._up and self.started:
            self._up = not (self.engine.background and self.engine.glance(_has_a_say).pending)
        return self._up

    def close(self) -> None:
        """Leave the balancer and wait a moment for checks under way: what they ask is about to be closed."""
        self.drain()
        if self._rounds is not None:
            self._rounds.stop()
        self.engine.join(0.5)

    def _begin(self) -> None:
        self.started = False
        self._up = False
        self._drained = False
        self.born = time.time()


class HealthFace:
    """`prod.health`: register checks of your own, and look at the current application's health."""

    def __init__(self) -> None:
        self._checks: dict[str, tuple[Check, float | None, frozenset[str]]] = {}

    def check(
        self,
        name: str,
        *,
        critical: bool = True,
        ready: bool = False,
        timeout: float | str | None = None,
        interval: float | str | None = None,
        groups: Collection[str] = (),
    ) -> Callable[[ProbeT], ProbeT]:
        """Make the decorated function a health check of every application of this kit.

        It returns None, a bool or a `Finding`, or raises; it runs in a thread of its own, inside an application
        context. Durations are seconds or text such as `"2s"`; None means HEALTH_TIMEOUT and HEALTH_INTERVAL.
        One that is `ready` is about this process: each worker runs it. ValueError for a name that is taken or
        would not make a path, and for what is not a duration.
        """
        self._refuse(name)
        named = frozenset([groups] if isinstance(groups, str) else groups)
        if not all(map(is_name, named)):
            raise ValueError(f"A group of health check {name!r} has a name that would not make a path.")
        limit = None if timeout is None else parse_duration(timeout)
        if limit is not None and limit <= 0:
            raise ValueError(f"Health check {name!r} needs a timeout longer than zero.")
        kept = None if interval is None else parse_duration(interval)

        def register(probe: ProbeT) -> ProbeT:
            # A bool is judged by the engine; the vocabulary of rooms knows findings only.
            check = Check(name, probe, critical, ready, limit, local=ready)  # type: ignore[arg-type]
            self._checks[name] = (check, kept, named)
            return probe

        return register

    def plans(self, timeout: float, interval: float) -> Iterable[Plan]:
        """Return the registered checks with these defaults for their times."""
        return [
            plan(check, timeout, interval if kept is None else kept, groups)
            for check, kept, groups in self._checks.values()
        ]

    def report(self) -> Report:
        """Return the health of the current application."""
        return self._current().report()

    def observed(self, name: str, detail: str, sure: bool = False) -> None:
        """Count a failure that a request met as one of the check *name*: it is asked at once, and down sooner."""
        self._current().observed(name, detail, sure)

    def drain(self) -> None:
        """Take this process of the current application out of the load balancer."""
        self._current().drain()

    @staticmethod
    def _current() -> HealthHandle:
        handle: HealthHandle = current_state().contributions["health"].handle
        return handle

    def _refuse(self, name: str) -> None:
        if not is_name(name):
            raise ValueError(f"A health check cannot be called {name!r}: its name is the end of a path.")
        if name in self._checks:
            raise ValueError(f"There is a health check called {name!r} already.")


def plan(check: Check, timeout: float, interval: float, groups: frozenset[str] = frozenset()) -> Plan:
    """Return how *check* is run, with the settings' time limit where it names none."""
    return Plan(check, timeout if check.timeout is None else check.timeout, interval, check.local, groups)


def _has_a_say(plan: Plan) -> bool:
    return plan.check.ready
