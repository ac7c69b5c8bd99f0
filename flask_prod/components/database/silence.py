"""A server that does not answer: nobody waits for it longer than a second or two, and most do not wait at all.

A network that swallows packets tells nothing. libpq would wait for the system's time-outs, ten seconds at best,
and PyMySQL as long as a statement may take.
"""

from __future__ import annotations

import select
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from time import monotonic
from typing import Any

from sqlalchemy import Engine

PING = 1.0
"""Seconds within which a connection that lay idle must show that it is alive."""

PAUSE = 1.0
"""Seconds for which nobody connects, or waits to, after the server was silent."""

CANNOT_CONNECT = 2003
"""The number by which MySQL's clients say that there is no way to the server."""


def limit_silence(engine: Engine) -> None:
    """Ask idle connections with a time limit, and connect one at a time to a server that was silent."""
    dialect: Any = engine.dialect
    if dialect.is_async:
        return
    if dialect.driver == "psycopg":
        _limit_psycopg(dialect)
    elif dialect.driver == "pymysql":
        _limit_pymysql(dialect)


class Silence:
    """Remembers that a server did not answer; a race between threads costs one more attempt."""

    def __init__(self) -> None:
        self._until = 0.0
        self._silent = False

    def connecting(
        self, connect: Callable[..., Any], refuse: Callable[[str], Exception], is_silence: Callable[[Any], bool]
    ) -> Callable[..., Any]:
        """Return *connect* with what a silent server makes of it: *refuse* makes the driver's own error."""

        def connect_unless_silent(*args: Any, **given: Any) -> Any:
            if self._silent:
                self._take_turn(float(given.get("connect_timeout", PAUSE)), refuse)
            try:
                connection = connect(*args, **given)
            except Exception as error:
                if is_silence(error):
                    self.notice()
                raise
            self._silent = False
            return connection

        return connect_unless_silent

    def notice(self) -> None:
        """Leave the server alone for a moment."""
        self._silent, self._until = True, monotonic() + PAUSE

    def _take_turn(self, seconds: float, refuse: Callable[[str], Exception]) -> None:
        """Let one caller try at a time."""
        now = monotonic()
        if now < self._until:
            raise refuse("the server did not answer a moment ago")
        self._until = now + seconds


def _limit_psycopg(dialect: Any) -> None:
    from psycopg import OperationalError
    from psycopg.errors import ConnectionTimeout
    from psycopg.pq import ExecStatus

    silence = Silence()

    def ping(connection: Any) -> bool:
        """Send an empty query, which takes a third of the time of `SELECT 1`; raises when no answer comes."""
        try:
            status = ask(connection.pgconn, PING)
        except NoAnswer:
            silence.notice()
            raise OperationalError("the server does not answer") from None
        if status != ExecStatus.EMPTY_QUERY:
            connection.close()  # by which SQLAlchemy knows that another one is worth a try
            raise OperationalError("the connection is of no use any more")
        return True

    dialect.do_ping = ping
    dialect.connect = silence.connecting(
        dialect.connect, OperationalError, lambda error: isinstance(error, ConnectionTimeout)
    )


def _limit_pymysql(dialect: Any) -> None:
    """Hold two time limits that PyMySQL has not: for the server's first words, and for an answer to a ping.

    It would wait for both as long as for the longest statement.
    """
    from pymysql.err import OperationalError

    silence, connect = Silence(), dialect.connect

    def connect_in_time(*args: Any, **given: Any) -> Any:
        connection = connect(*args, **{**given, "defer_connect": True})
        with _reads_within(connection, connection.connect_timeout):
            connection.connect()
        return connection

    def ping(connection: Any) -> bool:
        try:
            with _reads_within(connection, PING):
                connection.ping(reconnect=False)
        except OperationalError as error:
            if _timed_out(error):
                silence.notice()
            raise
        return True

    dialect.do_ping = ping
    dialect.connect = silence.connecting(
        connect_in_time, lambda words: OperationalError(CANNOT_CONNECT, words), _timed_out
    )


@contextmanager
def _reads_within(connection: Any, seconds: float) -> Iterator[None]:
    """Let one of PyMySQL's connections wait so long for an answer, in this block only."""
    usual, connection._read_timeout = connection._read_timeout, seconds
    try:
        yield
    finally:
        connection._read_timeout = usual


def _timed_out(error: BaseException) -> bool:
    return isinstance(error.__context__, TimeoutError)


class NoAnswer(Exception):
    """No answer came within the time."""


def ask(pgconn: Any, seconds: float) -> Any:
    """Send an empty query and return the status of its answer; NoAnswer when none comes in time."""
    pgconn.send_query(b"")
    status, deadline = None, monotonic() + seconds
    poll = select.poll()
    poll.register(pgconn.socket, select.POLLIN)
    while pgconn.flush():
        _wait(poll, deadline)
    while True:
        pgconn.consume_input()
        while not pgconn.is_busy():
            result = pgconn.get_result()
            if result is None:
                return status
            status = result.status
        _wait(poll, deadline)


def _wait(poll: select.poll, deadline: float) -> None:
    if not poll.poll(max(0.0, deadline - monotonic()) * 1000):
        raise NoAnswer
