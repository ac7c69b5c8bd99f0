"""SQLAlchemy's QueuePool, which grows while callers wait for a connection and shrinks when nobody needs them."""

from __future__ import annotations

import sys
import threading
from collections import deque
from time import monotonic
from typing import Any, Protocol

from sqlalchemy import exc
from sqlalchemy.pool import ConnectionPoolEntry, QueuePool

GRACE = 0.01
"""Seconds that a caller waits for a connection to come back before one more is opened, which takes as long."""


class Watcher(Protocol):
    """Is told what cannot be counted later."""

    def waited(self, seconds: float) -> None:
        """Somebody waited so long and was served."""

    def timed_out(self, seconds: float) -> None:
        """Somebody waited so long in vain."""


class AdaptivePool(QueuePool):
    """Keeps `pool_size` connections and opens up to `max_overflow` more, while callers wait.

    Whoever came first is served first. A connection that comes back stays open for whoever comes next; `shrink`
    closes those beyond `pool_size` that lay idle for longer than *idle_time* seconds (0: for ever). One of the
    others that lay idle so long is replaced when it is used next.
    """

    watcher: Watcher | None = None

    def __init__(
        self, creator: Any, pool_size: int = 5, max_overflow: int = 10, idle_time: float = 0.0, **options: Any
    ) -> None:
        super().__init__(creator, pool_size, max_overflow, **options)
        endless = pool_size == 0 or max_overflow < 0  # as QueuePool has it
        self.minimum = pool_size
        self.maximum = sys.maxsize if endless else pool_size + max_overflow
        self.idle_time = idle_time
        self.checkouts = 0
        # What Python collects while it is held may be a connection's owner, which gives it back by this lock.
        self._guard = threading.RLock()
        self._idle: deque[tuple[ConnectionPoolEntry, float]] = deque()
        self._waiters: deque[_Waiter] = deque()
        self._used: dict[ConnectionPoolEntry, float] = {}
        self._open = 0
        self._retired = False

    @property
    def opened(self) -> int:
        """Connections that are open or being opened."""
        return self._open

    @property
    def waiting(self) -> int:
        """Callers that wait for a connection."""
        return len(self._waiters)

    def oldest(self) -> float:
        """Return for how many seconds the connection that was taken first has been in use; 0 if none is."""
        began = list(self._used.values())
        return monotonic() - min(began) if began else 0.0

    def shrink(self) -> int:
        """Close connections beyond the minimum that lay idle too long; return how many."""
        closed = 0
        while self.idle_time:
            with self._guard:
                if self._open <= self.minimum or not self._idle or not self._stale(self._idle[0][1]):
                    break
                record, _ = self._idle.popleft()
                self._open -= 1
            record.close()
            closed += 1
        return closed

    def fill(self, stop: threading.Event) -> int:
        """Open connections up to the minimum and return how many; raises when the server cannot be reached."""
        opened = 0
        while not stop.is_set():
            with self._guard:
                if self._open >= self.minimum or self._retired:
                    break
                self._open += 1
            record: Any = self._connect()
            record.fresh = (
                False  # or else whoever uses it first, in an hour perhaps, would trust it without asking
            )
            self._give_back(record)
            opened += 1
        return opened

    def size(self) -> int:
        """Return how many connections stay open."""
        return self.minimum

    def checkedin(self) -> int:
        """Return how many connections wait to be used."""
        return len(self._idle)

    def checkedout(self) -> int:
        """Return how many connections are in use or being opened."""
        return self._open - len(self._idle)

    def overflow(self) -> int:
        """Return how many connections there are beyond the minimum; below zero as long as there are fewer."""
        return self._open - self.minimum

    def dispose(self) -> None:
        """Close what is idle now, and what is in use as soon as it comes back."""
        with self._guard:
            self._retired = True
            idle = [record for record, _ in self._idle]
            self._idle.clear()
            self._open -= len(idle)
        for record in idle:
            record.close()

    def recreate(self) -> AdaptivePool:
        """Return an empty pool that works alike; touches no connection and no lock of this one."""
        pool = self.__class__(
            self._creator,
            pool_size=self.minimum,
            max_overflow=self._max_overflow,
            idle_time=self.idle_time,
            timeout=self._timeout,
            pre_ping=self._pre_ping,
            recycle=self._recycle,
            echo=self.echo,
            logging_name=self._orig_logging_name,
            reset_on_return=self._reset_on_return,
            _dispatch=self.dispatch,
            dialect=self._dialect,
        )
        pool.watcher = self.watcher
        return pool

    def _do_get(self) -> ConnectionPoolEntry:
        with self._guard:
            self.checkouts += 1
            record, since, waiter = None, 0.0, None
            if self._idle:
                record, since = self._idle.pop()  # the one used last: the others reach their idle time
            elif self._open < self.minimum or not self.minimum:
                self._open += 1
            else:
                waiter = _Waiter()
                self._waiters.append(waiter)
        if waiter is not None:
            record = self._wait(waiter)
        if record is None:
            record = self._connect()
        elif since and self._stale(since):
            record.close()  # it connects anew: firewalls and servers drop in silence what lies idle
        self._used[record] = monotonic()
        return record

    def _do_return_conn(self, record: ConnectionPoolEntry) -> None:
        self._used.pop(record, None)
        self._give_back(record)

    def _stale(self, since: float) -> bool:
        return 0 < self.idle_time < monotonic() - since

    def _connect(self) -> ConnectionPoolEntry:
        try:
            return self._create_connection()
        except BaseException:
            self._free_place()
            raise

    def _give_back(self, record: ConnectionPoolEntry) -> None:
        with self._guard:
            if not self._retired:
                if self._waiters:
                    self._waiters.popleft().serve(record)
                else:
                    self._idle.append((record, monotonic()))
                return
        try:
            record.close()
        finally:
            self._free_place()

    def _free_place(self) -> None:
        """Let the next one open a connection in place of one that is gone, or never came to be."""
        with self._guard:
            if self._waiters:
                self._waiters.popleft().serve(None)
            else:
                self._open -= 1

    def _wait(self, waiter: _Waiter) -> ConnectionPoolEntry | None:
        """Return a connection that came back, None for leave to open one; TimeoutError if neither comes."""
        began = monotonic()
        try:
            served = waiter.wait(min(GRACE, self._timeout)) or self._grow(waiter)
            if not served and not waiter.wait(self._timeout - GRACE) and self._withdraw(waiter):
                if self.watcher is not None:
                    self.watcher.timed_out(monotonic() - began)
                raise exc.TimeoutError(
                    f"All {self.maximum} connections are in use, and none came back within {self._timeout:.2f} s.",
                    code="3o7r",
                )
        except exc.TimeoutError:
            raise
        except BaseException:
            self._leave(waiter)
            raise
        if self.watcher is not None:
            self.watcher.waited(monotonic() - began)
        return waiter.record

    def _grow(self, waiter: _Waiter) -> bool:
        """Tell whether *waiter* is served now, by leave to open a connection if there is room for one."""
        with self._guard:
            if waiter in self._waiters and self._open < self.maximum:
                self._waiters.remove(waiter)
                self._open += 1
                waiter.serve(None)
            return waiter not in self._waiters

    def _withdraw(self, waiter: _Waiter) -> bool:
        """Take a waiter out of the queue; False when it was served just now."""
        with self._guard:
            if waiter not in self._waiters:
                return False
            self._waiters.remove(waiter)
            return True

    def _leave(self, waiter: _Waiter) -> None:
        """Give back what somebody got who was interrupted while waiting."""
        if self._withdraw(waiter):
            return
        if waiter.record is None:
            self._free_place()
        else:
            self._give_back(waiter.record)


class _Waiter:
    """One who waits for a connection."""

    __slots__ = ("_asleep", "record")

    def __init__(self) -> None:
        self.record: ConnectionPoolEntry | None = None
        self._asleep = threading.Lock()
        self._asleep.acquire()

    def serve(self, record: ConnectionPoolEntry | None) -> None:
        """Wake it up, with a connection or with leave to open one; the pool's lock is held."""
        self.record = record
        self._asleep.release()

    def wait(self, seconds: float) -> bool:
        """Tell whether it was served within this time."""
        return self._asleep.acquire(timeout=max(0.0, seconds))
