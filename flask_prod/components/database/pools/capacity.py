"""Whether the server has as many connections as all processes together may open."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass

from sqlalchemy import Connection, Engine, text

from flask_prod.core.component import Event

from ..settings import DatabaseSettings
from .adaptive import AdaptivePool
from .wanted import JOB, wanted

_POSTGRESQL = """
SELECT current_setting('max_connections')::int,
  current_setting('superuser_reserved_connections')::int
    + coalesce(nullif(current_setting('reserved_connections', true), '')::int, 0),
  (SELECT count(*) FROM pg_stat_activity WHERE usesysid IS NOT NULL
     AND coalesce(backend_type, 'client backend') = 'client backend' AND application_name IS DISTINCT FROM :name)
"""
"""What others hold: without pg_monitor the names of other users' sessions are hidden, and count as others."""

_MYSQL = """
SELECT @@max_connections, 1,
  (SELECT count(*) FROM information_schema.processlist WHERE user <> substring_index(current_user(), '@', 1))
"""
_ASKED = {"postgresql": _POSTGRESQL, "mysql": _MYSQL, "mariadb": _MYSQL}


@dataclass(frozen=True, slots=True)
class Room:
    """What a server has: connections in all, those kept for its owner, and those that others hold."""

    most: int
    reserved: int
    others: int

    @property
    def left(self) -> int:
        """Connections that this service can have."""
        return max(0, self.most - self.reserved - self.others)


def ask(engine: Engine, name: str) -> Room | None:
    """Ask the server; None where it has no such limit. *name* is that of our own connections there."""
    statement = _ASKED.get(engine.dialect.name)
    if statement is None:
        return None
    with engine.connect() as connection:
        return _room(connection, statement, name)


def judge(settings: DatabaseSettings, room: Room, processes: int, job_workers: int) -> Event | None:
    """Return a warning with the arithmetic where all processes together may want more than there is."""
    needed = wanted(settings, processes, job_workers)
    if needed <= room.left:
        return None
    jobs = f" + {job_workers} job workers x {min(settings.max_open_conns, JOB)}" if job_workers else ""
    fitting = (room.left - wanted(settings, 0, job_workers)) // max(1, processes)
    advice = f"Set DATABASE_MAX_OPEN_CONNS to {fitting} or less, " if fitting >= 1 else "Run fewer processes, "
    message = (
        f"{processes} web processes x {settings.max_open_conns} connections{jobs} = {needed}, but the server has "
        f"{room.most} - {room.reserved} reserved - {room.others} of others = {room.left} on all hosts together. "
        f"{advice}raise the server's max_connections, or put a pooler such as PgBouncer in front of it."
    )
    fields = {"wanted": needed, "left": room.left, "max_connections": room.most}
    return Event("prod.database.capacity", message, "warning", fields)


def web_processes() -> int:
    """Return how many processes serve requests on this host, by WEB_CONCURRENCY; 1 when it does not say."""
    count = os.environ.get("WEB_CONCURRENCY", "")
    return int(count) if count.isdigit() and int(count) else 1


def bounds(held: Iterable[tuple[str, Engine]]) -> int:
    """Return how many connections the pools of this process may open together."""
    return sum(engine.pool.maximum for _, engine in held if isinstance(engine.pool, AdaptivePool))


def _room(connection: Connection, statement: str, name: str) -> Room:
    parameters = {"name": name} if ":name" in statement else {}
    most, reserved, others = connection.execute(text(statement), parameters).one()
    return Room(int(most), int(reserved), int(others))
