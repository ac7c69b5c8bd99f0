"""When everything fails at once: the same error from the same place, five times, then once per second.

Of different ones a process reports twenty at once, then five per second.

Building an event costs milliseconds of the request that failed. Metrics count every error; Sentry needs to see it,
not to count it.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from pathlib import Path
from time import monotonic, time

_BURST = 5.0
_PER_SECOND = 1.0
_BURST_OF_ALL = 20.0
_PER_SECOND_OF_ALL = 5.0
_MOST_KINDS = 1000

_TOLD_SECONDS = 60.0
"""How long what one process of a host has told goes for all of them: they see an outage within seconds."""

Kind = tuple[type[BaseException], str, int]

_NUMBERS = re.compile(r"\d+")


@dataclass(slots=True)
class _Bucket:
    """Runs dry by one for each report, and fills up with the time."""

    left: float
    filled: float
    most: float
    per_second: float
    withheld: int = 0

    def has(self, now: float) -> bool:
        self.left = min(self.most, self.left + (now - self.filled) * self.per_second)
        self.filled = now
        return self.left >= 1


class Storm:
    """Decides which of many errors are worth an event."""

    def __init__(self, clock: Callable[[], float] = monotonic) -> None:
        self._clock = clock
        self._all = _Bucket(_BURST_OF_ALL, clock(), _BURST_OF_ALL, _PER_SECOND_OF_ALL)
        self._buckets: dict[Hashable, _Bucket] = {}

    def admit(self, kind: Hashable) -> int | None:
        """Return how many of this kind were withheld since the last admitted one; None to withhold this one."""
        now = self._clock()
        bucket = self._buckets.get(kind)
        if bucket is None:
            if len(self._buckets) >= _MOST_KINDS:
                self._buckets.clear()
            bucket = self._buckets[kind] = _Bucket(_BURST, now, _BURST, _PER_SECOND)
        if not bucket.has(now) or not self._all.has(now):
            bucket.withheld += 1
            return None
        bucket.left -= 1
        self._all.left -= 1
        withheld, bucket.withheld = bucket.withheld, 0
        return withheld


class OncePerHost:
    """Lets one process speak for all of a host, which see the same outage at the same time."""

    def __init__(self, folder: Callable[[], Path | None]) -> None:
        self._folder = folder

    def is_first(self, name: str, message: str) -> bool:
        """Tell whether no process has told of this within the last minute, and remember that this one does."""
        folder = self._folder()
        if folder is None:
            return True
        what = f"{name}\0{_NUMBERS.sub('', message)}".encode()
        path = folder / f"told-{hashlib.sha256(what).hexdigest()[:16]}"
        try:
            os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600))
        except FileExistsError:
            return self._is_old(path)
        except OSError:
            return True  # told twice is better than not at all
        return True

    def _is_old(self, path: Path) -> bool:
        try:
            if 0 <= time() - path.lstat().st_mtime < _TOLD_SECONDS:
                return False
            os.utime(path, follow_symlinks=False)
        except OSError:
            return True
        return True


def kind_of(error: BaseException) -> Kind:
    """Return what makes two errors equal: class, and the place that raised them."""
    trace = error.__traceback__
    if trace is None:
        return type(error), "", 0
    while trace.tb_next is not None:
        trace = trace.tb_next
    return type(error), trace.tb_frame.f_code.co_filename, trace.tb_lineno
