"""The sliding-window counter: its arithmetic, and an engine that counts in this process.

The count of the window that ends now is that of the current fixed window plus the part of the previous one that
the sliding window still covers. All is integers: milliseconds, and points times milliseconds. consume.lua does the
same in Redis.
"""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import NamedTuple

from .policy import Policy

MAX_CLIENTS = 65_536
"""Counters that one process keeps, at about 400 bytes each; an old one goes when there are more."""

_SWEEP = 2
"""Counters looked at for each new one: more than one, so that expired ones go faster than new ones come."""


class Row(NamedTuple):
    """The counter of one client under one policy, in milliseconds since 1970."""

    start: int
    current: int
    previous: int
    blocked: int


class Verdict:
    """What the limits of one request say: who refused (0: nobody), and the counters after it."""

    __slots__ = ("now", "policies", "refused", "rows")

    def __init__(self, policies: Sequence[Policy], now: int, refused: int, rows: Sequence[Row]) -> None:
        self.policies = policies
        self.now = now
        self.refused = refused
        self.rows = rows

    @property
    def retry_after(self) -> int:
        """Whole seconds until the request would pass, at least 1; 0 when it has passed."""
        if not self.refused:
            return 0
        waits = (wait(policy, row, self.now) for policy, row in zip(self.policies, self.rows, strict=True))
        return max(1, -(-max(waits) // 1000))


def remaining(policy: Policy, row: Row, now: int) -> int:
    """Return how many points are left now."""
    if row.blocked:
        return 0
    window = policy.window
    elapsed = max(0, now - row.start)
    left = (policy.points - row.current) * window - row.previous * (window - elapsed)
    return max(0, left // window)


def wait(policy: Policy, row: Row, now: int) -> int:
    """Return the milliseconds until one more request would pass if no other came before it."""
    return max(row.blocked - now, _until_spare(policy, row, now))


def _until_spare(policy: Policy, row: Row, now: int) -> int:
    points, window, cost = policy.points, policy.window, policy.cost
    elapsed = max(0, now - row.start)
    spare = points - row.current - cost
    if spare >= 0:
        # Soon enough in this window: previous * (window - elapsed) <= spare * window.
        if row.previous * (window - elapsed) <= spare * window:
            return 0
        return window - spare * window // row.previous - elapsed
    # In the next window, where the current count is the previous one.
    return window - elapsed + max(0, window - (points - cost) * window // row.current)


def _exceeds(policy: Policy, row: Row, now: int) -> bool:
    window = policy.window
    elapsed = max(0, now - row.start)
    return row.previous * (window - elapsed) + (row.current + policy.cost) * window > policy.points * window


class LocalEngine:
    """Counts in this process, with bounded memory; safe for threads."""

    def __init__(self, clock: Callable[[], float] = time.time, size: int = MAX_CLIENTS) -> None:
        self._clock = clock
        self._size = size
        self.clear()

    def __len__(self) -> int:
        return len(self._rows)

    def clear(self) -> None:
        """Forget every counter."""
        self._lock = threading.Lock()
        self._rows: OrderedDict[bytes, tuple[Row, int]] = OrderedDict()

    def forget(self, key: bytes) -> bool:
        """Forget one counter; tell whether there was one."""
        with self._lock:
            return self._rows.pop(key, None) is not None

    def consume(self, keys: Sequence[bytes], policies: Sequence[Policy], count: bool = True) -> Verdict:
        """Count one request against all of its limits, or only look; refused, it is counted nowhere."""
        now = int(self._clock() * 1000)
        with self._lock:
            refused, rows = self._look(keys, policies, now)
            if count and refused:
                rows = [self._block(*each, now) for each in zip(keys, policies, rows, strict=True)]
            elif count:
                rows = [self._count(*each, now) for each in zip(keys, policies, rows, strict=True)]
        return Verdict(policies, now, refused, rows)

    def _look(self, keys: Sequence[bytes], policies: Sequence[Policy], now: int) -> tuple[int, list[Row]]:
        """Return which limit refuses first, counted from 1, and the counters as they are."""
        refused = 0
        rows: list[Row] = []
        for i, policy in enumerate(policies):
            row = self._current(keys[i], policy.window, now)
            if not refused and (row.blocked or _exceeds(policy, row, now)):
                refused = i + 1
            rows.append(row)
        return refused, rows

    def _count(self, key: bytes, policy: Policy, row: Row, now: int) -> Row:
        row = Row(row.start, row.current + policy.cost, row.previous, row.blocked)
        self._store(key, row, policy.window, now)
        return row

    def _block(self, key: bytes, policy: Policy, row: Row, now: int) -> Row:
        """Begin the block of a limit that is exceeded; one that runs is not made longer."""
        if policy.block and not row.blocked and _exceeds(policy, row, now):
            row = row._replace(blocked=now + policy.block)
            self._store(key, row, policy.window, now)
        return row

    def _current(self, key: bytes, window: int, now: int) -> Row:
        """Return a counter as it is now; windows that are over are moved out."""
        start = now - now % window
        stored = self._rows.get(key)
        if stored is None:
            return Row(start, 0, 0, 0)
        row = stored[0]
        blocked = row.blocked if row.blocked > now else 0
        if start <= row.start <= start + window:  # a later start: the clock was set back
            return row if blocked == row.blocked else row._replace(blocked=blocked)
        return Row(start, 0, row.current if row.start == start - window else 0, blocked)

    def _store(self, key: bytes, row: Row, window: int, now: int) -> None:
        rows = self._rows
        new = key not in rows
        rows[key] = (row, max(row.start + 2 * window, row.blocked))
        if new:
            self._sweep(now)

    def _sweep(self, now: int) -> None:
        """Look at the next few counters in turn; drop those that have expired, any when there are too many."""
        rows = self._rows
        for _ in range(_SWEEP):
            key = next(iter(rows))
            if rows[key][1] <= now or len(rows) > self._size:
                del rows[key]
            else:
                rows.move_to_end(key)
