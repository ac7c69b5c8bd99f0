"""One check over time: its latest result, and the runs under way.

Each run has a thread of its own, since checks that hang would fill a pool of a fixed size. One run at a time asks;
one that hangs is given up after a while, and at most `MOST_RUNS` of a check may hang: so are threads bounded.
"""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

from flask_prod.core.component import Check, Finding

from .tally import FAIL, Result, Rule, Seen, follow, unknown

RETRY = 1.0
"""Seconds between two runs while failures or successes are being counted."""

DOWN_RETRY = 3.0
"""Seconds between two runs of a check that is down: back within ten seconds, and no storm on what just starts."""

MOST_RUNS = 3
"""Runs of one check that may hang at the same time; with so many it is not asked any more until one ends."""

GIVEN_UP = 3
"""A run that hangs counts as one more failure each time its limit passes, so often; then another may begin."""

_JITTER = 0.1
"""Part of the interval by which runs are early or late, so that instances do not move in step."""

_SLACK = 0.005
"""Seconds by which a wait may end early; a run that has come so near to its limit has reached it."""

Ask: TypeAlias = Callable[[Check], Finding]
Spawn: TypeAlias = Callable[[Callable[[], None], str], None]


@dataclass(frozen=True, slots=True)
class Plan:
    """A check and how it is run; times in seconds: its limit, and between two runs (or how long a result is kept).

    A `local` check is about this process: every worker of a host runs it itself.
    """

    check: Check
    timeout: float
    interval: float
    local: bool = False
    groups: frozenset[str] = frozenset()


def in_a_thread(call: Callable[[], None], name: str) -> None:
    """Run *call* beside us; RuntimeError when there are no more threads to be had."""
    threading.Thread(target=call, name=name, daemon=True).start()


@dataclass(frozen=True)
class Means:
    """What runs need: who asks, by which rule results follow, clocks, and threads; all can be driven by hand."""

    ask: Ask
    rule: Callable[[], Rule]
    clock: Callable[[], float] = time.monotonic
    wall: Callable[[], float] = time.time
    spawn: Spawn = in_a_thread
    chance: Callable[[], float] = random.random


class Run:
    """One run of one check, from its start to its answer; `late` is how often its limit has passed."""

    __slots__ = ("began", "done", "late")

    def __init__(self, began: float) -> None:
        self.began = began
        self.done = threading.Event()
        self.late = 0


