"""What runs jobs: a process that takes one after the other, until it is told to stop or has grown old.

It knows nothing of Redis: jobs come from a `Source`. A supervisor watches it (`flask_prod.server.crew`), which
prolongs leases, ends a process whose job ignores its time limit, and replaces one that a job has killed. So a
process is not forked for each job, and a crash costs no more than the job that caused it.
"""

from __future__ import annotations

import logging
import os
import random
import signal
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import FrameType
from typing import TYPE_CHECKING, Any

from .processes import Board, Slot, memory_held
from .runner import Runner
from .source import Delivery, Released, Source, SourceAway

if TYPE_CHECKING:
    from ..engine import Engine

logger = logging.getLogger(__name__)

SLICE = 1.0
"""Seconds a worker waits for a job before it looks whether it should stop."""

_TOLD_EVERY = 1.0
"""Seconds between two looks for dead jobs of which nobody has told."""

RECYCLED = 76
"""The exit code of a worker that has grown old: another one takes its place at once."""


@dataclass(frozen=True, slots=True)
class Limits:
    """When a worker process ends by itself, between two jobs; 0 means never."""

    jobs: int = 0
    seconds: float = 0.0
    memory: int = 0

    def spread(self) -> Limits:
        """Return limits of which no two processes have quite the same, so that not all end at once."""
        factor = random.uniform(0.9, 1.1)  # noqa: S311  # no secret
        jobs = self.jobs if self.jobs < 10 else max(1, round(self.jobs * factor))
        return Limits(jobs, self.seconds * factor, self.memory)


class Worker:
    """One process; `token` is its own, sixteen hex digits, and begins the token of each of its attempts."""

    def __init__(
        self, engine: Engine, source: Source, weights: Mapping[str, int], board: Board, slot: Slot, token: str
    ) -> None:
        self._source = source
        self._queues = tuple(weights)
        self._weights = weights
        self._board = board
        self._slot = slot
        self._token = token
        self._runner = Runner(engine, source)
        self._limits = Limits()
        self._burst = False
        self._stopping = False
        self._away = False
        self._old = False
        self._born = time.monotonic()
        self._told_at = 0.0

    def run(self, burst: bool = False, limits: Limits | None = None) -> int:
        """Work until told to stop, until the queues are empty (burst), or until old; return the exit code."""
        self._burst = burst
        self._limits = (limits or Limits()).spread()
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._stop)
        delivery: Delivery | None = None
        while not self._stopping and not self._old:
            if delivery is None:
                delivery, empty = self._next()
                if delivery is None and empty and burst:
                    break
            else:
                delivery = self._attempt(delivery)
        if delivery is not None:
            # Taken at the very moment of the stop: others need not wait until it is missed.
            self._insist(lambda: self._source.settle(delivery, Released(begun=False)))
        self._tell(late=True)
        return RECYCLED if self._old and not self._stopping else 0

    def _stop(self, _signum: int, _frame: FrameType | None) -> None:
        """End after the running job. A handler, not SIG_IGN, which programs that a job starts would inherit."""
        self._stopping = True

    # Taking

    def _next(self) -> tuple[Delivery | None, bool]:
        """Take a job or wait a moment for one; the second is True when all queues were seen to be empty."""
        self._slot.publish()
        queues = self._open_queues()
        try:
            self._tell()
            delivery = self._source.take(queues, self._new_token()) if queues else None
            if delivery is None and not self._burst and not self._stopping:
                self._source.wait(queues, SLICE)
            self._back()
        except SourceAway as error:
            self._wait_for_source(error)
            return None, False
        self._grow_old()
        return delivery, delivery is None

    def _attempt(self, delivery: Delivery) -> Delivery | None:
        """Run one job, write down how it ended, and return the next one."""
        slot = self._slot
        slot.jobs += 1
        slot.began, slot.limit = time.monotonic(), self._runner.limit_of(delivery)
        slot.publish()
        outcome = self._runner.run(delivery)
        slot.busy += time.monotonic() - slot.began
        slot.began = slot.limit = 0.0
        self._grow_old()
        done, following = self._settle(delivery, outcome)
        if done:
            slot.failed += self._runner.ended(delivery, outcome)
        return following

    def _settle(self, delivery: Delivery, outcome: Any) -> tuple[bool, Delivery | None]:
        """Write down the end and take the next job; once Redis was away in between, without taking one."""
        queues = () if self._stopping or self._old else self._open_queues()
        try:
            done, following = self._source.settle(delivery, outcome, queues, self._new_token() if queues else "")
        except SourceAway as error:
            self._wait_for_source(error)
            return bool(self._insist(lambda: self._source.settle(delivery, outcome)[0])), None
        if not done:
            logger.warning(
                "Job %s had been given up for lost when it ended; its end was not kept", delivery.job.id
            )
        self._slot.publish()
        return done, following

    def _open_queues(self) -> Sequence[str]:
        """Return the queues to ask, in the order for this time, without those that are paused."""
        closed = self._board.closed
        queues = self._queues
        if closed:
            queues = tuple(name for place, name in enumerate(queues) if not closed >> place & 1)
        if len(queues) < 2 or not self._weights[queues[0]]:
            return queues
        # Each comes first as often as its weight says; with u uniform, u ** (1 / weight) does just that.
        return sorted(queues, key=lambda name: random.random() ** (1 / self._weights[name]), reverse=True)  # noqa: S311

    def _new_token(self) -> str:
        self._slot.attempt += 1
        self._slot.publish()
        return attempt_token(self._token, self._slot.attempt)

    # When the source is away

    def _wait_for_source(self, error: SourceAway) -> None:
        """Wait until the source answers; what the lost answer may have brought is given back."""
        if not self._away:
            self._away = True
            logger.warning("The source of jobs is away (%s); the worker waits for it", error)
        token = attempt_token(self._token, self._slot.attempt)
        self._slot.attempt += 1  # nobody prolongs the lease of an attempt that is not known here
        self._new_token()
        self._insist(lambda: self._source.lost(token, "released", ""))
        self._back()

    def _back(self) -> None:
        if self._away and not self._stopping:
            self._away = False
            logger.warning("The source of jobs is back")

    def _insist(self, call: Callable[[], Any]) -> Any:
        """Call until the source answers; the supervisor ends a worker that is told to stop meanwhile."""
        while True:
            self._slot.publish()  # who waits for the source is not stuck
            try:
                return call()
            except SourceAway:
                time.sleep(0.5)
                if self._stopping and not self._slot.began:
                    return None

    # Between jobs

    def _grow_old(self) -> None:
        limits, slot = self._limits, self._slot
        if not slot.jobs:
            return  # one that is born too large would be replaced for ever
        self._old = (
            (limits.jobs > 0 and slot.jobs >= limits.jobs)
            or (limits.seconds > 0 and time.monotonic() - self._born > limits.seconds)
            or (limits.memory > 0 and memory_held() > limits.memory)
        )

    def _tell(self, late: bool = False) -> None:
        """Tell of jobs that died with their process."""
        moment = time.monotonic()
        if late or moment >= self._told_at:
            self._told_at = moment + _TOLD_EVERY
            try:
                self._runner.tell()
            except SourceAway:
                if not late:
                    raise


def attempt_token(worker: str, attempt: int) -> str:
    """Return the token of a worker's attempt."""
    return f"{worker}{attempt:08x}"


def new_worker_token() -> str:
    """Return the token of a new worker process."""
    return os.urandom(8).hex()


def worker_name(engine: Engine, host: str) -> str:
    """Return the beginning of a worker's name: who, and where."""
    return f"{engine.redis.key('').strip(':').replace(':', '.')}.{host}"
