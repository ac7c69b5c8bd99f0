"""A PostgreSQL that does not answer: nobody waits for it longer than a second or two, and most do not wait at all.

A network that swallows packets tells nothing. libpq would wait for the system's time-outs: ten seconds at best.
"""

from __future__ import annotations

import select
from collections.abc import Callable
from time import monotonic
from typing import Any

from sqlalchemy import Engine

PING = 1.0
"""Seconds within which a connection that lay idle must show that it is alive."""

PAUSE = 1.0
"""Seconds for which nobody connects, or waits to, after the server was silent."""


def limit_silence(engine: Engine) -> None:
    """Ask idle connections with a time limit, and connect one at a time to a server that was silent."""
    dialect: Any = engine.dialect
    if dialect.driver != "psycopg" or dialect.is_async:
        return
    silence = Silence()
    dialect.do_ping = silence.ping
    dialect.connect = silence.connecting(dialect.connect)


class Silence:
    """Remembers that a server did not answer; a race between threads costs one more attempt."""

    def __init__(self) -> None:
        self._until = 0.0
        self._silent = False

    def ping(self, connection: Any) -> bool:
        """Send an empty query, which takes a third of the time of `SELECT 1`; raises when no answer comes."""
        from psycopg import OperationalError
        from psycopg.pq import ExecStatus

        try:
            status = ask(connection.pgconn, PING)
        except NoAnswer:
            self.notice()
            raise OperationalError("the server does not answer") from None
        if status != ExecStatus.EMPTY_QUERY:
            connection.close()  # by which SQLAlchemy knows that another one is worth a try
            raise OperationalError("the connection is of no use any more")
        return True

    def connecting(self, connect: Callable[..., Any]) -> Callable[..., Any]:
        """Return *connect* with what a silent server makes of it."""
        from psycopg.errors import ConnectionTimeout

        def connect_unless_silent(*args: Any, **given: Any) -> Any:
            if self._silent:
                self._take_turn(float(given.get("connect_timeout", PAUSE)))
            try:
                connection = connect(*args, **given)
            except ConnectionTimeout:
                self.notice()
                raise
            self._silent = False
            return connection

        return connect_unless_silent

    def notice(self) -> None:
        """Leave the server alone for a moment."""
        self._silent, self._until = True, monotonic() + PAUSE

    def _take_turn(self, seconds: float) -> None:
        """Let one caller try at a time."""
        from psycopg import OperationalError

        now = monotonic()
        if now < self._until:
            raise OperationalError("the server did not answer a moment ago")
        self._until = now + seconds


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
