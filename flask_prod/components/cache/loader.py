"""One computation per miss: look up, wait for whoever computes already, compute, keep, serve stale meanwhile."""

from __future__ import annotations

import logging
import math
import random
from collections.abc import Callable
from dataclasses import dataclass
from time import monotonic, perf_counter, sleep, time
from typing import Any, TypeAlias

from werkzeug.exceptions import HTTPException

from .absent import MISSING
from .counters import Counters
from .entry import Entry
from .flights import Flights
from .stores import Store, Ticket
from .warming import ahead

logger = logging.getLogger(__name__)

_PAUSE = (0.005, 0.05)
"""Seconds between two looks for what another process computes: the first, and the longest."""

_SAMPLE = 15
"""Looks into the memory between two that are measured."""

_LEASE = 2.0
"""Seconds after which a process that has died while it computed blocks nobody any more; what takes longer may be
computed by a second process, which is the lesser evil."""

_TELL_EVERY = 60.0


@dataclass(frozen=True, slots=True)
class Order:
    """For how long a result is kept; all in seconds.

    For `stale` after its end one caller computes it anew while the others have the old one at once. For
    `stale_on_error` after its end the old one is served when the computation fails. `jitter` takes a random part
    of the time to live away, so that what was stored together does not end together. `early` is how eagerly a
    result is computed anew before its end, the earlier the longer that takes; 0 is never (XFetch, Vattani 2015).
    """

    ttl: float
    stale: float = 0.0
    stale_on_error: float = 0.0
    jitter: float = 0.0
    early: float = 0.0

    def entry(self, made: Made, cost: float, ticket: Ticket) -> Entry:
        """Return the entry for what was computed just now."""
        now = time()
        ttl = self.ttl if made.ttl is None else made.ttl
        if not ttl:
            return Entry(made.kind, made.payload, now, cost=cost, tags=ticket.stamps)
        ends = now + ttl * (1.0 - self.jitter * random.random())  # noqa: S311  # no secret
        kept = ends + max(self.stale, self.stale_on_error)
        return Entry(made.kind, made.payload, now, ends, kept, cost, ticket.stamps)

    def is_due(self, entry: Entry, now: float) -> bool:
        """Tell whether this caller should compute a fresh entry anew, before its end makes many do so."""
        window = entry.cost * self.early
        # The logarithm is below -20 once in 500 million: most callers need not draw at all.
        if not window or not entry.expires or now + 20 * window < entry.expires:
            return False
        drawn = 1.0 - random.random()  # noqa: S311  # no secret; above 0
        return now - window * math.log(drawn) >= entry.expires


@dataclass(frozen=True, slots=True)
class Made:
    """What is stored of a result; `ttl` in the place of the order's."""

    kind: bytes
    payload: bytes
    ttl: float | None = None


Make: TypeAlias = Callable[[], tuple[Any, Made | None]]
"""Computes a result, and says what is stored of it: None if it may not be shared."""

Read: TypeAlias = Callable[[Entry], Any]
"""Makes a result of an entry, MISSING if it does not count."""


@dataclass(frozen=True, slots=True)
class Want:
    """A result that somebody wants."""

    key: str
    tags: tuple[str, ...]
    order: Order
    make: Make
    read: Read


