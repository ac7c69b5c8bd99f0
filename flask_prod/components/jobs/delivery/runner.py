"""One attempt at a job: its time limit, what its end means, and who is told."""

from __future__ import annotations

import logging
import signal
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from time import perf_counter
from types import FrameType
from typing import TYPE_CHECKING

from rq.job import Job, Retry
from rq.timeouts import JobTimeoutException

from ..dispatch.job import facts, in_request_of, label_of
from ..tasks.retries import next_attempt
from .source import Again, Dead, Delivery, Finished, Outcome, Source

if TYPE_CHECKING:
    from ..engine import Engine

logger = logging.getLogger(__name__)

_HANDLER_LIMIT = 60.0
"""Seconds that an `on_failure` handler may take."""

_LONGEST_REASON = 100_000
"""Characters of a traceback that are kept: its end, where the error is."""


class Runner:
    """Runs jobs in this process's main thread."""

    def __init__(self, engine: Engine, source: Source) -> None:
        self._engine = engine
        self._source = source
        self._cause: tuple[str, BaseException | None] = ("", None)

    def limit_of(self, delivery: Delivery) -> float:
        """Return the job's time limit in seconds, 0 when it has none."""
        return max(0.0, float(delivery.job.timeout or 0))

    def run(self, delivery: Delivery) -> Outcome:
        """Run the job and return how it ended."""
        if delivery.unreadable is not None:
            logger.error("Job %s cannot be read: %s", delivery.job.id, delivery.unreadable.error)
            return delivery.unreadable
        job, counts = delivery.job, self._engine.counts
        counts.begun(job, delivery.queue)
        began = perf_counter()
        try:
            with time_limit(self.limit_of(delivery)):
                result = job.perform()
        except BaseException as error:  # SystemExit in a job ends the attempt, not the worker
            return self._failed(job, error)
        finally:
            counts.duration.observe(perf_counter() - began, delivery.queue, label_of(job))
        if isinstance(result, Retry):
            return self._asked_for_more(job, result)
        return Finished(result)

    def ended(self, delivery: Delivery, outcome: Outcome) -> int:
        """Count an attempt whose end is written down, and tell of a dead job; return how many failed."""
        counts, label = self._engine.counts, label_of(delivery.job)
        if isinstance(outcome, Finished):
            counts.finished.inc(delivery.queue, label)
            return 0
        if isinstance(outcome, Again) and outcome.asked:
            return 0
        counts.failed.inc(delivery.queue, label)
        if isinstance(outcome, Again):
            counts.retried.inc(delivery.queue, label)
        if isinstance(outcome, Dead):
            self.tell()
        return 1

    def tell(self) -> None:
        """Tell of every dead job of which nobody has told: its handler, the event, the counter."""
        for untold in self._source.tell():
            try:
                with time_limit(_HANDLER_LIMIT):
                    cause = self._cause[1] if self._cause[0] == untold.job.id else None
                    self._engine.give_up(untold.job, untold.error, untold.reason, cause)
            except Exception:
                logger.exception("Telling of the dead job %s failed", untold.job.id)
        self._cause = ("", None)

    def _failed(self, job: Job, error: BaseException) -> Outcome:
        reason = "".join(traceback.format_exception(error))[-_LONGEST_REASON:]
        seconds = next_attempt(job, error)
        with in_request_of(job):
            left = job.retries_left or 0
            outlook = "for the last time" if seconds is None else f"attempts left: {left}"
            extra = facts(job)
            logger.warning("Job %s (%s) failed, %s", label_of(job), job.id, outlook, exc_info=error, extra=extra)
        if seconds is None:
            self._cause = (job.id, error)
            return Dead(type(error).__name__, reason)
        return Again(seconds, reason)

    def _asked_for_more(self, job: Job, retry: Retry) -> Outcome:
        """Do as a job says that returned RQ's Retry."""
        times = job.number_of_retries or 0
        if times >= retry.max:
            return Dead("MaxRetriesExceeded", f"The job asked for another attempt after {retry.max} of them.")
        return Again(
            float(Retry.get_interval(times, retry.intervals)), "The job asked for another attempt.", asked=True
        )


@contextmanager
def time_limit(seconds: float) -> Iterator[None]:
    """Raise rq's JobTimeoutException in the block after so many seconds; main thread only, 0 for no limit."""
    if seconds <= 0:
        yield
        return

    def end(_signum: int, _frame: FrameType | None) -> None:
        raise JobTimeoutException(f"Task exceeded maximum timeout value ({seconds:g} seconds)")

    signal.signal(signal.SIGALRM, end)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
