"""Which replica a read goes to, and why it goes to the primary instead; knows nothing of Flask."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import count
from time import monotonic
from typing import Protocol

from sqlalchemy import Engine
from sqlalchemy.exc import DBAPIError

from flask_prod.core.ports import CounterPort

FRESH = 2.0
"""Seconds that a measurement of a replica is believed: one that hangs leaves the rotation after them."""

_CONFLICTS = frozenset({"40001", "25006"})
"""SQLSTATEs by which a standby refuses a query that the primary would answer: a conflict with what it is applying,
and a function that writes."""


class Replica:
    """One replica as this process sees it; `name` is its number in DATABASE_REPLICA_URLS: `replica-1`."""

    def __init__(self, name: str, engine: Engine) -> None:
        self.name = name
        self.engine = engine
        self.forget()

    def forget(self) -> None:
        """Begin anew: nothing is known of it, so it is not asked."""
        self.lag: float | None = None
        self.position: int | None = None
        self.trouble = "not measured yet"
        self.believed_until = 0.0
        self.refused_until = 0.0

    def saw(self, lag: float | None, position: int | None, trouble: str) -> None:
        """Note a measurement: seconds behind, how far it has come, and why it is not to be used, if so."""
        self.lag, self.position, self.trouble = lag, position, trouble
        self.believed_until = monotonic() + FRESH

    def failed(self, seconds: float) -> None:
        """Note that it has failed a read: it is left alone for so long at least."""
        self.refused_until = monotonic() + seconds

    def is_in(self, now: float) -> bool:
        """Tell whether reads may go to it at this time (`time.monotonic`)."""
        return not self.trouble and now < self.believed_until and now >= self.refused_until

    def why_out(self, now: float) -> str:
        """Return in words why it is left alone, empty when it is not."""
        if self.trouble:
            return self.trouble
        if now >= self.believed_until:
            return "it does not answer"
        return "a query failed" if now < self.refused_until else ""

    @property
    def in_use(self) -> int:
        """How many of its connections this process is using now."""
        return int(getattr(self.engine.pool, "checkedout", int)())


class Client(Protocol):
    """Who asks, and what it must see of what it has written."""

    def since(self, now: float) -> int | None:
        """Return how far a replica must be by now: 0 for any, None when only the primary will do."""


class Rotation:
    """Chooses among the replicas of one application."""

    def __init__(
        self, replicas: Sequence[Replica], *, least_busy: bool, counter: CounterPort, start: Callable[[], None]
    ) -> None:
        self.replicas = tuple(replicas)
        self._least_busy = least_busy
        self._counter = counter
        self._start = start
        self._turn = count()

    def choose(self, client: Client) -> Replica | None:
        """Return the replica that a new transaction reads from, None for the primary; counts why."""
        self._start()
        now = monotonic()
        position = client.since(now)
        if position is None:
            self.count("primary", "wrote")
            return None
        found = [one for one in self.replicas if one.is_in(now)]
        if not found:
            self.count("primary", "away")
            return None
        if position:
            found = [one for one in found if one.position is not None and one.position >= position]
            if not found:
                self.count("primary", "wrote")
                return None
        one = found[next(self._turn) % len(found)] if len(found) > 1 else found[0]
        if self._least_busy and len(found) > 1:
            one = min(found, key=lambda other: (other.in_use, other is not one))
        self.count(one.name, "asked")
        return one

    def count(self, server: str, reason: str) -> None:
        """Count where something went for which a replica would have done, and why."""
        self._counter.inc(server, reason)


def is_its_own(error: DBAPIError) -> bool:
    """Tell whether an error is one of the replica: the primary would have answered."""
    if error.connection_invalidated or error.statement is None:  # it is gone, or gave no connection
        return True
    return getattr(error.orig, "sqlstate", None) in _CONFLICTS


def has_lost_it(error: DBAPIError) -> bool:
    """Tell whether such an error says that the replica cannot be used, rather than not for this query."""
    return error.connection_invalidated or error.statement is None
