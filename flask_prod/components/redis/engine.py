"""A circuit breaker: keeps requests away from a server that does not answer, and notices when it is back.

Closed, it costs one attribute read per call. It opens after `threshold` failures in a row, or as many refusals
(a server that answers, but takes no writes) within `memory` seconds. Calls that fail side by side are one failure:
sixteen threads that meet the same pause of 100 ms have seen one pause, not sixteen. Open, one caller per
`interval` may try; when that succeeds, it closes. State is local to the process.
"""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable

CLOSED = "closed"
OPEN = "open"
HALF_OPEN = "half-open"

_JITTER = 0.25
"""Probes come at 0.75 to 1.25 intervals, so that many processes do not ask at the same moment."""


class Breaker:
    """Counts failures and says who may call; `on_change` is told of each change, outside of the lock."""

    def __init__(
        self,
        threshold: int = 3,
        interval: float = 1.0,
        memory: float = 10.0,
        on_change: Callable[[str], None] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.threshold = threshold
        self.interval = interval
        self.memory = memory
        self._on_change = on_change
        self._clock = clock
        self.reset()

    def reset(self) -> None:
        """Forget everything; for a new process, where the old lock may be held by a thread that is not here."""
        self._lock = threading.Lock()
        self.opened = False
        self.failures = 0.0
        self._failed_at = 0.0
        self._probing = False
        self._refusals = 0
        self._refused_since = 0.0
        self._next_probe = 0.0

    @property
    def state(self) -> str:
        """Return "closed", "open", or "half-open" while a probe is on its way."""
        if not self.opened:
            return CLOSED
        return HALF_OPEN if self._probing else OPEN

    def admit(self) -> bool:
        """Tell whether a caller may go ahead; while open, that is one per interval: the probe."""
        if not self.opened:
            return True
        with self._lock:
            now = self._clock()
            if not self.opened or now < self._next_probe:
                return not self.opened
            self._plan(now)
            self._probing = True
            return True

    def fail(self, began: float | None = None, weight: float = 1.0) -> None:
        """Note a call that got no answer; *began* is when, by the clock, it was made.

        A *weight* below 1 is for a failure that may have another reason.
        """
        with self._lock:
            if began is not None and began < self._failed_at:
                return  # it ran beside the one that was noted last
            self._failed_at = self._clock()
            self.failures += weight
            changed = self._open_if(self.failures >= self.threshold)
        self._tell(changed)

    def refuse(self) -> None:
        """Note that the server refused to work (out of memory, read-only); reads in between prove nothing."""
        with self._lock:
            now = self._clock()
            if now - self._refused_since > self.memory:
                self._refused_since, self._refusals = now, 0
            self._refusals += 1
            changed = self._open_if(self._refusals >= self.threshold)
        self._tell(changed)

    def trip(self) -> None:
        """Open at once: the server is known to be away."""
        with self._lock:
            changed = self._open_if(True)
        self._tell(changed)

    def succeed(self) -> None:
        """Note an answer; while open it changes nothing, since the call may have begun before."""
        if not self.opened:
            self.failures = 0.0

    def end_probe(self, answered: bool) -> None:
        """Note how the probe that `admit` let through has ended."""
        with self._lock:
            changed = self.opened and self._probing and answered
            self._probing = False
            if changed:
                self.opened = False
                self.failures, self._refusals = 0.0, 0
        self._tell(changed)

    def _open_if(self, due: bool) -> bool:
        if self.opened or not due:
            return False
        self.opened = True
        self._plan(self._clock())
        return True

    def _plan(self, now: float) -> None:
        self._next_probe = now + self.interval * random.uniform(1 - _JITTER, 1 + _JITTER)  # noqa: S311  # no secret

    def _tell(self, changed: bool) -> None:
        # Outside of the lock: whoever listens may take long, or ask for the state.
        if changed and self._on_change is not None:
            self._on_change(self.state)
