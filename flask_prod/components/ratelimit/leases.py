"""Leased quota: points of a hot client that this process took from Redis at once and spends by itself.

A client that comes often is given a lease of twice as many requests each time it has spent the last one before its
end: 1, 2, 4 and so on up to RATE_LIMIT_LEASE. A lease ends after a second, or with the window it was taken in, and
never holds more than what is left divided by twice the number of processes, so that leases shrink to nothing as a
limit comes near. Points are taken before they are spent: no process can give more than Redis has. What a lease
holds at its end is lost to the client until the window has passed.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence

from .engine import Row, Verdict, remaining

LONGEST = 1.0
"""Seconds that a lease lasts at most."""

_MOST = 4096


class Lease:
    """What this process holds for one client under one set of limits."""

    __slots__ = ("asking", "begun", "ends", "left", "size", "verdict")

    def __init__(self) -> None:
        self.asking = False
        self.left = 0
        self.size = 0
        self.begun = self.ends = 0.0
        self.verdict: Verdict | None = None


class Leases:
    """The leases of one process; safe for threads."""

    def __init__(self, size: int, processes: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._size = size
        self._processes = processes
        self._clock = clock
        self._lock = threading.Lock()
        self._held: dict[Sequence[bytes], Lease] = {}

    def spend(self, keys: Sequence[bytes]) -> Verdict | int:
        """Return a verdict paid for from a lease, or how many requests to ask Redis for and to `keep`.

        0 asks for this request alone and keeps nothing: another thread is asking for many.
        """
        now = self._clock()
        with self._lock:
            lease = self._held.get(keys)
            if lease is None:
                return 1
            live = lease.verdict is not None and now < lease.ends
            if live and lease.left and lease.verdict is not None:
                lease.left -= 1
                return _unspent(lease.verdict, lease.left, lease.verdict.now + int((now - lease.begun) * 1000))
            if lease.asking:
                return 0
            lease.asking = True
            return self._next(lease, lease.verdict) if live and lease.verdict is not None else 1

    def keep(self, keys: Sequence[bytes], verdict: Verdict | None, begun: float, want: int) -> None:
        """Remember what Redis gave, None for nothing; `begun` is the clock before it was asked."""
        with self._lock:
            lease = self._held.get(keys)
            if lease is None:
                if len(self._held) >= _MOST:
                    self._held.clear()
                lease = self._held[keys] = Lease()
            elif want == 1 and lease.left:
                return  # a request for one while another thread's lease has come in
            lease.asking = False
            lease.verdict = None
            if verdict is not None and not verdict.refused:
                lease.verdict = verdict
                lease.size = verdict.taken
                lease.left = verdict.taken - 1
                lease.begun, lease.ends = begun, begun + _seconds(verdict)

    def clear(self) -> None:
        """Forget every lease: what was counted is forgotten too."""
        with self._lock:
            self._held.clear()

    def now(self) -> float:
        """Return the clock by which leases end."""
        return self._clock()

    def _next(self, lease: Lease, verdict: Verdict) -> int:
        pairs = zip(verdict.policies, verdict.rows, strict=True)
        left = min(remaining(policy, row, verdict.now) // max(1, policy.cost) for policy, row in pairs)
        return max(1, min(2 * lease.size, self._size, left // (2 * self._processes)))


def _seconds(verdict: Verdict) -> float:
    """Return how long points may be spent: not beyond the window in which they were counted."""
    pairs = zip(verdict.policies, verdict.rows, strict=True)
    end = min(row[0] + policy.window for policy, row in pairs)
    return min(LONGEST, (end - verdict.now) / 1000)


def first_of(verdict: Verdict) -> Verdict:
    """Return a verdict on many requests as the first of them sees it."""
    if verdict.refused or verdict.taken == 1:
        return verdict
    return _unspent(verdict, verdict.taken - 1, verdict.now)


def _unspent(verdict: Verdict, left: int, now: int) -> Verdict:
    """Return what Redis would have said, had it been asked for every request by itself."""
    rows: list[Row] = [
        (start, current - left * policy.cost, previous, blocked)
        for policy, (start, current, previous, blocked) in zip(verdict.policies, verdict.rows, strict=True)
    ]
    return Verdict(verdict.policies, now, 0, rows)
