"""Looks at one server again and again, in a thread of its own: one that hangs must not hide another."""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable
from time import monotonic
from typing import Any

from sqlalchemy import Connection, Engine

from .engine import Replica

logger = logging.getLogger(__name__)

EVERY = 0.5
"""Seconds between two looks; how far a replica has come is known to about this time."""

_GOODBYE = 0.5
_POSITION = "SELECT pg_wal_lsn_diff(pg_current_wal_lsn(), '0/0')"
_STANDBY = (
    "SELECT pg_wal_lsn_diff(pg_last_wal_replay_lsn(), '0/0'), pg_wal_lsn_diff(pg_last_wal_receive_lsn(), '0/0'),"
    " extract(epoch FROM clock_timestamp() - pg_last_xact_replay_timestamp()) WHERE pg_is_in_recovery()"
)


class History:
    """When the primary was seen at which position: by it the lag of a replica is told, whatever the clocks say."""

    def __init__(self) -> None:
        self._seen: deque[tuple[float, int]] = deque(maxlen=2000)

    def add(self, now: float, position: int) -> None:
        """Note where the primary is."""
        if not self._seen or position > self._seen[-1][1]:
            self._seen.append((now, position))

    def lag(self, now: float, position: int) -> tuple[float, bool]:
        """Return for how long the primary has been beyond *position*, False if it may be longer."""
        for index, (seen, reached) in enumerate(list(self._seen)):
            if reached > position:
                return now - seen, index > 0
        return 0.0, True


class Watch:
    """Calls *look* with a connection to one server; *lost* when that fails."""

    def __init__(
        self,
        name: str,
        open_engine: Callable[[], Engine],
        look: Callable[[Connection], None],
        lost: Callable[[str], None],
    ) -> None:
        self._name = name
        self._open = open_engine
        self._look = look
        self._lost = lost
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"flask-prod-{name}", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """End the thread; one that hangs in a call is left to the end of the process."""
        self._stopping.set()
        self._thread.join(_GOODBYE)

    def _run(self) -> None:
        engine = self._open()
        try:
            while not self._stopping.is_set():
                try:
                    self._stay(engine)
                except Exception as error:
                    logger.debug("%s cannot be watched: %s", self._name, error)
                    self._lost(type(getattr(error, "orig", None) or error).__name__)
                    self._stopping.wait(EVERY)
        finally:
            engine.dispose()

    def _stay(self, engine: Engine) -> None:
        with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            while not self._stopping.is_set():
                self._look(connection)
                self._stopping.wait(EVERY)


def look_at_primary(connection: Connection, history: History) -> None:
    """Note how far the primary has come, where it says so."""
    now = monotonic()
    position = position_of(connection)
    if position is not None:
        history.add(now, position)


def position_of(connection: Connection) -> int | None:
    """Return how far a PostgreSQL that takes writes has come, in bytes of its log; None for another database."""
    if connection.dialect.name != "postgresql":
        return None
    found = connection.exec_driver_sql(_POSITION).scalar()
    return None if found is None else int(found)


def look_at_replica(connection: Connection, replica: Replica, history: History, max_lag: float) -> None:
    """Note how far a replica has come and how far behind it is; another database than PostgreSQL says neither."""
    if connection.dialect.name != "postgresql":
        connection.exec_driver_sql("SELECT 1")
        replica.saw(None, None, "")
        return
    row = connection.exec_driver_sql(_STANDBY).first()
    if row is None:  # it takes writes: promoted by now, or fed by other means
        replica.saw(None, None, "")
        return
    if row[0] is None:
        replica.saw(None, None, "it has applied nothing yet")
        return
    position = int(row[0])
    if row[1] is not None:  # what it has received is where the primary was at the least
        history.add(monotonic(), int(row[1]))
    lag = _lag(position, row, history)
    late = f"it is {lag:.1f} s behind" if lag > max_lag else ""
    replica.saw(lag, position, late)


def _lag(position: int, row: Any, history: History) -> float:
    """Return the seconds that a replica is behind.

    What lay before this process's first look at the primary only the replica's own clock can tell, which also
    counts the time in which nothing was written: that is why it is asked last.
    """
    lag, whole = history.lag(monotonic(), position)
    return lag if whole else max(lag, float(row[2] or 0.0))
