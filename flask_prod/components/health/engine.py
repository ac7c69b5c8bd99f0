"""Runs checks in parallel, each within its time and once at a time, and says how the whole is.

No Flask in here. A check is asked when somebody looks and its kept result has expired. Each run has a thread of
its own, since checks that hang would fill a pool of a fixed size; one run per check at a time bounds the threads.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Collection, Iterable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import TypeAlias

from flask_prod.core.component import Check, Event, Finding
from flask_prod.core.ports import Meter, NoMeter

HEALTHY, DEGRADED, UNHEALTHY = "healthy", "degraded", "unhealthy"
OK, WARN, FAIL = "ok", "warn", "fail"

LEVELS = {HEALTHY: 0, DEGRADED: 1, UNHEALTHY: 2, OK: 0, WARN: 1, FAIL: 2}
"""What the gauges say: over several processes the highest counts, so the worst is the highest."""

PATIENCE = 0.05
"""Seconds that the probe which starts a new run waits for it while there is a result to show instead."""

_SLACK = 0.005
"""Seconds by which a wait may end early; a run that has come so near to its limit has reached it."""

_SEVERITY = {HEALTHY: "info", DEGRADED: "warning", UNHEALTHY: "error"}

Ask: TypeAlias = Callable[[Check], Finding]


@dataclass(frozen=True, slots=True)
class Plan:
    """A check and how it is run; times are in seconds, `interval` is how long its result is kept."""

    check: Check
    timeout: float
    interval: float


@dataclass(frozen=True, slots=True)
class Result:
    """What a check found, the seconds it took, when (`at` monotonic, `checked` wall clock), and since when."""

    finding: Finding
    latency: float
    at: float
    checked: float
    since: float


@dataclass(frozen=True, slots=True)
class Report:
    """How the whole is, and the result of every check that was looked at."""

    state: str
    results: Mapping[str, tuple[Check, Result]]

    @property
    def failing(self) -> tuple[str, ...]:
        """The names of the checks that are not ok."""
        return tuple(name for name, (_, result) in self.results.items() if result.finding.status != OK)


class Run:
    """One run of one check, from its start to its answer."""

    __slots__ = ("began", "done", "late")

    def __init__(self) -> None:
        self.began = time.monotonic()
        self.done = threading.Event()
        self.late = False


class Watch:
    """One check over time: its latest result, and the run under way if there is one."""

    def __init__(self, plan: Plan, ask: Ask, stored: Callable[[Watch], None]) -> None:
        self.plan = plan
        self.result: Result | None = None
        self._ask = ask
        self._stored = stored
        self._run: Run | None = None
        self._lock = threading.Lock()

    def refresh(self) -> tuple[Run | None, bool]:
        """Start a run if the result has expired; return the run under way and whether this call began it.

        A check that hangs is not started again, and nobody waits for it: it has failed already.
        """
        self.settle()
        with self._lock:
            if self._run is not None:
                return (None if self._run.late else self._run), False
            if self.result is not None and time.monotonic() - self.result.at < self.plan.interval:
                return None, False
            run = self._run = Run()
        self._start(run)
        return run, True

    def settle(self) -> None:
        """Let a run that has used up its time count as failed."""
        with self._lock:
            run = self._run
            if run is None or run.late or time.monotonic() - run.began < self.plan.timeout - _SLACK:
                return
            run.late = True
            self._store(Finding(FAIL, f"no answer within {self.plan.timeout:g} s"), self.plan.timeout)
        self._stored(self)

    def join(self, seconds: float) -> None:
        """Wait for the run under way, if there is one."""
        run = self._run
        if run is not None and seconds > 0:
            run.done.wait(seconds)

    def _start(self, run: Run) -> None:
        thread = threading.Thread(
            target=self._fly, args=(run,), name=f"prod-health-{self.plan.check.name}", daemon=True
        )
        try:
            thread.start()
        except RuntimeError as error:  # the process or its container has no more threads to give
            self._land(run, Finding(FAIL, f"could not be asked: {error}"))

    def _fly(self, run: Run) -> None:
        self._land(run, self._ask(self.plan.check))

    def _land(self, run: Run, finding: Finding) -> None:
        with self._lock:
            self._run = None
            if not run.late:
                self._store(finding, time.monotonic() - run.began)
        if not run.late:
            self._stored(self)
        run.done.set()

    def _store(self, finding: Finding, latency: float) -> None:
        now, before = time.time(), self.result
        since = before.since if before is not None and before.finding.status == finding.status else now
        self.result = Result(finding, latency, time.monotonic(), now, since)


class Engine:
    """All checks of one application: looks at them on demand, and tells of every change.

    `plans` is asked at every look, since rooms and users add checks until the application is complete.
    """

    def __init__(self, plans: Callable[[], Iterable[Plan]], ask: Ask, stale_after: float) -> None:
        self._plans = plans
        self._ask = ask
        self._stale_after = stale_after
        self.tell(_nobody, NoMeter())
        self.after_fork()

    def tell(self, emit: Callable[[Event], None], meter: Meter) -> None:
        """Send changes of state to *emit* and keep two gauges up to date."""
        self._emit = emit
        self._state_gauge = meter.gauge(
            "flask_prod_health_state", "Health of the service: 0 healthy, 1 degraded, 2 unhealthy."
        )
        self._check_gauge = meter.gauge(
            "flask_prod_health_check_state", "Result of a health check: 0 ok, 1 warn, 2 fail.", ("check",)
        )

    def after_fork(self) -> None:
        """Forget results and runs: a forked child has none of its parent's threads."""
        self._watches: dict[str, Watch] = {}
        self._lock = threading.Lock()
        self._noting = threading.Lock()
        self._state = HEALTHY

    def look(self, only: Callable[[Check], bool] | None = None) -> Report:
        """Return state and results, run anew where they have expired; waits for no check beyond its time."""
        watches = [watch for watch in self._current() if only is None or only(watch.plan.check)]
        waits = [(watch, time.monotonic() + self._patience(watch, *watch.refresh())) for watch in watches]
        for watch, ends in waits:
            watch.join(ends - time.monotonic())
            watch.settle()
        return report(watches)

    def known(self, name: str) -> bool:
        """Tell whether there is a check of this name."""
        return any(watch.plan.check.name == name for watch in self._current())

    def join(self, seconds: float) -> None:
        """Wait for runs under way, at most *seconds* in all."""
        ends = time.monotonic() + seconds
        for watch in tuple(self._watches.values()):
            watch.join(max(0.0, ends - time.monotonic()))

    def _current(self) -> Collection[Watch]:
        watches = {}
        with self._lock:
            for plan in self._plans():
                name = plan.check.name
                watch = self._watches.get(name)
                if watch is None or watch.plan != plan:
                    watch = self._watches[name] = Watch(plan, self._ask, self._note)
                watches[name] = watch
        return watches.values()

    def _patience(self, watch: Watch, run: Run | None, mine: bool) -> float:
        """Return for how many seconds one look waits for a run."""
        if run is None:
            return 0.0
        result = watch.result
        left = run.began + watch.plan.timeout - time.monotonic()
        if result is None or time.monotonic() - result.at > self._stale_after:
            return left
        return min(PATIENCE, left) if mine else 0.0

    def _note(self, watch: Watch) -> None:
        """Set the gauges, and tell everybody if the state of the whole has changed."""
        if watch.result is not None:
            self._check_gauge.set(LEVELS[watch.result.finding.status], watch.plan.check.name)
        watches = self._current()
        with self._noting:
            if any(other.result is None for other in watches):
                return  # The first round is not complete: its state would change with every answer.
            now = report(watches)
            before, self._state = self._state, now.state
        self._state_gauge.set(LEVELS[now.state])
        if before != now.state:
            self._emit(_change(before, now))


