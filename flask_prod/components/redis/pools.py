"""Connection pools that say how many of their connections are in use, and who had to wait for one."""

from __future__ import annotations

import select
import threading
from os import getpid
from typing import Any

import redis
from redis.connection import BlockingConnectionPool, SSLConnection

from .failures import NoneFree

_NONE_FREE = "No connection available"
"""How redis-py begins to say so."""


class CountingPool(BlockingConnectionPool):
    """redis-py's pool: a bound on connections, and a wait for one with a time limit."""

    waits = 0
    """How often all connections were in use and a caller had to wait."""

    timeouts = 0
    """How often a caller waited in vain."""

    def get_connection(self, *_: Any, **__: Any) -> Any:
        """Return a connection that is ready; NoneFree when none becomes free in time."""
        if self.pid == getpid() and self.pool.empty():
            self.waits += 1
        try:
            return super().get_connection()  # type: ignore[no-untyped-call]
        except redis.ConnectionError as error:
            if not str(error).startswith(_NONE_FREE):
                raise
            self.timeouts += 1
            raise NoneFree("No connection to Redis became free in time") from None

    def used_and_idle(self) -> tuple[int, int]:
        """Return how many connections are in use and how many wait to be; roughly, since others go on."""
        idle = self._count_idle()
        return max(0, len(self._connections) - idle), idle

    def drop_idle(self) -> None:
        """Close the connections that nobody uses, so that the next calls connect anew."""
        for connection in tuple(self.pool.queue):
            if connection is not None:
                connection.disconnect()

    def _count_idle(self) -> int:
        return sum(connection is not None for connection in tuple(self.pool.queue))


class LeanPool(CountingPool):
    """The same, with the connections that were used last in a list in front of its queue.

    Connections go through the queue, where threads can wait, only when a thread does wait.
    """

    def reset(self) -> None:
        """Forget every connection without closing it: for a child, whose parent still uses them."""
        self._spare: list[Any] = []
        self._waiting = 0
        self._counting = threading.Lock()
        super().reset()  # type: ignore[no-untyped-call]

    def get_connection(self, *_: Any, **__: Any) -> Any:
        """Return a connection that is ready; NoneFree when none becomes free in time."""
        if self.pid != getpid():
            self._checkpid()
        try:
            connection = self._spare.pop()
        except IndexError:
            return self._wait()
        return self._ready(connection)

    def release(self, connection: Any) -> None:
        """Take a connection back."""
        if connection.pid != self.pid or self.pid != getpid():
            super().release(connection)  # type: ignore[no-untyped-call]
            return
        self._spare.append(connection)
        # A thread that begins to wait right now finds this connection in the list, or is seen here.
        if self._waiting:
            self._hand_over()

    def drop_idle(self) -> None:
        """Close the connections that nobody uses, so that the next calls connect anew."""
        for _ in range(len(self._spare)):
            try:
                connection = self._spare.pop(0)
            except IndexError:
                break
            connection.disconnect()
            self.release(connection)
        super().drop_idle()

    def _wait(self) -> Any:
        with self._counting:
            self._waiting += 1
        try:
            try:
                connection = self._spare.pop()
            except IndexError:
                return super().get_connection()
        finally:
            with self._counting:
                self._waiting -= 1
        return self._ready(connection)

    def _hand_over(self) -> None:
        try:
            connection = self._spare.pop()
        except IndexError:
            return
        super().release(connection)  # type: ignore[no-untyped-call]

    def _ready(self, connection: Any) -> Any:
        """Replace what was closed while it lay idle; anything to read here is an end, or an answer too late."""
        try:
            if connection._sock is None:
                connection.connect()
            elif has_news(connection):
                connection.disconnect()
                connection.connect()
        except BaseException:
            self.release(connection)
            raise
        return connection

    def _count_idle(self) -> int:
        return super()._count_idle() + len(self._spare)


def has_news(connection: Any) -> bool:
    """Tell whether there is something to read, or the other end has closed; never waits."""
    if isinstance(connection, SSLConnection):
        # What a TLS socket has to read need not be ours: session tickets come after the handshake.
        return bool(connection.can_read())
    poll = getattr(connection, "_lean_poll", None)
    if poll is None or connection._lean_socket is not connection._sock:
        poll = connection._lean_poll = select.poll()
        connection._lean_socket = connection._sock
        poll.register(connection._sock, select.POLLIN)
    return bool(poll.poll(0))
