"""Between the library's interface and a store: values and their JSON, limits and counters."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from time import time
from typing import TYPE_CHECKING, Any

import msgspec
from flask_caching.backends.base import BaseCache

from flask_prod.core.values import parse_duration

from .absent import MISSING
from .counters import Counters
from .early import EarlyPages
from .entry import Entry
from .envelope import PAGE, Page, decode_page, decode_value, encode_page, encode_value
from .loader import Loader, Made, Order, Want
from .rules import CookieFilter
from .stores import Store

if TYPE_CHECKING:
    from sqlalchemy import Engine

    from .queries import Queries

Timeout = float | str | timedelta | None


@dataclass(frozen=True, slots=True)
class Limits:
    """How long and how large an entry may be, and what else one application decides for all of its entries."""

    order: Order
    """How computed results are kept, unless their function says otherwise."""

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


class SafeBackend(BaseCache):
    """The back end of one application, as Flask-Caching expects one, and what is new in `prod.cache`."""

    def __init__(self, store: Store, limits: Limits, library: LibraryOptions, counters: Counters) -> None:
        super().__init__(default_timeout=round(limits.order.ttl), ignore_delete_many_errors=True)
        self.store = store
        self.library = library
        self.counters = counters
        self.order = limits.order
        self.cookies = limits.cookies
        self.strict = limits.strict
        self.unfit: set[object] = set()
        self.pages = EarlyPages(self)
        self._queries: Queries | None = None
        self.loader = Loader(store, limits.wait, counters)
        self._most_bytes = limits.max_object

    # What the library calls, and users by `prod.cache.get(...)`.

    def get(self, key: str) -> Any:
        """Return the value under *key*, None if there is none."""
        return self._plain(self._counted(key, self.store.get(key)))

    def get_many(self, *keys: str) -> list[Any]:
        """Return the values under *keys* in one round trip, None where there is none."""
        return [self._plain(self._counted(k, e)) for k, e in zip(keys, self.store.get_many(keys), strict=True)]

    def set(self, key: str, value: Any, timeout: Timeout = None, tags: Sequence[str] = ()) -> bool:
        """Store *value*; TypeError for a type that cannot come back as it was."""
        return self.set_many({key: value}, timeout, tags) == [key]

    def set_many(self, mapping: Mapping[str, Any], timeout: Timeout = None, tags: Sequence[str] = ()) -> list[str]:
        """Store several values in one round trip; return the keys that were stored."""
        entries = {}
        for key, value in mapping.items():
            entry = self._entry(key, value, timeout, tags)
            if entry is not None:
                entries[key] = entry
                self.loader.flights.forget(key)
        return list(entries) if entries and self.store.set_many(entries) else []

    def add(self, key: str, value: Any, timeout: Timeout = None) -> bool:
        """Store *value* unless there is one."""
        entry = self._entry(key, value, timeout, ())
        return entry is not None and self.store.add(key, entry)

    def increment(self, key: str, by: int = 1, timeout: Timeout = None) -> int | None:
        """Add to a whole number and return it; TypeError if there is something else, None when Redis is away."""
        return self.store.increment(key, by, self.seconds(timeout))

    def delete(self, key: str) -> bool:
        """Forget the value or the pages under *key*; True if there was a value."""
        return bool(self._delete((key,)))

    def delete_many(self, *keys: str) -> list[str]:
        """Forget several; all of them are gone afterwards."""
        self._delete(keys)
        return list(keys)

    def delete_pattern(self, pattern: str) -> int:
        """Forget the keys that match, with `*` and `?`; return how many there were."""
        self.loader.flights.reset()
        return self.store.delete_pattern(pattern)

    def invalidate(self, *tags: str) -> bool:
        """Forget every entry that has one of *tags*; False if that waits until Redis is back."""
        return self.store.invalidate(tags)

    @property
    def queries(self) -> Queries:
        """The query cache; what needs SQLAlchemy is imported by those who use it."""
        if self._queries is None:
            from .queries import Queries

            self._queries = Queries(self)
        return self._queries

    def follow(self, engine: Engine, sessions: Any) -> None:
        """Forget the results of tables that *engine* changes; *sessions* take `cache_ttl` as an option."""
        self.queries.follow(engine, sessions)

    def has(self, key: str) -> bool:
        """Tell whether there is an entry under *key*."""
        entry = self.store.get(key)
        return entry is not None and entry.is_fresh(time())

    def ttl(self, key: str) -> float | None:
        """Return for how many seconds *key* lives, infinity for ever, None if there is nothing."""
        return self.store.ttl(key)

    def clear(self) -> bool:
        """Forget everything that this application cached."""
        self.loader.flights.reset()
        return self.store.clear()

    def unlink(self, *keys: str) -> list[str]:
        """Forget several, as `delete_many`."""
        return self.delete_many(*keys)

    # What the decorators call.

    def obtain(self, want: Want, forced: bool = False) -> Any:
        """Return a result from the store, or computed once; see `Loader`."""
        return self.loader.compute(want) if forced else self.loader.obtain(want)

    def peek(self, key: str, order: Order) -> Any:
        """Return a value that this process has in its memory, MISSING if somebody has to look further."""
        entry = self.loader.peek(key, order)
        return MISSING if entry is None else self.value_of(entry)

    def made(self, value: Any) -> Made | None:
        """Return what is stored of a value, None if it is too large; TypeError names a type that cannot be."""
        return self._fit(*encode_value(value))

    def made_page(self, page: Page) -> Made | None:
        """Return what is stored of a response, None if it is too large."""
        return self._fit(PAGE, encode_page(page))

    def value_of(self, entry: Entry) -> Any:
        """Return the value of an entry, MISSING if it is none: an older version, or a page."""
        if entry.kind == PAGE:
            return MISSING
        try:
            return decode_value(entry.kind, entry.payload)
        except (ValueError, TypeError, KeyError, ArithmeticError, msgspec.MsgspecError):
            self.counters.damaged()
            return MISSING

    def page_of(self, entry: Entry) -> Any:
        """Return the Page or the value of an entry, MISSING if it is neither."""
        if entry.kind != PAGE:
            return self.value_of(entry)
        try:
            return decode_page(entry.payload)
        except (ValueError, TypeError, msgspec.MsgspecError):
            self.counters.damaged()
            return MISSING

    def tick(self) -> None:
        """Do what is due every second."""
        self.store.tick()
        taken = self.store.size().get("bytes")
        if isinstance(taken, int):
            self.counters.bytes.set(taken, self.store.name)

    def after_fork(self) -> None:
        """Renew what a forked child must not share with its parent."""
        self.loader.flights.reset()
        self.store.after_fork()

    def seconds(self, timeout: Timeout) -> float:
        """Return a time to live in seconds; None is the default, 0 for ever."""
        return self.order.ttl if timeout is None else max(0.0, parse_duration(timeout))

    def _counted(self, key: str, entry: Entry | None) -> Any:
        value = MISSING if entry is None or not entry.is_fresh(time()) else self.value_of(entry)
        if value is MISSING or entry is None:
            self.loader.count("miss")
            self.loader.count_miss("absent")
        else:
            self.loader.count("hit", entry.tier)
        return value

    def _plain(self, value: Any) -> Any:
        return None if value is MISSING else value

    def _entry(self, key: str, value: Any, timeout: Timeout, tags: Sequence[str]) -> Entry | None:
        made = self.made(value)
        if made is None:
            return None
        ttl = self.seconds(timeout)
        ticket = self.store.ticket(key, tags)
        now = time()
        ends = now + ttl if ttl else 0.0
        return Entry(made.kind, made.payload, now, ends, ends, 0.0, ticket.stamps)

    def _delete(self, keys: Sequence[str]) -> list[str]:
        for key in keys:
            self.loader.flights.forget(key)
        return self.store.delete_many(keys)

    def _fit(self, kind: bytes, payload: bytes) -> Made | None:
        if len(payload) <= self._most_bytes:
            return Made(kind, payload)
        self.counters.refused.inc("size")
        return None
