"""Where entries lie: bytes under keys, with a time to live. Knows neither Flask nor what the bytes mean.

No method raises when a server or a disk is away: a read finds nothing, a write returns False.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from time import monotonic
from typing import Any, Protocol, TypeVar

from flask_prod.core.component import Finding
from flask_prod.core.errors import Unavailable
from flask_prod.core.ports import RedisPort

ResultT = TypeVar("ResultT")

_OVERHEAD = 200
"""Bytes that an entry takes beside its key and its data: dictionary slot, tuple, object headers."""

_LOCAL_TTL = 60.0
"""Seconds that an entry lives which was kept in the process during an outage; TRUST: stale at most 60 s."""

_PAUSE = 0.5
"""Seconds without another try after a failure, so that one request does not pay for it twice."""

_MOST_PENDING = 10_000
"""Keys written during an outage that are remembered; with more, everything is forgotten when Redis is back."""

_BATCH = 500


class Store(Protocol):
    """What a back end does; a `ttl` is in seconds, 0 is for ever."""

    name: str

    def get_many(self, keys: Sequence[str]) -> list[bytes | None]:
        """Return the bytes under each key, None where there are none."""

    def set_many(self, entries: Mapping[str, bytes], ttl: float) -> bool:
        """Store; False when that was not possible."""

    def add(self, key: str, data: bytes, ttl: float) -> bool:
        """Store unless there is an entry already; False when there is."""

    def delete_many(self, keys: Sequence[str]) -> list[str]:
        """Forget, and return the keys that had an entry."""

    def clear(self) -> bool:
        """Forget every entry of this application."""

    def probe(self) -> Finding | None:
        """Say how the store is."""

    def after_fork(self) -> None:
        """Renew locks in a forked child."""


class NullStore:
    """Keeps nothing: CACHE_TYPE=NullCache."""

    name = "null"

    def get_many(self, keys: Sequence[str]) -> list[bytes | None]:
        """Find nothing."""
        return [None] * len(keys)

    def set_many(self, entries: Mapping[str, bytes], ttl: float) -> bool:
        """Keep nothing."""
        return True

    def add(self, key: str, data: bytes, ttl: float) -> bool:
        """Keep nothing."""
        return True

    def delete_many(self, keys: Sequence[str]) -> list[str]:
        """Find nothing to forget."""
        return []

    def clear(self) -> bool:
        """Find nothing to forget."""
        return True

    def probe(self) -> Finding | None:
        """Be well."""
        return Finding(detail="switched off: CACHE_TYPE is NullCache")

    def after_fork(self) -> None:
        """Have nothing to renew."""


class MemoryStore:
    """Entries of this process, bounded by bytes and number; the longest unused go first."""

    name = "memory"

    def __init__(self, most_bytes: int, most_entries: int, clock: Callable[[], float] = monotonic) -> None:
        self._most_bytes = most_bytes
        self._most_entries = most_entries
        self._clock = clock
        self._entries: OrderedDict[str, tuple[float, bytes]] = OrderedDict()
        self._bytes = 0
        self._lock = threading.Lock()

    def get_many(self, keys: Sequence[str]) -> list[bytes | None]:
        """Return what has not expired."""
        with self._lock:
            return [self._get(key) for key in keys]

    def set_many(self, entries: Mapping[str, bytes], ttl: float) -> bool:
        """Store, and make room."""
        expires = self._clock() + ttl if ttl else 0.0
        with self._lock:
            for key, data in entries.items():
                self._put(key, data, expires)
        return True

    def add(self, key: str, data: bytes, ttl: float) -> bool:
        """Store unless there is one."""
        with self._lock:
            if self._get(key) is not None:
                return False
            self._put(key, data, self._clock() + ttl if ttl else 0.0)
            return True

    def delete_many(self, keys: Sequence[str]) -> list[str]:
        """Forget."""
        with self._lock:
            return [key for key in keys if self._drop(key)]

    def clear(self) -> bool:
        """Forget everything."""
        with self._lock:
            self._entries.clear()
            self._bytes = 0
        return True

    def probe(self) -> Finding | None:
        """Say how full it is."""
        return Finding(data={"entries": len(self._entries), "bytes": self._bytes})

    def after_fork(self) -> None:
        """Renew the lock: the thread that held it may not be here."""
        self._lock = threading.Lock()

    def _get(self, key: str) -> bytes | None:
        entry = self._entries.get(key)
        if entry is None:
            return None
        if entry[0] and entry[0] <= self._clock():
            self._drop(key)
            return None
        self._entries.move_to_end(key)
        return entry[1]

    def _put(self, key: str, data: bytes, expires: float) -> None:
        self._drop(key)
        self._entries[key] = (expires, data)
        self._bytes += len(key) + len(data) + _OVERHEAD
        while self._entries and (self._bytes > self._most_bytes or len(self._entries) > self._most_entries):
            self._drop(next(iter(self._entries)))

    def _drop(self, key: str) -> bool:
        entry = self._entries.pop(key, None)
        if entry is None:
            return False
        self._bytes -= len(key) + len(entry[1]) + _OVERHEAD
        return True


class RedisStore:
    """Entries that all processes share; during an outage each process goes on with a small memory of its own.

    Keys that could not be written are deleted when Redis is back: what it holds under them is out of date.
    """

    name = "redis"

    def __init__(self, redis: RedisPort, prefix: str, local: MemoryStore) -> None:
        self._redis = redis
        self._prefix = redis.key("cache", prefix)
        self._local = local
        self._away = False
        self._next_try = 0.0
        self.after_fork()

    def get_many(self, keys: Sequence[str]) -> list[bytes | None]:
        """Ask Redis in one round trip."""
        names = self._names(keys)
        if len(names) == 1:
            return self._try(lambda c: _entries([c.get(names[0])], 1), lambda: self._local.get_many(keys))
        return self._try(lambda c: _entries(c.mget(names), len(names)), lambda: self._local.get_many(keys))

    def set_many(self, entries: Mapping[str, bytes], ttl: float) -> bool:
        """Store in one round trip."""
        expiry = {"px": max(1, round(ttl * 1000))} if ttl else {}

        def send(client: Any) -> bool:
            if len(entries) == 1:
                ((key, data),) = entries.items()
                return bool(client.set(self._prefix + key, data, **expiry))
            pipe = client.pipeline(transaction=False)
            for key, data in entries.items():
                pipe.set(self._prefix + key, data, **expiry)
            return all(pipe.execute())

        return self._try(send, lambda: self._keep(entries, ttl))

    def add(self, key: str, data: bytes, ttl: float) -> bool:
        """Store with NX."""
        expiry = {"px": max(1, round(ttl * 1000))} if ttl else {}
        return self._try(
            lambda client: bool(client.set(self._prefix + key, data, nx=True, **expiry)),
            lambda: self._local.get_many([key]) == [None] and self._keep({key: data}, ttl),
        )

    def delete_many(self, keys: Sequence[str]) -> list[str]:
        """Forget with UNLINK."""
        names = self._names(keys)

        def send(client: Any) -> list[str]:
            if len(names) == 1:
                return list(keys) if client.unlink(names[0]) else []
            pipe = client.pipeline(transaction=False)
            for name in names:
                pipe.unlink(name)
            return [key for key, found in zip(keys, pipe.execute(), strict=True) if found]

        def forget() -> list[str]:
            self._remember(keys)
            return self._local.delete_many(keys)

        return self._try(send, forget) if names else []

    def clear(self) -> bool:
        """Forget by SCAN within the namespace: others may live on the same server."""

        def send(client: Any) -> bool:
            batch: list[bytes] = []
            for name in client.scan_iter(match=_literal(self._prefix) + "*", count=_BATCH):
                batch.append(name)
                if len(batch) == _BATCH:
                    client.unlink(*batch)
                    batch = []
            if batch:
                client.unlink(*batch)
            return True

        def forget() -> bool:
            self._clear_later = True
            self._local.clear()
            return False

        return self._try(send, forget)

    def probe(self) -> Finding | None:
        """Ask for a key that nobody writes."""
        try:
            self._redis.attempt(lambda client: client.exists(self._prefix))
        except Unavailable:
            return Finding("warn", "Redis is away: each process caches for itself.", self._local_size())
        return Finding()

    def after_fork(self) -> None:
        """Renew the lock and the local memory."""
        self._lock = threading.Lock()
        self._pending: set[str] = set()
        self._clear_later = False
        self._local.after_fork()

    def _names(self, keys: Iterable[str]) -> list[str]:
        return [self._prefix + key for key in keys]

    def _local_size(self) -> Mapping[str, object]:
        finding = self._local.probe()
        return finding.data if finding else {}

    def _try(self, call: Callable[[Any], ResultT], otherwise: Callable[[], ResultT]) -> ResultT:
        if self._away and not self._is_back():
            return otherwise()
        try:
            return self._redis.attempt(call)
        except Unavailable:
            self._away = True
            self._next_try = monotonic() + _PAUSE
            return otherwise()

    def _is_back(self) -> bool:
        """Make up for what was missed; False while Redis does not answer or another thread is at it."""
        if monotonic() < self._next_try or not self._lock.acquire(blocking=False):
            return False
        try:
            self._make_up()
        except Unavailable:
            self._next_try = monotonic() + (0.0 if self._redis.degraded else _PAUSE)
            return False
        finally:
            self._lock.release()
        return True

    def _make_up(self) -> None:
        pending = tuple(self._pending)
        if self._clear_later or len(pending) > _MOST_PENDING:
            self._clear_later = False
            self._away = False
            if not self.clear():
                raise Unavailable("Redis went away again.")
        elif pending:
            for first in range(0, len(pending), _BATCH):
                names = self._names(pending[first : first + _BATCH])
                self._redis.attempt(partial(_unlink, names))
        else:
            self._redis.attempt(lambda client: client.exists(self._prefix))
        self._pending.difference_update(pending)
        self._local.clear()
        self._away = False

    def _keep(self, entries: Mapping[str, bytes], ttl: float) -> bool:
        self._remember(entries)
        return self._local.set_many(entries, min(ttl or _LOCAL_TTL, _LOCAL_TTL))

    def _remember(self, keys: Iterable[str]) -> None:
        if len(self._pending) <= _MOST_PENDING:
            self._pending.update(keys)


def _unlink(names: list[str], client: Any) -> object:
    return client.unlink(*names)


def _literal(text: str) -> str:
    """Return *text* as a MATCH pattern for itself: service names may contain what patterns are made of."""
    return "".join("\\" + char if char in "*?[]\\^" else char for char in text)


def _entries(reply: object, count: int) -> list[bytes | None]:
    """Return what Redis has under *count* keys; ValueError for an answer of another shape."""
    if not isinstance(reply, list) or len(reply) != count:
        raise ValueError("not an answer to this question")
    if not all(entry is None or isinstance(entry, bytes) for entry in reply):
        raise ValueError("not the bytes of entries")
    return reply
