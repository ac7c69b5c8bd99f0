"""What processes spend: processor time and garbage collections, added up over all and never falling.

The sum of `process_cpu_seconds_total` over several processes is no counter: it falls with each that is replaced.
Here a process adds what it has spent since it last looked, to a number that its successor goes on with.
"""

from __future__ import annotations

import gc
import time
from collections.abc import Sequence

from prometheus_client import Counter

from .instruments import Instruments

_GENERATIONS = ("0", "1", "2")


class Spent:
    """Counts what this process spends, each time that it is told to look."""

    def __init__(self, instruments: Instruments) -> None:
        self._cpu = instruments.series(
            Counter, "flask_prod_cpu_seconds_total", "Seconds of processor time that the processes have used"
        )
        self._collections = instruments.series(
            Counter,
            "flask_prod_gc_collections_total",
            "Garbage collections, by generation; the last one looks at everything and holds all threads up",
            ("generation",),
        )
        for generation in _GENERATIONS:
            self._collections.child((generation,))
        self._seconds = 0.0
        self._looked = _collections()

    def after_fork(self) -> None:
        """Begin anew: a child's clock starts at zero, and what its parent collected was counted there."""
        self._seconds, self._looked = 0.0, _collections()

    def look(self) -> None:
        """Add what was spent since the last look."""
        seconds, collections = time.process_time(), _collections()
        self._cpu.metric.inc(seconds - self._seconds)
        for generation, now, before in zip(_GENERATIONS, collections, self._looked, strict=False):
            if now > before:
                self._collections.child((generation,)).inc(now - before)
        self._seconds, self._looked = seconds, collections


def _collections() -> Sequence[int]:
    return [generation["collections"] for generation in gc.get_stats()]
