"""The request path's own way through redis-py: its connections, without what it does around each command.

redis-py 8 spends two thirds of a short command on its pool, on retries made of closures and on metrics that nobody
has switched on. What matters is kept: a bound on connections, time limits, one more try on a dropped connection
and on nothing else, and a connection that is closed whenever an answer was not read to its end.
"""

from __future__ import annotations

import select
import threading
from os import getpid
from time import monotonic
from typing import Any

import redis
from redis.connection import BlockingConnectionPool, SSLConnection

_READ = 65_536
_END = b"\r\n"


class LeanPool(BlockingConnectionPool):
    """redis-py's pool, with the connections that were used last in a list in front of its queue.

    Connections go through the queue, where threads can wait, only when a thread does wait.
    """

    def reset(self) -> None:
        """Forget every connection without closing it: for a child, whose parent still uses them."""
        self._spare: list[Any] = []
        self._waiting = 0
        self._counting = threading.Lock()
        super().reset()  # type: ignore[no-untyped-call]

    def get_connection(self, *_: Any, **__: Any) -> Any:
        """Return a connection that is ready; ConnectionError when none becomes free in time."""
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

    def _wait(self) -> Any:
        with self._counting:
            self._waiting += 1
        try:
            try:
                connection = self._spare.pop()
            except IndexError:
                return super().get_connection()  # type: ignore[no-untyped-call]
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
            elif _has_news(connection):
                connection.disconnect()
                connection.connect()
        except BaseException:
            self.release(connection)
            raise
        return connection


class LeanClient(redis.Redis):
    """redis-py's client with one more method, for commands that are ready to be sent."""

    def __init__(self, pool: LeanPool, retries: int, patience: float) -> None:
        super().__init__(connection_pool=pool)
        self._lean_pool = pool
        self._retries = retries
        self._patience = patience

    def ask(self, command: bytes) -> Any:
        """Send a packed command and return its answer: bytes, a whole number, or None.

        For commands that answer with one value; raises what redis-py raises. An answer that comes byte by byte
        is waited for three times the read time limit at most.
        """
        pool = self._lean_pool
        connection = pool.get_connection()
        try:
            try:
                return self._exchange(connection, command)
            except redis.ConnectionError:
                if not self._retries:
                    raise
            return self._again(connection, command)
        finally:
            pool.release(connection)

    def _again(self, connection: Any, command: bytes) -> Any:
        for _ in range(self._retries - 1):
            try:
                return self._exchange(connection, command)
            except redis.ConnectionError:
                continue
        return self._exchange(connection, command)

    def _exchange(self, connection: Any, command: bytes) -> Any:
        if connection._sock is None:
            connection.connect()
        socket = connection._sock
        try:
            socket.sendall(command)
            data = socket.recv(_READ)
            if data[:1] != b"$" or data[-2:] != _END:
                return self._unusual(connection, data)
            length, _, value = data.partition(_END)
            if len(value) - 2 != int(length[1:]):
                return self._unusual(connection, data)
        except redis.ResponseError:
            raise  # an answer like any other, read to its end
        except TimeoutError:
            connection.disconnect()
            raise redis.TimeoutError("Timeout reading from socket") from None
        except OSError as error:
            connection.disconnect()
            raise redis.ConnectionError(f"Error while talking to Redis: {type(error).__name__}") from None
        except BaseException:
            connection.disconnect()
            raise
        return value[:-2]

    def _unusual(self, connection: Any, data: bytes) -> Any:
        """Read an answer that is no bulk string, or did not come in one piece."""
        socket = connection._sock
        end = monotonic() + self._patience
        while not _is_whole(data):
            if monotonic() > end:
                raise TimeoutError
            more = socket.recv(_READ)
            if not more:
                raise redis.ConnectionError("Connection closed by server.")
            data += more
        return _value_of(connection, data)


def pack(*words: bytes) -> bytes:
    """Return a command as it goes over the wire."""
    return b"*%d\r\n" % len(words) + b"".join(b"$%d\r\n%s\r\n" % (len(word), word) for word in words)


def _has_news(connection: Any) -> bool:
    if isinstance(connection, SSLConnection):
        # What a TLS socket has to read need not be ours: session tickets come after the handshake.
        return bool(connection.can_read())
    poll = getattr(connection, "_lean_poll", None)
    if poll is None or connection._lean_socket is not connection._sock:
        poll = connection._lean_poll = select.poll()
        connection._lean_socket = connection._sock
        poll.register(connection._sock, select.POLLIN)
    return bool(poll.poll(0))


def _is_whole(data: bytes) -> bool:
    """Tell whether an answer has come to its end; InvalidResponse if it can never be one value."""
    if data[:1] not in (b"$", b"+", b"-", b":", b""):
        raise redis.exceptions.InvalidResponse("Redis answered with something else than one value.")
    line, end, rest = data.partition(_END)
    if not data or not end:
        return False
    if data[:1] != b"$" or line == b"$-1":
        _must_be_empty(rest)
        return True
    missing = int(line[1:]) + 2 - len(rest)
    if missing < 0 or (not missing and rest[-2:] != _END):
        raise redis.exceptions.InvalidResponse("Redis answered with more than one value.")
    return not missing


def _must_be_empty(rest: bytes) -> None:
    if rest:
        raise redis.exceptions.InvalidResponse("Redis answered with more than one value.")


def _value_of(connection: Any, data: bytes) -> Any:
    kind, line = data[:1], data.partition(_END)[0][1:]
    if kind == b"-":
        raise connection._parser.parse_error(line.decode("utf-8", "replace"))
    if kind == b":":
        return int(line)
    if kind == b"+":
        return line
    return None if line == b"-1" else data.partition(_END)[2][:-2]
