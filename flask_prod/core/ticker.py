"""One thread per process for what components do again and again: watch, flush, look whether a setting changed."""

from __future__ import annotations

import heapq
import logging
import threading
from collections.abc import Sequence
from itertools import count
from random import random
from time import monotonic

from .component import Periodic

logger = logging.getLogger(__name__)

_GOODBYE = 1.0
"""Seconds that the end of a process waits for the call that runs just then."""


class Ticker:
    """Calls each piece of work at its interval until `stop`; without work there is no thread.

    The first call comes after a random part of the interval, so that workers started together do not move in step.
    """

    def __init__(self, work: Sequence[Periodic]) -> None:
        self._stopping = threading.Event()
        self._failing: set[str] = set()
        self._thread: threading.Thread | None = None
        if work:
            self._thread = threading.Thread(target=self._run, args=(work,), name="flask-prod-ticker", daemon=True)
            self._thread.start()

    def stop(self) -> None:
        """End the thread; waits a second at most for the call that runs just then."""
        self._stopping.set()
        if self._thread is not None and self._thread is not threading.current_thread():
            self._thread.join(_GOODBYE)

    def _run(self, work: Sequence[Periodic]) -> None:
        order = count()  # what comes first of two that are due together; work itself has no order
        due = [(monotonic() + random() * one.seconds, next(order), one) for one in work]  # noqa: S311
        heapq.heapify(due)
        while not self._stopping.wait(max(0.0, due[0][0] - monotonic())):
            _, _, one = heapq.heappop(due)
            self._call(one)
            heapq.heappush(due, (monotonic() + one.seconds, next(order), one))

    def _call(self, one: Periodic) -> None:
        """Call it; a failure is logged once, until it works again."""
        try:
            one.call()
        except Exception:
            if one.name not in self._failing:
                logger.exception("%s failed; it is tried again every %g s", one.name, one.seconds)
            self._failing.add(one.name)
        else:
            self._failing.discard(one.name)
