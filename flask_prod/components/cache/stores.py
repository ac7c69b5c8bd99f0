"""Where entries lie: what a store does, and the rules by which all of them keep their promises.

How the parts of the room fit together, for whoever builds on them:

- `Entry` (entry.py) is what lies under a key: payload, times, stamps of tags. A store returns it only while it may
  be served, fresh or stale; whether stale will do is for the caller to say (`entry.is_fresh(time())`).
- *Tags* are names under which entries are forgotten together. Each has a stamp, a version. An entry carries the
  stamps that its tags had **before** its computation began; it counts while they are the same now. `invalidate`
  takes stamps away: that costs the same for one entry and for a million, and what is computed at that moment is
  out of date when it is stored. A store never returns an entry whose tag was invalidated, not even as stale.
- A `Ticket` is taken before a computation (`store.ticket(key, tags)`) and shown afterwards (`store.keep(key,
  entry, ticket)`): what was deleted or invalidated in between is not stored. `entry.tags` are `ticket.stamps`.
- `Flights` (flights.py) let one thread of the process compute and the others wait; they share by
  `key` and the ticket's stamps, so nobody who comes after an invalidation gets what was begun before it.
- `store.lock(key, seconds)` is the same between processes; `store.again(key, tags)` looks once more for what
  another process has computed meanwhile.
- `Loader` (loader.py) does all in the right order: `loader.obtain(Want(key, tags, order, make, read))`, where
  *make* computes and says what to store (`Made`), and *read* makes a result of an `Entry`.

No method raises when a server or a disk is away: a read finds nothing, a write returns False.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeAlias

from flask_prod.core.component import Finding

from .board import Marks
from .entry import Entry, Stamps
from .locks import Release

Damaged: TypeAlias = Callable[[], None]
"""Told of bytes that are no entry: what another program, an older version or a broken line has left."""


@dataclass(frozen=True, slots=True)
class Ticket:
    """How things stood before a computation; `marks` are this host's, `stamps` go into the entry."""

    marks: Marks
    stamps: Stamps = ()

    @property
    def name(self) -> str:
        """What tells the flight of this ticket from one before an invalidation."""
        return "".join(f"\0{number:x}" for _, number in self.stamps)


class Store(Protocol):
    """What a back end does."""

    name: str

    def get(self, key: str, tags: Sequence[str] = ()) -> Entry | None:
        """Return what may be served under *key*; naming its *tags*, where known, saves a round trip."""

    def peek(self, key: str) -> Entry | None:
        """Return what may be served under *key* if it lies in this process's memory."""

    def get_many(self, keys: Sequence[str]) -> list[Entry | None]:
        """Return what may be served under each key."""

    def ticket(self, key: str, tags: Sequence[str] = ()) -> Ticket:
        """Return how things stand now, with a stamp for every tag; to be asked before a computation begins."""

    def keep(self, key: str, entry: Entry, ticket: Ticket) -> bool:
        """Store what was computed under *ticket*; False when it is out of date or cannot be stored."""

    def set_many(self, entries: Mapping[str, Entry]) -> bool:
        """Store in the place of what is there, in the memories of other processes too."""

    def add(self, key: str, entry: Entry) -> bool:
        """Store unless there is an entry already; False when there is."""

    def increment(self, key: str, by: int, ttl: float) -> int | None:
        """Add to the number under *key*, 0 if there is none, and return it; TypeError if there is something else.

        A new one lives *ttl* seconds, 0 is for ever. None when the store is away.
        """

    def ttl(self, key: str) -> float | None:
        """Return for how many seconds the entry under *key* is fresh, infinity for ever, None if there is none."""

    def delete_many(self, keys: Sequence[str]) -> list[str]:
        """Forget, and return the keys that had an entry; entries with a tag of that name are forgotten as well."""

    def delete_pattern(self, pattern: str) -> int:
        """Forget the keys that match, with `*` and `?`, and return how many there were."""

    def invalidate(self, tags: Sequence[str]) -> bool:
        """Forget all entries with one of *tags*; False when that has to wait for a server that is away."""

    def clear(self) -> bool:
        """Forget every entry of this application."""

    def lock(self, key: str, seconds: float) -> Release | None:
        """Let one process compute; None while another one does, for *seconds* at most if it has died."""

    def claim(self, name: str, seconds: float) -> bool:
        """Tell whether this process, of all that share the entries, is the first in so many seconds to claim."""

    def again(self, key: str, tags: Sequence[str] = ()) -> Entry | None:
        """Look once more, also where other processes leave their results."""

    def tick(self) -> None:
        """Do what is due every second."""

    def probe(self) -> Finding | None:
        """Say how the store is."""

    def size(self) -> dict[str, object]:
        """Return what is known of how full it is: entries and bytes."""

    def start(self) -> None:
        """Begin to listen, in a process that serves."""

    def after_fork(self) -> None:
        """Renew locks in a forked child."""

    def close(self) -> None:
        """End what was started."""


class NullStore:
    """Keeps nothing: CACHE_TYPE=NullCache."""

    name = "null"

    def get(self, key: str, tags: Sequence[str] = ()) -> Entry | None:
        """Find nothing."""
        return None

    def peek(self, key: str) -> Entry | None:
        """Find nothing."""
        return None

    def get_many(self, keys: Sequence[str]) -> list[Entry | None]:
        """Find nothing."""
        return [None] * len(keys)

    def ticket(self, key: str, tags: Sequence[str] = ()) -> Ticket:
        """Return one that nothing depends on."""
        return Ticket(())

    def keep(self, key: str, entry: Entry, ticket: Ticket) -> bool:
        """Keep nothing."""
        return True

    def set_many(self, entries: Mapping[str, Entry]) -> bool:
        """Keep nothing."""
        return True

    def add(self, key: str, entry: Entry) -> bool:
        """Keep nothing."""
        return True

    def increment(self, key: str, by: int, ttl: float) -> int | None:
        """Count from 0 each time."""
        return by

    def ttl(self, key: str) -> float | None:
        """Find nothing."""
        return None

    def delete_many(self, keys: Sequence[str]) -> list[str]:
        """Find nothing to forget."""
        return []

    def delete_pattern(self, pattern: str) -> int:
        """Find nothing to forget."""
        return 0

    def invalidate(self, tags: Sequence[str]) -> bool:
        """Find nothing to forget."""
        return True

    def clear(self) -> bool:
        """Find nothing to forget."""
        return True

    def lock(self, key: str, seconds: float) -> Release | None:
        """Let everybody compute: nobody will find the result."""
        return lambda: None

    def claim(self, name: str, seconds: float) -> bool:
        """Let nobody: what is done would be lost."""
        return False

    def again(self, key: str, tags: Sequence[str] = ()) -> Entry | None:
        """Find nothing."""
        return None

    def tick(self) -> None:
        """Have nothing to do."""

    def probe(self) -> Finding | None:
        """Be well."""
        return Finding(detail="switched off: CACHE_TYPE is NullCache")

    def size(self) -> dict[str, object]:
        """Be empty."""
        return {}

    def start(self) -> None:
        """Have nothing to start."""

    def after_fork(self) -> None:
        """Have nothing to renew."""

    def close(self) -> None:
        """Have nothing to end."""


def remaining(entry: Entry | None, now: float) -> float | None:
    """Return for how many seconds an entry is fresh, infinity for ever, None if it is not."""
    if entry is None or not entry.is_fresh(now):
        return None
    return entry.expires - now if entry.expires else math.inf
