"""Runs checks in parallel, each within its time and once at a time, and says how the whole is.

No Flask in here. In the background (rounds.py) checks run at their intervals and a look reads memory; without it a
check is asked when somebody looks and its kept result has expired.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass

from flask_prod.core.component import Check, Event, Finding
from flask_prod.core.ports import Meter
from flask_prod.core.redaction import redact

from .tally import AT_ONCE, FAIL, OK, UNKNOWN, WARN, Result, Rule
from .telling import DEGRADED, HEALTHY, LEVELS, UNHEALTHY, Teller
from .watch import Ask, Means, Plan, Run, Spawn, Watch, in_a_thread

__all__ = [
    "DEGRADED", "FAIL", "HEALTHY", "LEVELS", "OK", "UNHEALTHY", "UNKNOWN", "WARN",
    "Ask", "Engine", "Plan", "Report", "Result", "Rule", "asking", "judge", "report",
]  # fmt: skip

PATIENCE = 0.05
"""Seconds that the probe which starts a new run waits for it while there is a result to show instead."""

_MOST_DATA = 50
"""Items of a finding that are kept."""

_FIRST = 1.5
"""Seconds beyond its limit that a look waits for the very first result of a check."""


@dataclass(frozen=True, slots=True)
class Report:
    """How the whole is, and the result of every check that was looked at."""

    state: str
    results: Mapping[str, tuple[Check, Result]]
    pending: bool = False
    """True while a check has no result yet."""

    @property
    def failing(self) -> tuple[str, ...]:
        """The names of the checks that are not ok."""
        return tuple(name for name, (_, result) in self.results.items() if result.finding.status != OK)


class Engine:
    """All checks of one application.

    `plans` is asked at every look on demand, and at every round in the background, since rooms and users add
    checks until the application is complete. `background` is set by whoever runs the rounds.
    """

    def __init__(
        self,
        plans: Callable[[], Iterable[Plan]],
        ask: Ask,
        stale_after: float,
        rule: Rule = AT_ONCE,
        *,
        clock: Callable[[], float] = time.monotonic,
        spawn: Spawn = in_a_thread,
    ) -> None:  # six parameters, two of them for tests: clock and threads driven by hand
        self._plans = plans
        self._stale_after = stale_after
        self._clock = clock
        self._means = Means(ask, lambda: rule if self.background else AT_ONCE, clock, spawn=spawn)
        self.teller = Teller()
        self.wake: Callable[[], None] = lambda: None
        """Called when there is news for the rounds."""
        self.after_fork()

    def tell(self, emit: Callable[[Event], None], meter: Meter) -> None:
        """Send changes of state to *emit* and keep two gauges up to date."""
        self.teller.tell(emit, meter)

    def after_fork(self) -> None:
        """Forget results and runs: a forked child has none of its parent's threads."""
        self.background = False
        self._watches: dict[str, Watch] = {}
        self._lock = threading.Lock()
        self.teller.reset()

    def look(self, only: Callable[[Plan], bool] | None = None) -> Report:
        """Return state and results; waits for no check beyond its time, in the background only for a first one."""
        if self.background:
            watches = self._chosen(tuple(self._watches.values()), only)
            for watch in watches:
                if watch.result is None:
                    watch.known.wait(watch.plan.timeout + _FIRST)
            return self.report(watches)
        watches = self._chosen(self.watches(), only)
        # The clock is read last: on a busy machine a run takes its time to begin.
        waits = [(watch, self._patience(watch, *watch.refresh()) + time.monotonic()) for watch in watches]
        for watch, ends in waits:
            watch.join(ends - time.monotonic())
            watch.settle()
        return report(watches)

    def glance(self, only: Callable[[Plan], bool] | None = None) -> Report:
        """Return what is known; in the background without waiting for anything."""
        if not self.background:
            return self.look(only)
        return self.report(self._chosen(tuple(self._watches.values()), only))

    def known(self, name: str) -> bool:
        """Tell whether there is a check of this name."""
        return any(watch.name == name for watch in self.watches())

    def groups(self) -> frozenset[str]:
        """Return the names of all groups."""
        return frozenset(group for watch in self.watches() for group in watch.plan.groups)

    def join(self, seconds: float) -> None:
        """Wait for runs under way, at most *seconds* in all."""
        ends = time.monotonic() + seconds
        for watch in tuple(self._watches.values()):
            watch.join(max(0.0, ends - time.monotonic()))

    def observed(self, name: str, detail: str, sure: bool = False) -> None:
        """Count a failure that a request met as one of the check *name*; one nobody knows is nobody's."""
        watch = self._watches.get(name)
        if watch is not None:
            watch.observe(detail, sure)
            self.wake()

    def report(self, watches: Iterable[Watch] | None = None) -> Report:
        """Return what is believed now of these checks, or of all; what is too old is unknown."""
        chosen = self._watches.values() if watches is None else watches
        now = self._clock()
        return sum_up((watch.plan.check, watch.believed(now, self._stale_after)) for watch in tuple(chosen))

    def watches(self) -> tuple[Watch, ...]:
        """Return the checks there are now; one whose plan has changed begins anew."""
        watches = {}
        with self._lock:
            for plan in self._plans():
                name = plan.check.name
                watch = self._watches.get(name)
                if watch is None or watch.plan != plan:
                    watch = self._watches[name] = Watch(plan, self._means, self._note)
                watches[name] = watch
        return tuple(watches.values())

    def announce(self) -> None:
        """Tell of what has changed, once every check has a result."""
        now = self.report()
        if not now.pending:
            results = {name: result for name, (_, result) in now.results.items()}
            self.teller.announce(now.state, results, self._clock())

    @staticmethod
    def _chosen(watches: Iterable[Watch], only: Callable[[Plan], bool] | None) -> list[Watch]:
        return [watch for watch in watches if only is None or only(watch.plan)]

    def _patience(self, watch: Watch, run: Run | None, mine: bool) -> float:
        """Return for how many seconds one look waits for a run."""
        if run is None:
            return 0.0
        result, now = watch.result, self._clock()
        left = run.began + watch.plan.timeout - now
        if result is None or now - result.at > self._stale_after:
            return left
        return min(PATIENCE, left) if mine else 0.0

    def _note(self, watch: Watch) -> None:
        """Show a result; in the background the next round tells of it, else it is told now."""
        if watch.result is not None:
            self.teller.note(watch.name, watch.result)
        if self.background:
            self.wake()
        else:
            self.watches()  # a check that was added has no result yet: the round is not complete
            self._announce_found()

    def _announce_found(self) -> None:
        found = report(self._watches.values())
        if not found.pending:
            results = {name: result for name, (_, result) in found.results.items()}
            self.teller.announce(found.state, results, self._clock())


