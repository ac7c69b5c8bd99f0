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
from math import floor
from typing import TypeAlias

import msgspec

from .policy import Policy

MAX_CLIENTS = 65_536
"""Counters that one process keeps, at about 400 bytes each; an old one goes when there are more."""

_MUCH = 1 << 62

_SWEEP = 2
"""Counters looked at for each new one: more than one, so that expired ones go faster than new ones come."""

LOOK = 0
"""Count nothing: what would be said?"""

COUNT = 1
"""Count a request against all of its limits, or, refused, nowhere; limits on chosen answers are only checked."""

SETTLE = 2
"""Count an answer that was chosen to count; the request has passed already."""

Row: TypeAlias = tuple[int, int, int, int]
"""The counter of one client under one policy: start of its window, points taken in it, points taken in the one
before, end of a block (0: none); times in milliseconds since 1970. A plain tuple, as one is made per request."""


Counter: TypeAlias = list[int]
"""A row as it is kept: the same four numbers, and when it may be dropped."""

Standing: TypeAlias = tuple[tuple[int, ...], tuple[str, str], int, int]
"""What headers say: points left and seconds by limit; of the one with the least left the header of its points,
what is left, and when it changes (Unix time). A plain tuple, as one is made per request."""


Slot: TypeAlias = tuple[bytes, int, int, int, tuple[str, str]]
"""One limit of one client: key, points, window and cost, and the header of its points. A plain tuple, which is
taken apart in half the time of a named one."""


