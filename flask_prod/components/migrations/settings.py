"""The settings of the migrations room."""

from __future__ import annotations

from typing import ClassVar, Literal

from flask_prod.core.settings import Section
from flask_prod.core.values import Duration


class MigrationsSettings(Section, frozen=True, kw_only=True):
    """Where the migrations are, and how long one may wait for others."""

    prefix: ClassVar[str] = "MIGRATIONS_"

    dir: str = ""
    """Alembic's folder; if empty, `migrations` or `alembic` beside the application or in the working directory."""

    lock_wait: Duration = 60.0
    """How long a migrator waits for another one to finish before it gives up."""

    lock_timeout: Duration = 5.0
    """How long a statement may wait for a table, since all traffic queues behind it; 0 for ever. Not on SQLite."""

    statement_timeout: Duration = 0.0
    """How long a statement of a migration may run on PostgreSQL or MariaDB; 0 lets an index take its time."""

    pending: Literal["warn", "fail", "ignore"] = "warn"
    """What the check says of a pending migration; `fail` takes the instance out of the load balancer."""

    version_table: str = "alembic_version"
    """Where the check reads the revision of the database; as `version_table` in env.py."""
