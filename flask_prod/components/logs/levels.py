"""Another level for a while: an order that a command leaves and every process obeys until its end."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterable
from contextlib import suppress
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from flask_prod.core.errors import Unavailable
from flask_prod.core.ports import RedisPort

LONGEST = 86_400.0
"""Seconds that an order may hold: one that is forgotten ends within a day."""

FILE = "log-level.json"
_SKEW = 3600.0
"""Seconds by which the clocks of two hosts may differ."""

_LARGEST = 65_536
_MOST = 20
_FRESH = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC

Level = Literal["DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL"]
Name = Annotated[str, Meta(max_length=200, pattern=r"^[^\x00-\x1f\x7f]*$")]


class Change(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One logger, the empty name for all, and its level from one moment to another in seconds since 1970."""

    logger: Name
    level: Level
    at: float
    until: float
    by: Name

    @property
    def number(self) -> int:
        """The level as `logging` counts it."""
        return logging.getLevelNamesMapping()[self.level]

    @property
    def what(self) -> str:
        """Return the logger as a person says it."""
        return f"logger {self.logger}" if self.logger else "all loggers"


class Order(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """All changes that hold together; the one written last counts."""

    at: float
    changes: Annotated[tuple[Change, ...], Meta(max_length=_MOST)] = ()

    def valid(self, now: float) -> Order:
        """Return what still holds; nobody, whatever clock he has, orders more than a day ahead."""
        return msgspec.structs.replace(
            self, changes=tuple(change for change in self.changes if now < change.until <= now + LONGEST + _SKEW)
        )

    def with_change(self, change: Change) -> tuple[Change, ...]:
        """Return the changes with another one, which replaces what was ordered for the same logger."""
        others = tuple(other for other in self.changes if other.logger != change.logger)
        return (*others[-_MOST + 1 :], change)


NOTHING = Order(0.0)


def later(orders: Iterable[Order | None]) -> Order:
    """Return the order that was written last."""
    return max((order for order in orders if order is not None), key=lambda order: order.at, default=NOTHING)


class Board:
    """Where orders lie: a file that all processes of this host see, and Redis for other hosts."""

    def __init__(self, folder: Callable[[], Path | None], redis: Callable[[], RedisPort | None]) -> None:
        self._folder = folder
        self._redis = redis

    @cached_property
    def path(self) -> Path | None:
        """The file; None where no directory can be written."""
        folder = self._folder()
        return None if folder is None else folder / FILE

    def stamp(self) -> tuple[int, int]:
        """Return what differs whenever the file was written; zeros when there is none."""
        if self.path is None:
            return (0, 0)
        try:
            found = os.stat(self.path)
        except OSError:
            return (0, 0)
        return (found.st_mtime_ns, found.st_ino)

    def read(self) -> Order | None:
        """Return the order in the file; None when there is none, or none that can be understood."""
        if self.path is None:
            return None
        try:
            with open(self.path, "rb") as file:
                return _decode(file.read(_LARGEST))
        except OSError:
            return None

    def write(self, order: Order) -> bool:
        """Put the order into the file, in one step; false where that cannot be."""
        if self.path is None:
            return False
        fresh = self.path.with_name(f"{FILE}.{os.getpid()}")
        try:
            descriptor = os.open(fresh, _FRESH, 0o600)
            with open(descriptor, "wb") as file:
                file.write(msgspec.json.encode(order))
            os.replace(fresh, self.path)
        except OSError:
            with suppress(OSError):
                fresh.unlink()
            return False
        return True

    @property
    def is_shared(self) -> bool:
        """True when there is a Redis by which other hosts are told."""
        redis = self._redis()
        return redis is not None and redis.configured

    def read_shared(self) -> Order | None:
        """Return the order in Redis; None when there is none, or Redis is away."""
        redis = self._redis()
        if redis is None or not redis.configured or redis.degraded:
            return None
        key = redis.key("log-level")
        try:
            found: Any = redis.attempt(lambda client: client.get(key))
        except Unavailable:
            return None
        return _decode(found if isinstance(found, bytes) else str(found).encode()) if found else None

    def write_shared(self, order: Order) -> bool:
        """Tell other hosts; false when Redis is away."""
        redis = self._redis()
        if redis is None or not redis.configured:
            return False
        key, payload = redis.key("log-level"), msgspec.json.encode(order)
        try:
            redis.attempt(lambda client: client.set(key, payload, ex=int(LONGEST)))
        except Unavailable:
            return False
        return True


def _decode(content: bytes) -> Order | None:
    try:
        return msgspec.json.decode(content[:_LARGEST], type=Order)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None
