"""Between the library's interface and a store: envelopes, stamps, limits and counters."""

from __future__ import annotations

import hashlib
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import msgspec
from flask_caching.backends.base import BaseCache

from flask_prod.core.ports import CounterPort
from flask_prod.core.values import parse_duration

from .absent import MISSING
from .envelope import PAGE, Page, decode_page, decode_value, encode_page, encode_value, pack, unpack
from .flights import Flights
from .rules import CookieFilter
from .stores import Store

Timeout = float | str | timedelta | None


@dataclass(frozen=True, slots=True)
class Limits:
    """How long and how large an entry may be, and what else one application decides for all of its entries."""

    ttl: float
    max_object: int
    wait: float
    cookies: CookieFilter
    strict: bool
    """Raise for a value that cannot be stored; else it is only not stored."""


@dataclass(frozen=True, slots=True)
class LibraryOptions:
    """Keys of Flask-Caching, which keeps them on the object that several applications share."""

    hash_method: Callable[..., Any] = hashlib.sha256
    source_check: bool = False
    enable_signals: bool = False


@dataclass(frozen=True, slots=True)
class Counters:
    """Where the room counts; `looked` by hit, miss, coalesced or damaged, `refused` by reason."""

    looked: CounterPort
    refused: CounterPort


class SafeBackend(BaseCache):
    """The back end of one application, as Flask-Caching expects one."""

    def __init__(self, store: Store, limits: Limits, library: LibraryOptions, counters: Counters) -> None:
        super().__init__(default_timeout=round(limits.ttl), ignore_delete_many_errors=True)
        self.store = store
        self.library = library
        self.counters = counters
        self.cookies = limits.cookies
        self.strict = limits.strict
        self.unfit: set[object] = set()
        self.flights = Flights(limits.wait)
        self._limits = limits

    # What the library calls, and users by `prod.cache.get(...)`.

    def get(self, key: str) -> Any:
        """Return the value under *key*, None if there is none."""
        value = self.look_up(key)
        return None if value is MISSING else value

    def get_many(self, *keys: str) -> list[Any]:
        """Return the values under *keys* in one round trip, None where there is none."""
        found = self.store.get_many(keys) if keys else []
        values = [self._read_value(key, data) for key, data in zip(keys, found, strict=True)]
        return [None if value is MISSING else value for value in values]

    def set(self, key: str, value: Any, timeout: Timeout = None) -> bool:
        """Store *value*; TypeError for a type that cannot come back as it was."""
        data = self._fit(pack(key, *encode_value(value)))
        return data is not None and self.store.set_many({key: data}, self.seconds(timeout))

    def set_many(self, mapping: Mapping[str, Any], timeout: Timeout = None) -> list[str]:
        """Store several values in one round trip; return the keys that were stored."""
        packed = {key: self._fit(pack(key, *encode_value(value))) for key, value in mapping.items()}
        entries = {key: data for key, data in packed.items() if data is not None}
        if not entries or not self.store.set_many(entries, self.seconds(timeout)):
            return []
        return list(entries)

    def add(self, key: str, value: Any, timeout: Timeout = None) -> bool:
        """Store *value* unless there is one."""
        data = self._fit(pack(key, *encode_value(value)))
        return data is not None and self.store.add(key, data, self.seconds(timeout))

    def delete(self, key: str) -> bool:
        """Forget the value or the page under *key*; True if there was one."""
        self.flights.forget(key)
        return bool(self.store.delete_many((key,)))

    def delete_many(self, *keys: str) -> list[str]:
        """Forget several; all of them are gone afterwards."""
        for key in keys:
            self.flights.forget(key)
        self.store.delete_many(keys)
        return list(keys)

    def has(self, key: str) -> bool:
        """Tell whether there is an entry under *key*."""
        return self.store.get_many((key,))[0] is not None

    def clear(self) -> bool:
        """Forget everything that this application cached."""
        self.flights.reset()
        return self.store.clear()

    def unlink(self, *keys: str) -> list[str]:
        """Forget several, as `delete_many`."""
        return self.delete_many(*keys)

    # What the decorators call.

    def look_up(self, key: str) -> Any:
        """Return the value under *key* or MISSING, and count."""
        value = self._read_value(key, self.store.get_many((key,))[0])
        self.counters.looked.inc("miss" if value is MISSING else "hit")
        return value

    def look_up_page(self, key: str, root: str) -> tuple[Any, str]:
        """Return the page under *key* or MISSING, and the stamp of *root*, empty if it has none.

        A page counts only with the stamp that its root has now: whoever deletes the root forgets all of its pages,
        those that are being computed included.
        """
        data, stamp_data = self.store.get_many((key, root))
        stamp = self._read_value(root, stamp_data)
        stamp = stamp if isinstance(stamp, str) else ""
        found = self.read_page(key, data, stamp) if data is not None and stamp else MISSING
        self.counters.looked.inc("miss" if found is MISSING else "hit")
        return found, stamp

    def stamp(self, root: str, timeout: Timeout) -> str:
        """Give *root* a stamp if it has none, and return the one it has."""
        ttl = self.seconds(timeout)
        new = uuid.uuid4().hex[:16]
        lifetime = ttl * 2 + 60 if ttl else 0.0  # it must outlive the pages that carry it
        if self.store.add(root, pack(root, *encode_value(new)), lifetime):
            return new
        value = self._read_value(root, self.store.get_many((root,))[0])
        return value if isinstance(value, str) else new

    def store_value(self, key: str, value: Any, timeout: Timeout) -> bytes | None:
        """Store *value* and return its bytes, also when the store is away; None if it is too large."""
        data = self._fit(pack(key, *encode_value(value)))
        if data is not None:
            self.store.set_many({key: data}, self.seconds(timeout))
        return data

    def store_page(self, key: str, page: Page, timeout: Timeout) -> bytes | None:
        """Store a response and return its bytes; None if it is too large."""
        data = self._fit(pack(key, PAGE, encode_page(page)))
        if data is not None:
            self.store.set_many({key: data}, self.seconds(timeout))
        return data

    def fly(
        self,
        key: str,
        compute: Callable[[], tuple[Any, bytes | None]],
        read: Callable[[bytes], Any],
        again: Callable[[], Any],
        landings: int,
    ) -> Any:
        """Compute once per key and process; see `Flights.run`."""
        result, shared = self.flights.run(key, compute, read, again, landings)
        if shared:
            self.counters.looked.inc("coalesced")
        return result

    def read_value(self, key: str, data: bytes) -> Any:
        """Return what `store_value` stored."""
        return self._read_value(key, data)

    def read_page(self, key: str, data: bytes, stamp: str) -> Any:
        """Return what a view returned, a Page or a value; MISSING if that was under another stamp."""
        found: Any = self._guarded(key, data, _stamped)
        return found[1] if found is not MISSING and found[0] == stamp else MISSING

    def after_fork(self) -> None:
        """Renew what a forked child must not share with its parent."""
        self.flights.reset()
        self.store.after_fork()

    def seconds(self, timeout: Timeout) -> float:
        """Return a time to live in seconds; None is the default, 0 for ever."""
        return self._limits.ttl if timeout is None else max(0.0, parse_duration(timeout))

    def _read_value(self, key: str, data: bytes | None) -> Any:
        return MISSING if data is None else self._guarded(key, data, _value)

    def _guarded(self, key: str, data: bytes, read: Callable[[bytes, bytes], Any]) -> Any:
        """Read an entry; what another program, an older version or a broken line left there is a miss."""
        opened = unpack(key, data)
        if opened is not None:
            try:
                return read(*opened)
            except (ValueError, TypeError, KeyError, ArithmeticError, msgspec.MsgspecError):
                pass
        self.counters.looked.inc("damaged")
        return MISSING

    def _fit(self, data: bytes) -> bytes | None:
        if len(data) <= self._limits.max_object:
            return data
        self.counters.refused.inc("size")
        return None


def _value(kind: bytes, payload: bytes) -> Any:
    return MISSING if kind == PAGE else decode_value(kind, payload)


def _stamped(kind: bytes, payload: bytes) -> tuple[str, Any]:
    if kind == PAGE:
        page = decode_page(payload)
        return page.stamp, page
    stamp, value = decode_value(kind, payload)
    return stamp, value