class Verdict(msgspec.Struct, eq=False):
    """What the limits of one request say: who refused (0: nobody, else counted from 1), and the counters after it.

    `shadowed` has a bit for each policy in shadow mode that would have refused. `taken` is how many requests were
    counted at once.
    """

    policies: Sequence[Policy]
    now: int
    refused: int
    rows: Sequence[Row]
    shadowed: int = 0
    taken: int = 1

    @property
    def retry_after(self) -> int:
        """Whole seconds until the request would pass, at least 1; 0 when it has passed."""
        if not self.refused:
            return 0
        pairs = zip(self.policies, self.rows, strict=True)
        waits = [wait(policy, row, self.now) for policy, row in pairs if not policy.shadow]
        return max(1, -(-max(waits) // 1000))


def remaining(policy: Policy, row: Row, now: int) -> int:
    """Return how many points are left now."""
    return 0 if row[3] else max(0, _spare(policy, row, now))


def wait(policy: Policy, row: Row, now: int) -> int:
    """Return the milliseconds until one more request would pass if no other came before it."""
    return max(row[3] - now, _until_spare(policy, row, now))


def _until_spare(policy: Policy, row: Row, now: int) -> int:
    points, window, cost = policy.points, policy.window, policy.cost
    start, current, previous, _ = row
    elapsed = max(0, now - start)
    spare = points - current - cost
    if spare >= 0:
        # Soon enough in this window: previous * (window - elapsed) <= spare * window.
        if previous * (window - elapsed) <= spare * window:
            return 0
        return window - spare * window // previous - elapsed
    # In the next window, where the current count is the previous one.
    return window - elapsed + max(0, window - (points - cost) * window // current)


def _spare(policy: Policy, row: Row, now: int) -> int:
    """Return how many points a counter still has; may be less than none."""
    start, current, previous, _ = row
    if not previous:
        return policy.points - current
    window = policy.window
    covered = window - max(0, now - start)
    return policy.points - current + -previous * covered // window


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
        self._rows: OrderedDict[bytes, Counter] = OrderedDict()

    def forget(self, key: bytes) -> bool:
        """Forget one counter; tell whether there was one."""
        with self._lock:
            return self._rows.pop(key, None) is not None

    def consume(
        self, keys: Sequence[bytes], policies: Sequence[Policy], mode: int = COUNT, want: int = 1
    ) -> Verdict:
        """Ask all the limits of one request: look, count, or settle; *want* is most requests to count at once."""
        now = int(self._clock() * 1000)
        with self._lock:
            rows = [self._current(key, policy, now) for key, policy in zip(keys, policies, strict=True)]
            verdict = Verdict(policies, now, 0, rows)
            over = self._judge(verdict, want)
            if mode == COUNT and over:
                self._block(keys, verdict, over)
            if mode == SETTLE or (mode == COUNT and not verdict.refused):
                self._count(keys, verdict, mode, over)
        return verdict

    def take(self, slots: Sequence[Slot]) -> Standing | None:
        """Count what needs no thought, as nearly every request: counters that are known, current, and have room.

        The same as `consume` and its headers in a quarter of the time; None, and nothing counted, for any other
        request. Limits in shadow mode and on chosen answers do not come here.
        """
        now = floor(self._clock() * 1000)
        known = self._rows
        numbers: list[int] = []
        say = numbers.append
        taken: list[tuple[Counter, int]] = []
        least = _MUCH
        soonest = 0
        shown = ("", "")
        self._lock.acquire()  # without `with`, which costs twice as much
        try:
            for key, points, window, cost, pair in slots:
                counter = known.get(key)
                if counter is None:
                    return None
                start, current, previous, blocked, _ = counter
                rest = window - (now - start)
                current += cost
                left = points - current
                if previous:
                    left += -previous * rest // window
                if left <= 0 or blocked or not 0 < rest <= window:
                    return None
                taken.append((counter, current))
                seconds = -(-rest // 1000)
                say(left)
                say(seconds)
                if left < least:
                    least, soonest, shown = left, seconds, pair
            for counter, current in taken:
                counter[1] = current
        finally:
            self._lock.release()
        return tuple(numbers), shown, least, now // 1000 + soonest

    def _current(self, key: bytes, policy: Policy, now: int) -> Row:
        """Return a counter as it is now; windows that are over are moved out."""
        window = policy.window
        begins = now - now % window
        stored = self._rows.get(key)
        if stored is None:
            return (begins, 0, 0, 0)
        start, current, previous, blocked, _ = stored
        row = (start, current, previous, blocked)
        if blocked and blocked <= now:
            blocked = 0
            row = (start, current, previous, 0)
        if begins <= start <= begins + window:  # a later start: the clock was set back
            return row
        return (begins, 0, current if start == begins - window else 0, blocked)

    def _judge(self, verdict: Verdict, want: int) -> list[int]:
        """Find who refuses, and how many requests fit; return the numbers of all limits that are exceeded."""
        over: list[int] = []
        now = verdict.now
        for index, (policy, row) in enumerate(zip(verdict.policies, verdict.rows, strict=True)):
            spare = _spare(policy, row, now)
            cost = policy.cost
            if spare < cost or row[3]:
                over.append(index)
                if policy.shadow:
                    verdict.shadowed |= 1 << index
                elif not verdict.refused:
                    verdict.refused = index + 1
            elif want > 1 and cost:
                want = min(want, spare // cost)
        verdict.taken = want
        return over

    def _block(self, keys: Sequence[bytes], verdict: Verdict, over: list[int]) -> None:
        """Begin the block of each limit that is exceeded; one that runs is not made longer."""
        rows = list(verdict.rows)
        for index in over:
            policy, (start, current, previous, blocked) = verdict.policies[index], rows[index]
            if policy.block and not blocked:
                rows[index] = (start, current, previous, verdict.now + policy.block)
                self._store(keys[index], rows[index], policy.window, verdict.now)
        verdict.rows = rows

    def _count(self, keys: Sequence[bytes], verdict: Verdict, mode: int, over: list[int]) -> None:
        rows: list[Row] = []
        for index, policy in enumerate(verdict.policies):
            row = verdict.rows[index]
            if mode == SETTLE or (policy.chosen is None and not (over and index in over)):
                start, current, previous, blocked = row
                row = (start, min(current + policy.cost * verdict.taken, policy.points), previous, blocked)
                self._store(keys[index], row, policy.window, verdict.now)
            rows.append(row)
        verdict.rows = rows

    def _store(self, key: bytes, row: Row, window: int, now: int) -> None:
        rows = self._rows
        new = key not in rows
        rows[key] = [*row, max(row[0] + 2 * window, row[3])]
        if new:
            self._sweep(now)

    def _sweep(self, now: int) -> None:
        """Look at the next few counters in turn; drop those that have expired, any when there are too many."""
        rows = self._rows
        for _ in range(_SWEEP):
            key = next(iter(rows))
            if rows[key][4] <= now or len(rows) > self._size:
                del rows[key]
            else:
                rows.move_to_end(key)
