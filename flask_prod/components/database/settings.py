"""The settings of the database room."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, ClassVar

from msgspec import Meta

from flask_prod.core.settings import Section
from flask_prod.core.values import Duration, SecretUrl


class DatabaseSettings(Section, frozen=True, kw_only=True):
    """Where the database is, and how much of it one process may take."""

    prefix: ClassVar[str] = "DATABASE_"
    keys: ClassVar[Mapping[str, tuple[str, ...]]] = {"slow_query": ("LOG_SLOW_QUERY",)}

    url: SecretUrl = SecretUrl("")
    """The SQLAlchemy address; if empty, an SQLite file called after the service in the instance folder."""

    max_open_conns: Annotated[int, Meta(ge=1, le=1000)] = 10
    """How many connections one process may hold: eight threads, and two for health checks and jobs."""

    max_idle_conns: Annotated[int, Meta(ge=1, le=1000)] = 8
    """How many of them stay open when nobody needs them; more than DATABASE_MAX_OPEN_CONNS means all."""

    conn_max_lifetime: Duration = 1800.0
    """A connection older than this is replaced at its next use; 0 never replaces one for its age."""

    conn_max_idle_time: Duration = 600.0
    """A connection unused for longer than this is replaced at its next use; 0 never replaces one."""

    connect_timeout: Duration = 3.0
    """How long opening a connection may take."""

    statement_timeout: Duration = 30.0
    """How long one statement may run on PostgreSQL before it ends with 504; 0 leaves it to the server."""

    slow_query: Duration = 0.5
    """A query that takes longer has a line in the log, without its values; 0 logs none."""
