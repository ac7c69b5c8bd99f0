"""What the commands and the application use: `prod.migrations`."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flask import Flask
from sqlalchemy import Connection, Engine
from sqlalchemy.exc import SQLAlchemyError

from flask_prod.core.component import Installed
from flask_prod.core.errors import ProdKitError, Unavailable

from .danger import dangers, statements
from .folder import Folder, find_folder
from .guard import known_of
from .locks import Holder, Lock, lock_of, signature
from .settings import MigrationsSettings

if TYPE_CHECKING:
    from .run import Run


class MigrationError(ProdKitError):
    """A migration did not go through; the message says what of it the database keeps."""


class Busy(ProdKitError):
    """Somebody else migrates this database, and did not finish in time."""


@dataclass(frozen=True)
class Plan:
    """What an upgrade or downgrade would do; `sql` is None where only the database itself can tell."""

    before: tuple[str, ...]
    steps: tuple[str, ...]
    sql: str | None
    why: str
    dangers: tuple[str, ...]


class Migrations:
    """The migrations of one application."""

    def __init__(self, app: Flask, settings: MigrationsSettings, kit: Installed) -> None:
        self.app = app
        self.settings = settings
        self._kit = kit
        self._found: Folder | None = None

    @property
    def folder(self) -> Folder:
        """The folder of migrations; MigrationError when there is none."""
        if self._found is None:
            self._found = find_folder(self.settings.dir, Path(self.app.root_path))
        if self._found is None:
            place = self.settings.dir or f"{self.app.root_path}/migrations"
            raise MigrationError(
                f"There are no migrations in {place}: make them with `alembic init migrations`, or set "
                "MIGRATIONS_DIR."
            )
        return self._found

    @property
    def engine(self) -> Engine:
        """Flask-SQLAlchemy's engine if the application has one, else that of `prod.db`."""
        theirs = self.app.extensions.get("sqlalchemy")
        with self.app.app_context():
            engine: Engine = (theirs or self._kit.handle("database")).engine
        return engine

    @contextmanager
    def alone(self, wait: float | None = None) -> Iterator[Run]:
        """Keep every other migrator out while the block runs; Busy after MIGRATIONS_LOCK_WAIT or *wait* seconds.

        `run.upgrade()` upgrades; `run.connection` is an open connection for more, such as the first rows.
        """
        from .run import Run

        with self._connected() as (connection, lock):
            if not lock.wait(self.settings.lock_wait if wait is None else wait):
                raise Busy(
                    f"{lock.holder() or 'Somebody else'} migrates this database. Wait for it "
                    "(flask prod db lock --wait), or see what it waits for."
                )
            try:
                yield Run(self, connection)
            finally:
                with suppress(SQLAlchemyError):  # a lost connection has given its lock back
                    connection.rollback()
                    lock.give_back()

    def upgrade(self, revision: str = "head", *, allow_destructive: bool = False) -> list[str]:
        """Upgrade to *revision*, alone; return what was applied. Destructive before data would be lost."""
        with self.alone() as run:
            return run.upgrade(revision, allow_destructive=allow_destructive)

    def downgrade(self, revision: str) -> list[str]:
        """Downgrade to *revision*, alone: data may be lost; return what was undone."""
        with self.alone() as run:
            return run.downgrade(revision)

    def plan(self, revision: str = "head", *, down: bool = False) -> Plan:
        """Return what an upgrade or downgrade to *revision* would do, as SQL; changes nothing."""
        from .run import Run

        with self._connected() as (connection, _):
            run = Run(self, connection)
            before, steps = run.steps(revision, down=down)
            sql, why = run.offline(before, revision, down=down) if steps else ("", "")
            known = known_of(connection)
            found = [what for one in statements(sql or "") for what in dangers(one, known)]
        return Plan(before, tuple(steps), sql, why, tuple(dict.fromkeys(found)))

    def check(self) -> list[str]:
        """Return what is pending or different: revisions, several heads, tables that are not as the models say."""
        from .run import Run

        with self._connected() as (connection, _):
            return Run(self, connection).problems()

    def holder(self) -> Holder | None:
        """Return who migrates now, None when nobody does."""
        with self._connected() as (_, lock):
            return lock.holder()

    def wait_until_free(self, seconds: float) -> bool:
        """Wait until nobody migrates; False when somebody still does after *seconds*."""
        with self._connected() as (_, lock):
            free = lock.wait(seconds)
            if free:
                lock.give_back()
        return free

    def end_holder(self, holder: Holder) -> bool:
        """End the connection of whoever migrates; False where only its process can be ended."""
        with self._connected() as (_, lock):
            return lock.end_holder(holder)

    @contextmanager
    def _connected(self) -> Iterator[tuple[Connection, Lock]]:
        """Give a connection that goes back to no pool: it carries a lock and time limits of its own."""
        name = signature(self._kit.service.service_name)
        with self._connect() as connection:
            if connection.dialect.name != "sqlite":
                connection.detach()
            if connection.dialect.name == "postgresql":
                connection.exec_driver_sql("SELECT set_config('application_name', %s, false)", (name,))
                connection.commit()
            elif connection.dialect.name != "sqlite":
                connection.exec_driver_sql("SET SESSION wait_timeout = 86400")  # idle while another one migrates
                connection.commit()
            yield connection, lock_of(connection, name)

    def _connect(self) -> Connection:
        try:
            return self.engine.connect()
        except SQLAlchemyError as error:
            raise Unavailable(
                f"The database cannot be reached: {first_line(error)}. DATABASE_URL says where it is, and with "
                "which user and password."
            ) from error


def first_line(error: BaseException) -> str:
    """Return what the database's driver said, in a line."""
    return str(getattr(error, "orig", None) or error).partition("\n")[0]


def describe(diff: Any) -> str:
    """Return a difference between models and database in words."""
    if isinstance(diff, list):
        return "; ".join(describe(one) for one in diff)
    kind, *rest = diff
    verb, _, what = str(kind).partition("_")
    if kind in ("add_table", "remove_table"):
        return _either(verb, f"the table {rest[0].name}")
    if kind in ("add_column", "remove_column"):
        return _either(verb, f"the column {rest[1]}.{rest[2].name}")
    if verb == "modify":
        return f"{rest[1]}.{rest[2]}: {what} is {rest[4]!r} in the database, {rest[5]!r} in the models"
    owner = getattr(getattr(rest[0], "table", None), "name", "")
    return _either(verb, f"the {what} {getattr(rest[0], 'name', None) or ''} of {owner}".replace("  ", " "))


def _either(verb: str, what: str) -> str:
    return (
        f"the models have {what}, the database has not"
        if verb == "add"
        else f"no model has {what} of the database"
    )
