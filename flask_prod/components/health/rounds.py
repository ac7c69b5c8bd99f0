"""Runs the checks in the background: one thread per process that starts runs, and never waits for one.

Of the workers of one host one leads: it asks what all share, and the others read what it found. Each asks for
itself what is local, and all when the leader is silent for too long. Probes then read memory.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Mapping, Sequence
from time import monotonic

from .board import Board, Failure
from .engine import Engine
from .tally import Result
from .watch import GIVEN_UP, Watch
from .watchdog import Watchdog

logger = logging.getLogger(__name__)

POLL = 0.5
"""Seconds between two looks at what the leader told."""

_SOON = 0.1
"""The same until every check has its first result."""

_OWN_FIRST = 1.0
"""Seconds that a new worker waits for the leader's results before it asks by itself."""

_SILENCE = 2.0
"""Seconds beyond the latest moment at which a result of the leader should be there."""

_SHORTEST = 0.02
_GOODBYE = 1.0
_REPORT_EVERY = 0.4
"""At most one failure of a check that requests meet is counted in so many seconds and process."""


class Rounds:
    """The background of one application in one process.

    *signs* are flags in memory by which other rooms show that a check would fail now: an open circuit breaker.
    """

    def __init__(
        self, engine: Engine, board: Board, signs: Mapping[str, Callable[[], bool]], watchdog: Watchdog
    ) -> None:
        self._engine = engine
        self._board = board
        self._signs = signs
        self._watchdog = watchdog
        self.after_fork()

    def after_fork(self) -> None:
        """Begin anew in a forked child, which has none of its parent's threads."""
        self._thread: threading.Thread | None = None
        self._stopping = False
        self._wake = threading.Event()
        self._leads = False
        self._shown: Mapping[str, bool] = {}
        self._published: object = None
        self._reported: dict[str, float] = {}
        self._failing = False
        self._board.after_fork()
        self._watchdog.after_fork()

    @property
    def leads(self) -> bool:
        """True while this process asks what all workers of the host share."""
        return self._leads

    def start(self) -> None:
        """Begin: results that other workers have found are known when this returns."""
        if self._thread is not None:
            return
        self._began = monotonic()
        self._engine.background = True
        self._engine.wake = self._wake.set
        self._engine.watches()
        self._adopt(self._engine.watches())
        self._round_safely()
        self._thread = threading.Thread(target=self._run, name="flask-prod-health", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """End the thread, and let another worker lead; results stay as they are."""
        self._stopping = True
        self._wake.set()
        thread, self._thread = self._thread, None
        if thread is not None and thread is not threading.current_thread():
            thread.join(_GOODBYE)
        self._board.leave()

    def observed(self, name: str, detail: str, sure: bool) -> None:
        """Count a failure that a request met: here, or by the worker that leads."""
        now = monotonic()
        if not sure and now - self._reported.get(name, 0.0) < _REPORT_EVERY:
            return
        self._reported[name] = now
        here = self._thread is None or self._leads
        if here or not self._board.report(Failure(name, detail, sure)):
            self._engine.observed(name, detail, sure)

    def _run(self) -> None:
        wait = _SOON
        while True:
            self._wake.wait(wait)
            self._wake.clear()
            if self._stopping:
                return
            wait = self._round_safely()

    def _round_safely(self) -> float:
        try:
            wait = self.round()
        except Exception:
            if not self._failing:
                logger.exception("A round of health checks failed; the next ones are tried all the same.")
            self._failing = True
            return POLL
        self._failing = False
        return wait

    def round(self) -> float:
        """Do what is due; return the seconds until the next round."""
        watches = self._engine.watches()
        for watch in watches:
            watch.settle()
        self._leads = self._board.leads()
        if self._leads:
            for failure in self._board.reported():
                self._engine.observed(failure.check, failure.detail, failure.sure)
        else:
            self._adopt(watches)
        self._read_signs()
        for watch in watches:
            watch.run_if_due(None if self._asks(watch) else self._patience(watch))
        self._engine.announce()
        if self._leads:
            self._publish(watches)
        self._watchdog.look()
        return self._pause(watches)

    def _asks(self, watch: Watch) -> bool:
        return self._leads or watch.plan.local

    def _patience(self, watch: Watch) -> float:
        """Return when this worker asks by itself what the leader should have asked."""
        plan, result = watch.plan, watch.result
        if result is None:
            return self._began + _OWN_FIRST
        return result.at + 1.5 * plan.interval + GIVEN_UP * plan.timeout + _SILENCE

    def _adopt(self, watches: Sequence[Watch]) -> None:
        """Take over what the leader has told."""
        news = self._board.news()
        if news is None:
            return
        latest = monotonic() + 1.0  # a file that outlived the machine's restart is from the future
        for watch in watches:
            told = None if watch.plan.local else news.results.get(watch.name)
            if told is not None and told.at <= latest and watch.adopt(told.result()) and watch.result is not None:
                self._engine.teller.learn(watch.name, watch.result)
        self._engine.teller.remember(news.history, news.state)

    def _publish(self, watches: Sequence[Watch]) -> None:
        shared: dict[str, Result] = {
            watch.name: watch.result for watch in watches if watch.result is not None and not watch.plan.local
        }
        teller = self._engine.teller
        latest = teller.history[-1] if teller.history else None
        stamp = ({name: result.at for name, result in shared.items()}, latest, teller.state)
        if stamp != self._published:
            self._published = stamp
            self._board.publish(shared, tuple(teller.history), teller.state)

    def _read_signs(self) -> None:
        """Count a flag that has gone up as a failure that is sure."""
        shown = {name: bool(ask()) for name, ask in self._signs.items()}
        for name, up in shown.items():
            if up and not self._shown.get(name, False):
                self.observed(name, "requests have given it up", sure=True)
        self._shown = shown

    def _pause(self, watches: Sequence[Watch]) -> float:
        if any(watch.result is None for watch in watches):
            return _SOON
        now = monotonic()
        own = [watch.next(now) - now for watch in watches if self._asks(watch)]
        return max(_SHORTEST, min([POLL, *own]))
