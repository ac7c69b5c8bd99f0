"""The request path's own way through redis-py: its connections, without what it does around each command.

redis-py 8 spends two thirds of a short command on its pool, on retries made of closures and on metrics that nobody
has switched on. What matters is kept: a bound on connections, time limits, one more try on a dropped connection
and on nothing else, and a connection that is closed whenever an answer was not read to its end.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from time import monotonic
from typing import Any

import redis

from .failures import Starved
from .pools import LeanPool, has_news
from .wire import END, Reader

_READ = 65_536

_STARVED = 2.5
"""A wait that took so many times its limit was not for Redis: nobody gave this process the processor."""


class LeanClient(redis.Redis):
    """redis-py's client with two more methods, for commands that are ready to be sent."""

    def __init__(self, pool: LeanPool, retries: int, patience: float) -> None:
        super().__init__(connection_pool=pool)
        self._lean_pool = pool
        self._retries = retries
        self._patience = patience

    def ask(self, command: bytes) -> Any:
        """Send a packed command and return its answer: bytes, a whole number, None, or a list of these.

        Raises what redis-py raises. An answer that comes byte by byte is waited for three times the read time
        limit at most.
        """
        return self._send(command, 0)

    def ask_many(self, commands: Sequence[bytes]) -> list[Any]:
        """Send packed commands in one round trip and return their answers; an error is one of them, not raised."""
        answers: list[Any] = self._send(b"".join(commands), len(commands)) if commands else []
        return answers

    def forget_roles(self) -> None:
        """Connect anew for the next calls: who was the primary is not any more."""
        finder = self._lean_pool.connection_kwargs.get("finder")
        if finder is not None:
            finder.forget()
        self._lean_pool.drop_idle()

    def _send(self, command: bytes, count: int) -> Any:
        pool = self._lean_pool
        connection = pool.get_connection()
        try:
            try:
                return self._exchange(connection, command, count)
            except redis.ConnectionError:
                if not self._retries:
                    raise
            return self._again(connection, command, count)
        finally:
            pool.release(connection)

    def _again(self, connection: Any, command: bytes, count: int) -> Any:
        for _ in range(self._retries - 1):
            try:
                return self._exchange(connection, command, count)
            except redis.ConnectionError:
                continue
        return self._exchange(connection, command, count)

    def _exchange(self, connection: Any, command: bytes, count: int) -> Any:
        """Send, and read one answer, or as many as *count* says."""
        if connection._sock is None:
            connection.connect()
        socket = connection._sock
        try:
            began = monotonic()
            socket.sendall(command)
            try:
                data = socket.recv(_READ)
            except TimeoutError:
                data = self._look_again(connection, began)
            if count or data[:1] != b"$" or data[-2:] != END:
                return self._read(connection, data, count)
            length, _, value = data.partition(END)
            if len(value) - 2 != int(length[1:]):
                return self._read(connection, data, count)
        except redis.ResponseError:
            raise  # an answer like any other, read to its end
        except BaseException as error:
            connection.disconnect()
            raise _as_redis_py_has_it(error) from None
        return value[:-2]

    def _look_again(self, connection: Any, began: float) -> bytes:
        """Take an answer that is there by now; a loop of greenlets sees its timers before its sockets."""
        if has_news(connection):
            data: bytes = connection._sock.recv(_READ)
            return data
        if monotonic() - began > _STARVED * self._patience:
            raise Starved("Timeout reading from socket, in a process that was not running")
        raise TimeoutError

    def _read(self, connection: Any, data: bytes, count: int) -> Any:
        """Read what is no single text, or did not come in one piece."""
        receive = partial(_receive, connection._sock, monotonic() + self._patience)
        reader = Reader(receive, data or receive(), connection._parser.parse_error)
        answers = [reader.value() for _ in range(count or 1)]
        if not reader.done:
            raise redis.exceptions.InvalidResponse("Redis answered with more than was asked.")
        if count:
            return answers
        if isinstance(answers[0], Exception):
            raise answers[0]
        return answers[0]


def _as_redis_py_has_it(error: BaseException) -> BaseException:
    if isinstance(error, TimeoutError):
        return redis.TimeoutError("Timeout reading from socket")
    if isinstance(error, OSError):
        return redis.ConnectionError(f"Error while talking to Redis: {type(error).__name__}")
    return error


def _receive(socket: Any, end: float) -> bytes:
    if monotonic() > end:
        raise TimeoutError
    data: bytes = socket.recv(_READ)
    if not data:
        raise redis.ConnectionError("Connection closed by server.")
    return data
