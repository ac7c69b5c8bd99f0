"""Entries in Redis, shared by all processes; during an outage each goes on with a small memory of its own."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from random import SystemRandom
from time import time
from typing import Any

from flask_prod.core.component import Finding
from flask_prod.core.errors import Unavailable
from flask_prod.core.ports import RedisPort

from .entry import Entry, pack, unpack
from .envelope import PLAIN
from .locks import Release
from .memory import MemoryStore
from .pending import Pending
from .replies import holds, is_number, literal, of_length, stamp_of, stored
from .standby import LOCAL_TTL, Standby
from .stores import Damaged, Ticket, remaining

_BATCH = 500
_TIER = "redis"

_STAMP_LIFE = 7 * 86_400_000
"""Milliseconds that a tag's stamp lives; its entries are computed anew then, so that no stamp stays for ever."""

_draw = SystemRandom().getrandbits


class RedisStore:
    """Entries that all processes share.

    What could not be written or invalidated is deleted when Redis is back, before anything is read there.
    """

    name = "redis"

    def __init__(
        self, redis: RedisPort, prefix: str, local: MemoryStore, pending: Pending, damaged: Damaged
    ) -> None:
        self._redis = redis
        self._prefix = redis.key("cache", prefix)
        self._tags = redis.key("cache-tag", prefix)
        self._local = local
        self._board = local.board
        self._damaged = damaged
        self._standby = Standby(redis, local, pending, self._make_up)

    def get(self, key: str, tags: Sequence[str] = ()) -> Entry | None:
        """Ask Redis: in one round trip if all tags are named, or if the entry has none."""
        return self._standby.attempt(lambda: self._fetch(key, tags), lambda: self._local.get(key))

    def peek(self, key: str) -> Entry | None:
        """Have nothing in memory that would do, unless Redis is away."""
        return self._local.get(key) if self._standby.away else None

    def get_many(self, keys: Sequence[str]) -> list[Entry | None]:
        """Ask in one round trip, in two if entries have tags."""

        def fetch() -> list[Entry | None]:
            found = of_length(self._redis.ask("MGET", *self._names(keys)), len(keys))
            entries = [self._open(key, data) for key, data in zip(keys, found, strict=True)]
            known = self._known({tag for entry in entries if entry for tag, _ in entry.tags}, {})
            return [entry if entry and holds(entry, known) else None for entry in entries]

        return self._standby.attempt(fetch, lambda: self._local.get_many(keys)) if keys else []

    def ticket(self, key: str, tags: Sequence[str] = ()) -> Ticket:
        """Give every tag a stamp that has none, in one round trip."""
        marks = self._board.marks(key, tags)
        if not tags:
            return Ticket(marks)

        def fetch() -> Ticket:
            names = [self._tags + tag for tag in tags]
            new = [("SET", name, _draw(63), "NX", "PX", _STAMP_LIFE) for name in names]
            replies = self._send([*new, ("MGET", *names)])
            stamps = of_length(replies[-1], len(tags))
            return Ticket(marks, tuple((tag, stamp_of(stamp)) for tag, stamp in zip(tags, stamps, strict=True)))

        return self._standby.attempt(fetch, lambda: self._local.ticket(key, tags))

    def keep(self, key: str, entry: Entry, ticket: Ticket) -> bool:
        """Store, unless this host knows that it is out of date."""
        if not self._board.hold(ticket.marks):
            return False
        return self._standby.attempt(
            lambda: self._store(key, entry),
            lambda: self._standby.keep([self._prefix + key], {key: entry}, ticket.marks),
        )

    def set_many(self, entries: Mapping[str, Entry]) -> bool:
        """Store in one round trip, and tell those who listen."""

        def send() -> bool:
            commands = [self._set(key, stored(key, entry), entry) for key, entry in entries.items()]
            replies = self._send([*commands, *self._told(entries, ())])
            return all(reply == b"OK" for reply in replies[: len(commands)])

        self._board.touch(entries)
        return self._standby.attempt(send, lambda: self._standby.keep(self._names(entries), entries))

    def add(self, key: str, entry: Entry) -> bool:
        """Store with NX."""
        return self._standby.attempt(
            lambda: bool(self._redis.ask(*self._set(key, stored(key, entry), entry), "NX") == b"OK"),
            lambda: self._local.get(key) is None and self._standby.keep([self._prefix + key], {key: entry}),
        )

    def increment(self, key: str, by: int, ttl: float) -> int | None:
        """Count with INCRBY."""
        name = self._prefix + key
        expiry = ("PX", max(1, round(ttl * 1000))) if ttl else ()

        def send() -> int:
            _, number = self._redis.pipeline([("SET", name, 0, "NX", *expiry), ("INCRBY", name, by)])
            if isinstance(number, int):
                return number
            if "not an integer" in str(number):
                raise TypeError("increment needs a whole number; there is something else under this key.")
            raise Unavailable("Redis refused to count.")

        def count() -> int | None:
            self._standby.pending.add([name])
            return self._local.increment(key, by, min(ttl or LOCAL_TTL, LOCAL_TTL))

        return self._standby.attempt(send, count)

    def ttl(self, key: str) -> float | None:
        """Return what is left of its time; Redis alone knows that of a number that it counts."""
        entry = self.get(key)
        if entry is None or entry.created:
            return remaining(entry, time())

        def ask() -> float | None:
            left = self._redis.ask("PTTL", self._prefix + key)
            return math.inf if left == -1 else left / 1000 if left >= 0 else None

        return self._standby.attempt(ask, lambda: self._local.ttl(key))

    def delete_many(self, keys: Sequence[str]) -> list[str]:
        """Forget with UNLINK."""

        names, stamps = self._names(keys), [self._tags + key for key in keys]

        def send() -> list[str]:
            commands = [("UNLINK", name, stamp) for name, stamp in zip(names, stamps, strict=True)]
            replies = self._send([*commands, *self._told(keys, keys)])
            return [key for key, found in zip(keys, replies, strict=False) if found]

        def forget() -> list[str]:
            self._standby.pending.add([*names, *stamps])
            return self._local.delete_many(keys)

        if not keys:
            return []
        gone = self._standby.attempt(send, forget)
        self._board.touch(keys, tags=keys)
        return gone

    def delete_pattern(self, pattern: str) -> int:
        """Forget by SCAN; an outage leaves what it did not come to."""

        def send() -> int:
            return sum(self._forget(names) for names in self._scan(literal(self._prefix) + pattern))

        return self._standby.attempt(send, lambda: self._local.delete_pattern(pattern))

    def invalidate(self, tags: Sequence[str]) -> bool:
        """Take the stamps away: O(1) in the number of entries; those who listen are told."""

        def send() -> bool:
            self._send([("UNLINK", *names), *self._told((), tags)])
            return True

        def later() -> bool:
            self._standby.pending.add(names)
            return False

        if not tags:
            return True
        names = [self._tags + tag for tag in tags]
        done = self._standby.attempt(send, later)
        self._board.touch(tags=tags)
        return done

    def clear(self) -> bool:
        """Forget by SCAN within the namespace: others may live on the same server."""

        def later() -> bool:
            self._standby.pending.add_all()
            self._local.empty()
            return False

        done = self._standby.attempt(self._clear, later)
        self._board.touch_all()
        return done

    def lock(self, key: str, seconds: float) -> Release | None:
        """Lock in Redis, with an owner and an end."""

        def take() -> Release | None:
            token = self._redis.lock(name, seconds)
            return None if token is None else lambda: self._unlock(name, token)

        name = f"cache:{key}"
        return self._standby.attempt(take, lambda: self._local.lock(key, seconds))

    def claim(self, name: str, seconds: float) -> bool:
        """Ask for a lock that is not given back; False while Redis is away, for nothing could be shared."""
        return self._standby.attempt(lambda: self._redis.lock(f"cache:{name}", seconds) is not None, lambda: False)

    def again(self, key: str, tags: Sequence[str] = ()) -> Entry | None:
        """Ask once more; during an outage, for what another process of the host has left."""
        return self._standby.attempt(lambda: self._fetch(key, tags), lambda: self._local.again(key, tags))

    def tick(self) -> None:
        """Notice that Redis is back, and make up for what was missed, also where nobody asks."""
        self._board.check()
        if self._standby.away:
            self._standby.is_back()

    def probe(self) -> Finding | None:
        """Ask for a key that nobody writes."""
        try:
            self._redis.ask("EXISTS", self._prefix)
        except Unavailable:
            return Finding("warn", "Redis is away: each process caches for itself.", self._local.size())
        return Finding()

    def size(self) -> dict[str, object]:
        """Say how full this process's own memory is, which is empty but for outages."""
        return self._local.size()

    def start(self) -> None:
        """Have nothing to start."""

    def after_fork(self) -> None:
        """Renew locks and the local memory."""
        self._standby.after_fork()

    def close(self) -> None:
        """Have nothing to end."""

    def _fetch(self, key: str, tags: Sequence[str]) -> Entry | None:
        if tags:
            names = [self._prefix + key, *(self._tags + tag for tag in tags)]
            data, *stamps = of_length(self._redis.ask("MGET", *names), len(names))
        else:
            data, stamps = self._redis.ask("GET", self._prefix + key), []
        entry = self._open(key, data)
        if entry is None or not entry.tags:
            return entry
        known = {tag: stamp_of(stamp) for tag, stamp in zip(tags, stamps, strict=True)}
        known = self._known({tag for tag, _ in entry.tags if tag not in known}, known)
        return entry if holds(entry, known) else None

    def _known(self, tags: Iterable[str], known: dict[str, int]) -> dict[str, int]:
        """Add the stamps that *tags* have now."""
        missing = list(tags)
        if missing:
            stamps = of_length(self._redis.ask("MGET", *(self._tags + tag for tag in missing)), len(missing))
            known.update((tag, stamp_of(stamp)) for tag, stamp in zip(missing, stamps, strict=True))
        return known

    def _open(self, key: str, data: object) -> Entry | None:
        if data is None:
            return None
        entry = unpack(key, data, _TIER) if isinstance(data, bytes) else None
        if entry is None and isinstance(data, bytes) and is_number(data):
            entry = Entry(PLAIN, data, tier=_TIER)
        if entry is None:
            self._damaged()
        return None if entry is None or entry.is_over(time()) else entry

    def _set(self, key: str, data: bytes, entry: Entry) -> tuple[Any, ...]:
        life = entry.lifetime(time())
        expiry = ("PX", max(1, round(life * 1000))) if life else ()
        return ("SET", self._prefix + key, data, *expiry)

    def _store(self, key: str, entry: Entry) -> bool:
        return bool(self._redis.ask(*self._set(key, pack(key, entry), entry)) == b"OK")

    def _told(self, keys: Iterable[str], tags: Iterable[str]) -> list[tuple[Any, ...]]:
        """Return commands that tell others what was invalidated: nobody listens here."""
        return []

    def _send(self, commands: Iterable[tuple[Any, ...]]) -> list[Any]:
        replies = self._redis.pipeline(commands)
        refused = next((reply for reply in replies if isinstance(reply, Exception)), None)
        if refused is not None:
            raise Unavailable(f"Redis refused: {type(refused).__name__}")
        return replies

    def _names(self, keys: Iterable[str]) -> list[str]:
        return [self._prefix + key for key in keys]

    def _scan(self, pattern: str) -> Iterator[list[str]]:
        cursor: Any = b"0"
        while True:
            cursor, names = of_length(self._redis.ask("SCAN", cursor, "MATCH", pattern, "COUNT", _BATCH), 2)
            if names:
                yield [name.decode("utf-8", "surrogateescape") for name in names]
            if int(cursor) == 0:
                return

    def _forget(self, names: list[str]) -> int:
        keys = [name[len(self._prefix) :] for name in names]
        gone, *_ = self._send([("UNLINK", *names), *self._told(keys, ())])
        self._board.touch(keys)
        return int(gone)

    def _clear(self) -> bool:
        for names in self._scan(literal(self._prefix) + "*"):
            self._redis.ask("UNLINK", *names)
        return True

    def _unlock(self, name: str, token: str) -> None:
        try:
            self._redis.unlock(name, token)
        except Unavailable:
            return  # it ends by itself

    def _make_up(self, names: list[str] | None) -> None:
        if names is None:
            self._clear()
            return
        for first in range(0, len(names), _BATCH):
            self._redis.ask("UNLINK", *names[first : first + _BATCH])
