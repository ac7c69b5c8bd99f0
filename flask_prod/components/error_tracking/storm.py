"""When everything fails at once: the same error from the same place, five times, then once per second.

Building an event costs milliseconds of the request that failed. Metrics count every error; Sentry needs to see it,
not to count it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from time import monotonic

_BURST = 5.0
_PER_SECOND = 1.0
_MOST_KINDS = 1000

Kind = tuple[type[BaseException], str, int]


@dataclass(slots=True)
class _Bucket:
    left: float
    filled: float
    withheld: int = 0


class Storm:
    """Decides which of many equal errors are worth an event."""

    def __init__(self, clock: Callable[[], float] = monotonic) -> None:
        self._clock = clock
        self._buckets: dict[Kind, _Bucket] = {}

    def admit(self, error: BaseException) -> int | None:
        """Return how many equal errors were withheld since the last admitted one; None to withhold this one."""
        now = self._clock()
        kind = kind_of(error)
        bucket = self._buckets.get(kind)
        if bucket is None:
            if len(self._buckets) >= _MOST_KINDS:
                self._buckets.clear()
            bucket = self._buckets[kind] = _Bucket(_BURST, now)
        bucket.left = min(_BURST, bucket.left + (now - bucket.filled) * _PER_SECOND)
        bucket.filled = now
        if bucket.left < 1:
            bucket.withheld += 1
            return None
        bucket.left -= 1
        withheld, bucket.withheld = bucket.withheld, 0
        return withheld


def kind_of(error: BaseException) -> Kind:
    """Return what makes two errors equal: class, and the place that raised them."""
    trace = error.__traceback__
    if trace is None:
        return type(error), "", 0
    while trace.tb_next is not None:
        trace = trace.tb_next
    return type(error), trace.tb_frame.f_code.co_filename, trace.tb_lineno