def report(watches: Iterable[Watch]) -> Report:
    """Sum up: a critical check that failed is unhealthy; any other failure or warning is degraded."""
    state = HEALTHY
    results = {}
    for watch in watches:
        result = watch.result
        if result is None:
            continue
        results[watch.plan.check.name] = (watch.plan.check, result)
        if result.finding.status == FAIL and watch.plan.check.critical:
            state = UNHEALTHY
        elif result.finding.status != OK and state == HEALTHY:
            state = DEGRADED
    return Report(state, results)


def asking(context: Callable[[], AbstractContextManager[object]], clean: Callable[[str], str]) -> Ask:
    """Return what asks a check inside *context* and never raises; what it says is cleaned before it is kept."""

    def ask(check: Check) -> Finding:
        try:
            with context():
                found: object = check.probe()
        except BaseException as error:  # a check that calls sys.exit has failed, and must end nothing else
            return Finding(FAIL, f"{type(error).__name__}: {clean(str(error))}".rstrip(": "))
        return judge(found, clean)

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
    data = {str(key): clean(item) if isinstance(item, str) else item for key, item in found.data.items()}
    return Finding(found.status, clean(str(found.detail)), data)


def _change(before: str, now: Report) -> Event:
    causes = [f"{name}: {now.results[name][1].finding.detail}".rstrip(": ") for name in now.failing]
    message = f"Health changed from {before} to {now.state}" + (f" ({'; '.join(causes)})" if causes else "")
    fields = {"before": before, "state": now.state, "failing": ", ".join(now.failing)}
    return Event("prod.health.changed", message, _SEVERITY[now.state], fields)


def _nobody(_event: Event) -> None:
    return
