"""What pools went through of late: metrics, one event for each bad time, and the page for whoever looks closer."""

from __future__ import annotations

import os
import sys
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from time import monotonic
from typing import Any
from weakref import WeakKeyDictionary

from sqlalchemy import Engine, event

from flask_prod.core.component import Event

from .adaptive import AdaptivePool
from .instruments import Instruments
from .views import EVERY

LATE = 60.0
"""Seconds that count as of late."""

BUSY = 0.9
"""The share of connections in use beyond which a pool is told of."""

LONG = 0.1
"""Seconds that one of twenty callers may have to wait."""

_ROUNDS = 2
"""Rounds for which it must be so, or be over: one may have met a moment that means nothing."""

_FEW = 20
"""Checkouts of a minute from which on a share of them means something."""


class Pools:
    """Watches the pools of one application's engines."""

    def __init__(self, instruments: Instruments, emit: Callable[[Event], None]) -> None:
        self._instruments = instruments
        self._emit = emit
        self._watches: WeakKeyDictionary[Engine, Watch] = WeakKeyDictionary()

    def equip(self, engine: Engine, role: str) -> None:
        """Count what happens to the connections of *engine*."""
        watch = self._watches[engine] = Watch(role, self._instruments)
        self._instruments.timeouts.show(role)
        if isinstance(engine.pool, AdaptivePool):
            engine.pool.watcher = watch
        for name, change in (("connect", "opened"), ("close", "closed"), ("invalidate", "invalidated")):
            event.listen(engine, name, watch.counting(change))

    def tend(self, held: Iterable[tuple[str, Engine]]) -> None:
        """Close what lay idle too long, set the gauges, and tell of pools that are too small for their load."""
        numbers: dict[str, list[int]] = {}
        for role, engine in held:
            pool, watch = engine.pool, self._watches.get(engine)
            if not isinstance(pool, AdaptivePool) or watch is None:
                continue
            pool.shrink()
            told = watch.review(pool)
            if told is not None:
                self._emit(told)
            found = (
                pool.checkedout(), pool.opened, pool.maximum, max(0, pool.overflow()) * bool(pool.minimum),
                pool.waiting,
            )  # fmt: skip
            numbers[role] = [sum(pair) for pair in zip(found, numbers.get(role, [0] * 5), strict=True)]
        for role, (in_use, opened, most, overflow, waiting) in numbers.items():
            for state, value in (("in_use", in_use), ("open", opened), ("max", most), ("overflow", overflow)):
                self._instruments.connections.set(float(value), role, state)
            self._instruments.waiting.set(float(waiting), role)

    def page(self, held: Iterable[tuple[str, Engine]]) -> dict[str, Any]:
        """Return what there is to know of this process's pools, without addresses."""
        return {"pid": os.getpid(), "pools": [self._shown(role, engine) for role, engine in held]}

    def _shown(self, role: str, engine: Engine) -> dict[str, Any]:
        pool, watch = engine.pool, self._watches.get(engine)
        about: dict[str, Any] = {"pool": role, "database": engine.dialect.name, "kind": type(pool).__name__}
        if isinstance(pool, AdaptivePool) and watch is not None:
            about |= watch.shown(pool)
        return about


class Watch:
    """What one engine's pool went through."""

    def __init__(self, role: str, instruments: Instruments) -> None:
        self._role = role
        self._instruments = instruments
        self._waits: deque[tuple[float, float]] = deque(maxlen=10_000)
        self._counts: deque[tuple[float, int]] = deque(
            maxlen=2 * int(LATE / EVERY)
        )  # rounds come later, never earlier
        self._bad = False
        self._rounds = 0
        self.timeouts = 0

    def waited(self, seconds: float) -> None:
        """Count a caller who was served in the end."""
        self._waits.append((monotonic(), seconds))
        self._instruments.wait.observe(seconds, self._role)

    def timed_out(self, seconds: float) -> None:
        """Count a caller who was not."""
        self.waited(seconds)
        self.timeouts += 1
        self._instruments.timeouts.inc(self._role)

    def counting(self, change: str) -> Callable[..., None]:
        """Return a listener that counts."""

        def count(*_: Any) -> None:
            self._instruments.changes.inc(self._role, change)

        return count

    def review(self, pool: AdaptivePool) -> Event | None:
        """Return an event where a bad time has begun or is over."""
        checkouts, waits = self._late(pool)
        self._counts.append((monotonic(), pool.checkouts))
        use = pool.checkedout() / pool.maximum
        wait = percentile(waits, checkouts, 0.95) if checkouts >= _FEW else 0.0
        bad = use > BUSY or wait > LONG
        self._rounds = self._rounds + 1 if bad is not self._bad else 0
        if self._rounds < _ROUNDS:
            return None
        self._bad, self._rounds = bad, 0
        fields = {"pool": self._role, "in_use": pool.checkedout(), "max": pool.maximum, "wait_p95": round(wait, 3)}
        if not bad:
            return Event("prod.database.pool_normal", "The pool of connections has room again.", "info", fields)
        message = (
            f"The pool {self._role} has {pool.checkedout()} of {pool.maximum} connections in use, and of late one "
            f"caller of twenty waited {wait * 1000:.0f} ms or longer: shorten transactions, or raise "
            "DATABASE_MAX_OPEN_CONNS as far as the server's max_connections allows."
        )
        return Event("prod.database.pool_busy", message, "warning", fields)

    def shown(self, pool: AdaptivePool) -> dict[str, Any]:
        """Return the numbers of the page; times in milliseconds."""
        checkouts, waits = self._late(pool)
        return {
            "min": pool.minimum,
            "max": pool.maximum if pool.maximum < sys.maxsize else None,
            "open": pool.opened,
            "in_use": pool.checkedout(),
            "waiting": pool.waiting,
            "checkouts_last_minute": checkouts,
            "waits_last_minute": len(waits),
            "wait_p50_ms": round(percentile(waits, checkouts, 0.5) * 1000, 1),
            "wait_p95_ms": round(percentile(waits, checkouts, 0.95) * 1000, 1),
            "timeouts": self.timeouts,
            "oldest_checkout_ms": round(pool.oldest() * 1000, 1),
        }

    def _late(self, pool: AdaptivePool) -> tuple[int, list[float]]:
        """Return how many connections were taken in the last minute, and the waits among them, shortest first."""
        since = monotonic() - LATE
        waits = sorted(seconds for when, seconds in list(self._waits) if when > since)
        before = max((count for when, count in list(self._counts) if when <= since), default=0)
        return max(len(waits), pool.checkouts - before), waits


def percentile(waits: Sequence[float], checkouts: int, share: float) -> float:
    """Return the wait that this share of *checkouts* did not exceed; those that are not in *waits* had none."""
    if not waits:
        return 0.0
    place = int(share * checkouts) - (checkouts - len(waits))
    return 0.0 if place < 0 else waits[min(place, len(waits) - 1)]
