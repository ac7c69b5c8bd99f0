"""Tells of changes: gauges at once, the history of the last hundred, and few log lines, each with its cause."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterable, Mapping

import msgspec

from flask_prod.core.component import Event
from flask_prod.core.ports import Meter, NoMeter

from .tally import FAIL, OK, UNKNOWN, WARN, Result

HEALTHY, DEGRADED, UNHEALTHY = "healthy", "degraded", "unhealthy"

LEVELS = {HEALTHY: 0, DEGRADED: 1, UNHEALTHY: 2, OK: 0, WARN: 1, FAIL: 2, UNKNOWN: 2}
"""What the gauges say: over several processes the highest counts, so the worst is the highest."""

KEPT = 100
"""Changes that are remembered."""

_LINES, _MINUTE = 2, 60.0
"""A check that flaps is told of so often in so many seconds; what it is afterwards is told then."""

_SEVERITY = {HEALTHY: "info", DEGRADED: "warning", UNHEALTHY: "error"}


class Change(msgspec.Struct, frozen=True):
    """A check that became something else, when (wall clock), and why."""

    at: float
    check: str
    before: str
    after: str
    detail: str = ""


class Teller:
    """What the world knows of the checks of one process; `history` is oldest first."""

    def __init__(self) -> None:
        self.tell(lambda event: None, NoMeter())
        self.reset()

    def tell(self, emit: Callable[[Event], None], meter: Meter) -> None:
        """Send changes of state to *emit* and keep two gauges up to date."""
        self._emit = emit
        self._state_gauge = meter.gauge(
            "flask_prod_health_state", "Health of the service: 0 healthy, 1 degraded, 2 unhealthy."
        )
        self._check_gauge = meter.gauge(
            "flask_prod_health_check_state", "Result of a health check: 0 ok, 1 warn, 2 fail.", ("check",)
        )

    def reset(self) -> None:
        """Forget everything, in a forked child."""
        self.history: deque[Change] = deque(maxlen=KEPT)
        self._seen: dict[str, str] = {}
        self._told: dict[str, str] = {}
        self._lines: dict[str, deque[float]] = {}
        self._state = HEALTHY
        self._lock = threading.Lock()

    def note(self, name: str, result: Result) -> bool:
        """Show one result in the gauge, and remember it if it is a change; tell whether it is one."""
        status = result.finding.status
        before = self._seen.get(name)
        if before == status:
            return False
        self._seen[name] = status
        self._check_gauge.set(LEVELS[status], name)
        if before is None and status == OK:
            return False
        detail = result.finding.detail if status != OK else ""
        self.history.append(Change(round(result.since, 3), name, before or UNKNOWN, status, detail))
        return True

    def learn(self, name: str, result: Result) -> None:
        """Take over what another process has told already."""
        status = result.finding.status
        if self._seen.get(name) != status:
            self._check_gauge.set(LEVELS[status], name)
        self._seen[name] = self._told[name] = status

    def remember(self, changes: Iterable[Change], state: str) -> None:
        """Take over the history of another process, and the state it has told."""
        self.history = deque(changes, maxlen=KEPT)
        if state != self._state:
            self._state_gauge.set(LEVELS[state])
        self._state = state

    @property
    def state(self) -> str:
        """The state that was told last."""
        return self._state

    def announce(self, state: str, results: Mapping[str, Result], now: float) -> None:
        """Set the gauge of the whole, and tell in one line of all that has changed and may be told."""
        self._state_gauge.set(LEVELS[state])
        with self._lock:
            news = [
                name
                for name, result in results.items()
                if self._told.get(name, OK) != result.finding.status and self._may(name, now)
            ]
            before = self._state
            words = [f"{name}: {_from(self._told.get(name, OK), results[name])}" for name in news]
            for name in news:
                self._told[name] = results[name].finding.status
                self._lines.setdefault(name, deque(maxlen=_LINES)).append(now)
            if news:
                self._state = state
        if news:
            failing = [name for name, result in results.items() if result.finding.status != OK]
            self._emit(_event(before, state, {name: results[name] for name in failing}, words))

    def _may(self, name: str, now: float) -> bool:
        lines = self._lines.get(name)
        return lines is None or len(lines) < _LINES or now - lines[0] > _MINUTE


def _from(before: str, result: Result) -> str:
    now, detail = result.finding.status, result.finding.detail
    return f"{before} to {now}" + (f" ({detail})" if detail and now != OK else "")


def _event(before: str, state: str, failing: Mapping[str, Result], words: list[str]) -> Event:
    fields = {"before": before, "state": state, "failing": ", ".join(failing), "changes": "; ".join(words)}
    if before == state:
        worst = max((LEVELS[result.finding.status] for result in failing.values()), default=0)
        message = f"Health stays {state} ({'; '.join(words)})"
        return Event("prod.health.check_changed", message, "warning" if worst else "info", fields)
    causes = [f"{name}: {result.finding.detail}".rstrip(": ") for name, result in failing.items()]
    message = f"Health changed from {before} to {state}" + (f" ({'; '.join(causes)})" if causes else "")
    return Event("prod.health.changed", message, _SEVERITY[state], fields)
