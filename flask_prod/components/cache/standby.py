"""How a process goes on while Redis is away, and how it comes back without anything out of date."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from time import monotonic, time
from typing import TypeVar

import msgspec

from flask_prod.core.errors import Unavailable
from flask_prod.core.ports import RedisPort

from .board import Marks
from .entry import Entry
from .memory import MemoryStore
from .pending import Pending

ResultT = TypeVar("ResultT")

LOCAL_TTL = 60.0
"""Seconds that an entry lives which was kept in the process during an outage; TRUST: stale at most 60 s."""

_PAUSE = 0.5
"""Seconds without another try after a failure, so that one request does not pay for it twice."""


_GLANCE = 0.1
"""Seconds between two questions to an open breaker, which lets one through in a second."""


class Standby:
    """Tries Redis, else does the same in the process; what was missed there is made up for when it is back.

    *forget* is called then with the names that are out of date, None standing for all, before anything is read.
    """

    def __init__(
        self,
        redis: RedisPort,
        local: MemoryStore,
        pending: Pending,
        forget: Callable[[list[str] | None], None],
    ) -> None:
        self._redis = redis
        self._probe_key = redis.key("cache", "")
        self._forget = forget
        self.local = local
        self.pending = pending
        self.away = False
        self._next_try = 0.0
        self._lock = threading.Lock()

    def attempt(self, call: Callable[[], ResultT], otherwise: Callable[[], ResultT]) -> ResultT:
        """Return what *call* does with Redis, what *otherwise* does without while that is away."""
        if self.away and not self.is_back():
            return otherwise()
        try:
            return call()
        except (Unavailable, ValueError):
            self.away = True
            self._next_try = monotonic() + _PAUSE
            return otherwise()

    def is_back(self) -> bool:
        """Make up for what was missed; False while Redis does not answer or another one is at it."""
        if monotonic() < self._next_try or not self._lock.acquire(blocking=False):
            return False
        try:
            self._redis.ask("EXISTS", self._probe_key)
            if not self.pending.settle(self._forget):
                return False
            self.local.empty()
            self.away = False
        except (Unavailable, ValueError):
            self._next_try = monotonic() + (_GLANCE if self._redis.degraded else _PAUSE)
            return False
        finally:
            self._lock.release()
        return True

    def keep(self, names: list[str], entries: Mapping[str, Entry], marks: Marks | None = None) -> bool:
        """Store in this process until Redis is back, for a minute at most; *names* are what Redis calls them."""
        self.pending.add(names)
        end = time() + LOCAL_TTL
        for key, entry in entries.items():
            short = msgspec.structs.replace(
                entry,
                expires=min(entry.expires or end, end),
                stale_until=min(entry.stale_until or end, end),
            )
            tags = [tag for tag, _ in entry.tags]
            self.local.hold(key, short, marks or self.local.board.marks(key, tags))
        return True

    def after_fork(self) -> None:
        """Renew the lock: the thread that held it may not be here."""
        self._lock = threading.Lock()
        self.local.after_fork()