class Loader:
    """Gives results, from the store where they are there, else computed by one caller."""

    def __init__(self, store: Store, wait: float, counters: Counters) -> None:
        self.store = store
        self.flights = Flights(wait)
        self._wait = wait
        self._counters = counters
        self._turn = 0
        self._told_at = -_TELL_EVERY

    def obtain(self, want: Want) -> Any:
        """Return the result; raises what its computation raises, unless an old one may be served."""
        began = perf_counter()
        entry = self.store.get(want.key, want.tags)
        self._measure(began, entry)
        found = MISSING if entry is None else want.read(entry)
        if entry is None or found is MISSING:
            self.count("miss")
            return self._fly(want)
        now = time() + ahead.get()
        if entry.is_fresh(now):
            self.count("hit", entry.tier)
            return self._refresh(want, found) if want.order.is_due(entry, now) else found
        if now < entry.expires + want.order.stale:
            self.count("stale", entry.tier)
            return self._refresh(want, found)
        self.count("miss")
        return self._fly_or(want, entry, found)

    def peek(self, key: str, order: Order) -> Entry | None:
        """Return a fresh entry of this process's memory; None is no miss yet."""
        began = perf_counter()
        entry = self.store.peek(key)
        if entry is None:
            return None
        now = time() + ahead.get()
        if not entry.is_fresh(now) or order.is_due(entry, now):
            return None
        self._measure(began, entry)
        self._counters.looked.inc("hit", self.store.name, entry.tier)
        return entry

    def fresh(self, want: Want) -> Entry | None:
        """Return the entry if there is a fresh one; computes nothing."""
        entry = self.store.get(want.key, want.tags)
        if entry is None or not entry.is_fresh(time()):
            self.count("miss")
            self.count_miss("absent")
            return None
        self.count("hit", entry.tier)
        return entry

    def compute(self, want: Want) -> Any:
        """Compute in any case, and keep the result."""
        return self._make(want, self.store.ticket(want.key, want.tags))[0]

    def count(self, result: str, tier: str = "none") -> None:
        """Count a look-up."""
        self._counters.looked.inc(result, self.store.name, tier)

    def counting(self, result: str, tier: str) -> Callable[[], None]:
        """Return what counts a look-up of this kind, for who counts many."""
        return self._counters.looked.counting(result, self.store.name, tier)

    def count_miss(self, outcome: str) -> None:
        """Count what became of a miss: computed, coalesced, failed or absent."""
        self._counters.missed.inc(outcome, self.store.name)

    def _measure(self, began: float, entry: Entry | None) -> None:
        """Note how long a look took; in memory, measuring each would take longer than looking."""
        tier = "none" if entry is None else entry.tier
        if tier == "memory":
            self._turn = (self._turn + 1) & _SAMPLE
            if self._turn:
                return
        self._counters.seconds.observe(perf_counter() - began, self.store.name, tier)

    def _refresh(self, want: Want, found: Any) -> Any:
        """Compute anew if nobody does; give *found* to everybody else, and where that fails."""

        def lead() -> tuple[Any, Entry | None]:
            release = self.store.lock(want.key, _LEASE)
            if release is None:
                return found, None
            try:
                return self._make(want, ticket)
            finally:
                release()

        ticket = self.store.ticket(want.key, want.tags)
        try:
            result = self.flights.only(want.key + ticket.name, lead)
        except Exception as error:
            self._note(want, error)
            return found
        return found if result is MISSING else result

    def _fly_or(self, want: Want, entry: Entry, found: Any) -> Any:
        try:
            return self._fly(want)
        except Exception as error:
            if time() >= entry.expires + want.order.stale_on_error:
                raise
            self._note(want, error)
            return found

    def _fly(self, want: Want) -> Any:
        ticket = self.store.ticket(want.key, want.tags)

        def lead() -> tuple[Any, Entry | None]:
            return self._lead(want, ticket)

        def alone() -> tuple[Any, Entry | None]:
            self.count_miss("computed")
            return self._make(want, ticket)

        result, shared = self.flights.run(want.key + ticket.name, lead, want.read, alone)
        if shared:
            self.count_miss("coalesced")
        return result

    def _lead(self, want: Want, ticket: Ticket) -> tuple[Any, Entry | None]:
        """Compute for this process, unless another process does so in time."""
        end = monotonic() + self._wait
        pause, longest = _PAUSE
        release = self.store.lock(want.key, _LEASE)
        try:
            while True:
                entry = self.store.again(want.key, want.tags)
                found = want.read(entry) if entry is not None and entry.is_fresh(time() + ahead.get()) else MISSING
                if found is not MISSING:
                    self.count_miss("coalesced")
                    return found, entry
                if release is not None or monotonic() >= end:
                    self.count_miss("computed")
                    return self._make(want, ticket)
                sleep(pause)
                pause = min(pause * 1.5, longest)
                release = self.store.lock(want.key, _LEASE)
        finally:
            if release is not None:
                release()

    def _make(self, want: Want, ticket: Ticket) -> tuple[Any, Entry | None]:
        began = perf_counter()
        result, made = want.make()
        if made is None:
            return result, None
        entry = want.order.entry(made, perf_counter() - began, ticket)
        self.store.keep(want.key, entry, ticket)
        return result, entry

    def _note(self, want: Want, error: Exception) -> None:
        """Take a failure for one that an old result may stand for; what the view answers on purpose is none."""
        if isinstance(error, HTTPException) and (error.code or 500) < 500:
            raise error
        self.count_miss("failed")
        now = monotonic()
        if now - self._told_at >= _TELL_EVERY:
            self._told_at = now
            logger.warning("%s could not be computed anew; the old result is served", want.key, exc_info=error)
