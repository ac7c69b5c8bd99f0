"""Whether the server has as many connections as all processes together may open."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass

from sqlalchemy import Connection, Engine, text

from flask_prod.core.component import Event

from ..settings import DatabaseSettings
from .adaptive import AdaptivePool
from .wanted import PRIMARY, Wish

_POSTGRESQL = """
SELECT
  (SELECT nullif(least(r.rolconnlimit & 2147483647, d.datconnlimit & 2147483647), 2147483647)
     FROM pg_roles r, pg_database d WHERE r.rolname = current_user AND d.datname = current_database()),
  current_setting('max_connections')::int,
  current_setting('superuser_reserved_connections')::int
    + coalesce(nullif(current_setting('reserved_connections', true), '')::int, 0),
  (SELECT count(*) FROM pg_stat_activity WHERE usesysid IS NOT NULL
     AND coalesce(backend_type, 'client backend') = 'client backend' AND application_name IS DISTINCT FROM :name)
"""
"""A limit of this user or this database, where -1 is none; then max_connections, and what others hold: without
pg_monitor the names of other users' sessions are hidden, and count as others."""

_MYSQL = """
SELECT nullif(@@max_user_connections, 0), @@max_connections, 0,
  (SELECT count(*) FROM information_schema.processlist WHERE user <> substring_index(current_user(), '@', 1))
"""
_ASKED = {"postgresql": _POSTGRESQL, "mysql": _MYSQL, "mariadb": _MYSQL}


@dataclass(frozen=True, slots=True)
class Room:
    """What a server has: connections in all, those kept for its owner, those that others hold, and the user's."""

    most: int
    reserved: int
    others: int
    allowed: int | None = None
    """The most that this user, or this database, may have, where there is such a limit."""

    @property
    def left(self) -> int:
        """Connections that this service can have."""
        free = max(0, self.most - self.reserved - self.others)
        return free if self.allowed is None else min(free, self.allowed)

    def __str__(self) -> str:
        if self.left == self.allowed:
            return f"its user or database may have {self.left} there"
        return f"the server has {self.most} - {self.reserved} reserved - {self.others} of others = {self.left}"


def ask(engine: Engine, name: str) -> Room | None:
    """Ask the server; None where it has no such limit. *name* is that of our own connections there."""
    statement = _ASKED.get(engine.dialect.name)
    if statement is None:
        return None
    with engine.connect() as connection:
        return _room(connection, statement, name)


def judge(settings: DatabaseSettings, wish: Wish, room: Room, processes: int) -> Event | None:
    """Return a warning with the arithmetic where all processes together may want more than there is."""
    if wish.total <= room.left:
        return None
    rest = wish.total - processes * settings.max_open_conns
    fitting = (room.left - rest) // max(1, processes)
    advice = f"Set DATABASE_MAX_OPEN_CONNS to {fitting} or less, "
    if fitting < 1:
        tenants = settings.tenants == "database" and wish.server == PRIMARY
        advice = (
            "Lower DATABASE_TENANT_POOLS or DATABASE_TENANT_OPEN_CONNS, " if tenants else "Run fewer processes, "
        )
    message = (
        f"Of {wish.server}: {wish}, but {room} on all hosts together. "
        f"{advice}raise the server's max_connections, or put a pooler such as PgBouncer in front of it."
    )
    fields = {"wanted": wish.total, "left": room.left, "max_connections": room.most, "server": wish.server}
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
    allowed, most, reserved, others = connection.execute(text(statement), parameters).one()
    return Room(int(most), int(reserved), int(others), None if allowed is None else int(allowed))