def report(watches: Iterable[Watch]) -> Report:
    """Sum up what was found last, whatever its age."""
    return sum_up((watch.plan.check, watch.result) for watch in tuple(watches))


def sum_up(found: Iterable[tuple[Check, Result | None]]) -> Report:
    """Sum up: a critical check that failed or is unknown is unhealthy, any other failure or warning degraded."""
    state, pending = HEALTHY, False
    results = {}
    for check, result in found:
        if result is None:
            pending = True
            continue
        results[check.name] = (check, result)
        status = result.finding.status
        if status in (FAIL, UNKNOWN) and check.critical:
            state = UNHEALTHY
        elif status != OK and state == HEALTHY:
            state = DEGRADED
    return Report(state, results, pending)


def asking(context: Callable[[], AbstractContextManager[object]], clean: Callable[[str], str]) -> Ask:
    """Return what asks a check inside *context* and never raises; what it says is cleaned before it is kept."""

    def ask(check: Check) -> Finding:
        try:
            with context():
                found: object = check.probe()
            return judge(found, clean)
        except BaseException as error:  # a check that calls sys.exit has failed, and must end nothing else
            return Finding(FAIL, f"{type(error).__name__}: {clean(_text(error))}".rstrip(": "))

    return ask


def judge(found: object, clean: Callable[[str], str]) -> Finding:
    """Return what a check meant: None and True are ok, False is a failure, all but a Finding is nonsense."""
    if found is None or found is True:
        return Finding()
    if found is False:
        return Finding(FAIL, "returned False")
    if not isinstance(found, Finding):
        return Finding(FAIL, f"returned {type(found).__name__} where None or a Finding was expected")
    if found.status not in (OK, WARN, FAIL):
        return Finding(FAIL, f"returned the status {clean(str(found.status))!r}, not ok, warn or fail")
    pairs = list(found.data.items())[:_MOST_DATA]
    data = {str(key): clean(item) if isinstance(item, str) else redact(item) for key, item in pairs}
    return Finding(found.status, clean(str(found.detail)), data)


def _text(error: BaseException) -> str:
    try:
        return str(error)
    except Exception:
        return ""