class Watch:
    """One check over time; *stored* is told of each result, with the one before."""

    def __init__(self, plan: Plan, means: Means, stored: Callable[[Watch], None]) -> None:
        self.plan = plan
        self.result: Result | None = None
        self.known = threading.Event()
        self.due = 0.0
        self._asked = -RETRY
        self._means = means
        self._stored = stored
        self._runs: list[Run] = []
        self._lock = threading.Lock()

    @property
    def name(self) -> str:
        """The name of the check."""
        return self.plan.check.name

    def believed(self, now: float, stale_after: float) -> Result | None:
        """Return the result, as unknown when it is older than it may be; None as long as there is none."""
        result = self.result
        patience = max(stale_after, 2 * self.plan.interval + GIVEN_UP * self.plan.timeout)
        return unknown(result, now) if result is not None and now - result.at > patience else result

    def refresh(self) -> tuple[Run | None, bool]:
        """Start a run if the result has expired; return the run to wait for and whether this call began it.

        Nobody waits for a run that hangs: it has failed already.
        """
        self.settle()
        now = self._means.clock()
        with self._lock:
            if self._runs and not self._runs[-1].late:
                return self._runs[-1], False
            expired = self.result is None or now - self.result.at >= self.plan.interval
            if not expired or not self._may_begin(now):
                return None, False
            run = self._begin(now)
        self._launch(run)
        return run, True

    def run_if_due(self, due: float | None = None) -> None:
        """Start a run if it is time for one: at *due*, or when the last result said."""
        now = self._means.clock()
        with self._lock:
            if now < (self.due if due is None else due) or not self._may_begin(now):
                return
            run = self._begin(now)
        self._launch(run)

    def settle(self) -> None:
        """Let a run that has used up its time count as failed, once more each time its limit passes."""
        counted = False
        with self._lock:
            now = self._means.clock()
            run = self._runs[-1] if self._runs else None
            over = 0 if run is None else int((now - run.began + _SLACK) / self.plan.timeout)
            while run is not None and run.late < min(over, GIVEN_UP):
                run.late += 1
                counted = True
                self._store(Finding(FAIL, f"no answer within {self.plan.timeout:g} s"), self.plan.timeout)
        if counted:
            self._stored(self)

    def observe(self, detail: str, sure: bool) -> None:
        """Count a failure that somebody else met, and ask soon; without a *detail* only ask.

        One that is down already needs no more of them: it is asked every few seconds, and comes back by that.
        """
        with self._lock:
            result = self.result
            if result is not None and result.finding.status == FAIL:
                return
            if detail:
                self._store(Finding(FAIL, detail), result.latency if result is not None else 0.0, sure=sure)
            self.due = min(self.due, max(self._means.clock(), self._asked + RETRY))
        if detail:
            self._stored(self)

    def adopt(self, result: Result) -> bool:
        """Take a newer result that another process found; tell whether it was newer."""
        with self._lock:
            if self.result is not None and result.at <= self.result.at:
                return False
            self._set(result)
        return True

    def join(self, seconds: float) -> None:
        """Wait for the run under way, if there is one."""
        run = self._runs[-1] if self._runs else None
        if run is not None and seconds > 0:
            run.done.wait(seconds)

    def next(self, now: float) -> float:
        """Return when something happens next: a run is due, or the limit of one passes."""
        run = self._runs[-1] if self._runs else None
        if run is not None and run.late < GIVEN_UP:
            return run.began + (run.late + 1) * self.plan.timeout
        return self.due if run is None else now + RETRY

    def _may_begin(self, now: float) -> bool:
        if not self._runs:
            return True
        latest = self._runs[-1]
        hangs = latest.late > 0 and now - latest.began >= GIVEN_UP * self.plan.timeout - _SLACK
        return hangs and len(self._runs) < MOST_RUNS

    def _begin(self, now: float) -> Run:
        run = Run(now)
        self._asked = now
        self._runs.append(run)
        return run

    def _launch(self, run: Run) -> None:
        try:
            self._means.spawn(
                lambda: self._land(run, self._means.ask(self.plan.check)), f"prod-health-{self.name}"
            )
        except RuntimeError as error:  # the process or its container has no more threads to give
            self._land(run, Finding(FAIL, f"could not be asked: {error}"))

    def _land(self, run: Run, finding: Finding) -> None:
        in_time = False
        with self._lock:
            now = self._means.clock()
            if run in self._runs:  # not after a fork
                self._runs.remove(run)
                in_time = not run.late
            if in_time:
                self._store(finding, now - run.began, run.began)
            elif not self._runs:
                self.due = now  # It lives again: ask anew, rather than believe an answer that came too late.
        if in_time:
            self._stored(self)
        run.done.set()

    def _store(self, finding: Finding, latency: float, began: float | None = None, *, sure: bool = False) -> None:
        now = self._means.clock()
        self._set(follow(self.result, Seen(finding, latency, now, self._means.wall(), sure), self._means.rule()))
        self.due = (now if began is None else began) + self._pace()

    def _set(self, result: Result) -> None:
        self.result = result
        self.known.set()

    def _pace(self) -> float:
        result = self.result
        if result is not None and not result.steady:
            return min(RETRY, self.plan.interval)
        if result is not None and result.finding.status == FAIL:
            return min(DOWN_RETRY, self.plan.interval)
        return self.plan.interval * (1 + _JITTER * (2 * self._means.chance() - 1))
