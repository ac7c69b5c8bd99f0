"""The engines of tenants: a bounded number, the one that was not used for longest closed first."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any
from weakref import WeakValueDictionary

from sqlalchemy import Engine
from sqlalchemy.exc import TimeoutError as PoolTimeout


@dataclass(slots=True)
class _Held:
    engine: Engine
    leases: int = 0
    """How many sessions of contexts use it, whether or not they hold a connection just now."""


class TenantPools:
    """Opens an engine when a tenant is first asked for, and closes others for it when there are *most*.

    One in use is never closed. Who holds on to an engine that was closed may use it again: it opens new
    connections, and is the one that is given to whoever asks for the tenant. `count` is told the number.
    """

    def __init__(self, open_engine: Callable[[str], Engine], most: int, count: Callable[[int], None]) -> None:
        self._open = open_engine
        self._most = most
        self._count = count
        self._held: OrderedDict[str, _Held] = OrderedDict()
        self._past: WeakValueDictionary[str, Engine] = WeakValueDictionary()
        self._lock = threading.Lock()

    def engine(self, name: str) -> Engine:
        """Return a tenant's engine; sqlalchemy's TimeoutError when all others are in use, which means 503."""
        return self._take(name, 0)

    def lease(self, name: str) -> Engine:
        """Return a tenant's engine, which stays open until `release`."""
        return self._take(name, 1)

    def release(self, name: str) -> None:
        """Give back what `lease` gave."""
        with self._lock:
            held = self._held.get(name)
            if held is not None and held.leases:
                held.leases -= 1

    def names(self) -> list[str]:
        """Return the tenants whose engines are open, the one used last at the end."""
        with self._lock:
            return list(self._held)

    def after_fork(self) -> None:
        """Begin anew in a child: its parent's sessions are not its own."""
        self._lock = threading.Lock()
        for held in self._held.values():
            held.leases = 0

    def _take(self, name: str, leases: int) -> Engine:
        with self._lock:
            held = self._held.get(name)
            if held is not None:
                self._held.move_to_end(name)
                held.leases += leases
                return held.engine
            known = self._past.get(name)
        engine = known or self._open(name)  # outside of the lock: an address may be looked up in a database
        with self._lock:
            held = self._held.get(name)
            if held is None:
                closed = self._make_room()
                held = self._held[name] = _Held(self._past.get(name) or engine)
                self._past[name] = held.engine
                self._count(len(self._held))
            else:
                closed = []
            held.leases += leases
            engine = held.engine
        for one in closed:
            one.dispose()  # only what lies idle: a connection that was taken out meanwhile stays good
        return engine

    def _make_room(self) -> list[Engine]:
        """Take out the engines not used for longest, until there is room for one more; the lock is held."""
        closed: list[Engine] = []
        while len(self._held) >= self._most:
            idle = next((name for name, held in self._held.items() if not _is_used(held)), None)
            if idle is None:
                raise PoolTimeout("The pools of as many tenants as DATABASE_TENANT_POOLS allows are in use.")
            closed.append(self._held.pop(idle).engine)
        return closed


def _is_used(held: _Held) -> bool:
    pool: Any = held.engine.pool
    checked_out = getattr(pool, "checkedout", None)
    # A database in memory lives as long as its one connection, which its pool does not count.
    return held.leases > 0 or checked_out is None or checked_out() > 0
