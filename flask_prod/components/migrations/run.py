"""Upgrade, downgrade and compare on one connection."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

from sqlalchemy import Connection
from sqlalchemy.exc import DBAPIError, SQLAlchemyError

from flask_prod.core.errors import ProdKitError

from .alembic_run import config_of, metadata_of, run_env, scripts_of
from .engine import MigrationError, describe, first_line
from .guard import guarded, known_of
from .locks import no_transaction_left
from .revisions import look_up, steps_to, title

if TYPE_CHECKING:
    from .engine import Migrations
    from .settings import MigrationsSettings

Work = Callable[[Any, Any], Iterable[Any]]

_LOCKED = frozenset({"55P03", 1205})
"""PostgreSQL's lock_not_available, and MySQL's lock wait timeout."""

_FOR_EVER = 31_536_000
"""Seconds of a year, the longest that MySQL waits for a table."""


class Run:
    """Alembic at work on `connection`."""

    def __init__(self, migrations: Migrations, connection: Connection) -> None:
        self.connection = connection
        self._migrations = migrations
        self._version_table = migrations.settings.version_table

    def upgrade(self, revision: str = "head", *, allow_destructive: bool = False) -> list[str]:
        """Upgrade to *revision*; return the revisions applied, oldest first.

        Destructive before a statement that would lose data, MigrationError when it does not go through.
        """
        return self._move(revision, down=False, allow_destructive=allow_destructive)

    def downgrade(self, revision: str) -> list[str]:
        """Downgrade to *revision*; return the revisions undone, newest first."""
        return self._move(revision, down=True, allow_destructive=True)

    def steps(self, revision: str, *, down: bool = False) -> tuple[tuple[str, ...], list[str]]:
        """Return the revisions of the database, and those that would be applied or undone, with their words."""
        found: list[str] = []

        def look(current: Any, context: Any, script: Any) -> Iterable[Any]:
            found.extend(title(step) for step in steps_to(script, revision, current, down=down))
            return ()

        before = self._look(look)
        return before, found

    def offline(self, before: tuple[str, ...], revision: str, *, down: bool = False) -> tuple[str | None, str]:
        """Return the SQL that Alembic's offline mode writes, or None and why it cannot."""
        config = self._config()
        script = scripts_of(config)

        def work(current: Any, _context: Any) -> Iterable[Any]:
            return steps_to(script, revision, current, down=down)

        options = {"as_sql": True, "starting_rev": list(before) or None, "destination_rev": revision}
        try:
            return self._run(config, work, **options).strip(), ""
        except MigrationError as error:
            return None, str(error)

    def problems(self) -> list[str]:
        """Return what is pending, or differs from the models."""
        found: list[str] = []

        def look(current: Any, context: Any, script: Any) -> Iterable[Any]:
            look_up(script, current)
            heads = script.get_heads()
            if len(heads) > 1:
                found.append(f"There are several heads: {', '.join(heads)}. Join them: alembic merge heads.")
            waiting = [title(step) for step in steps_to(script, "heads", current, down=False)]
            found.extend(f"{one} is pending: run `flask prod db upgrade`." for one in waiting)
            if not waiting:
                found.extend(self._differences(context))
            return ()

        self._look(look)
        return found

    def _differences(self, context: Any) -> list[str]:
        from alembic.autogenerate import compare_metadata

        metadata: Any = context.opts.get("target_metadata") or list(metadata_of(self._migrations.app))
        return [f"{describe(diff)}." for diff in compare_metadata(context, metadata)] if metadata else []

    def _look(self, look: Callable[[Any, Any, Any], Iterable[Any]]) -> tuple[str, ...]:
        """Run env.py without a step of its own; return the revisions of the database."""
        config = self._config()
        script = scripts_of(config)
        seen: list[tuple[str, ...]] = []

        def work(current: Any, context: Any) -> Iterable[Any]:
            seen.append(tuple(current))
            return look(current, context, script)

        try:
            self._run(config, work, dont_mutate=True)
            self.connection.rollback()
        except SQLAlchemyError as error:
            raise MigrationError(f"The database does not tell its revision: {first_line(error)}") from error
        return seen[0] if seen else ()

    def _move(self, revision: str, *, down: bool, allow_destructive: bool) -> list[str]:
        config = self._config()
        script = scripts_of(config)
        done: list[str] = []
        starts: list[tuple[str, ...]] = []
        guards = ExitStack()
        after: list[Callable[[], None]] = []

        def prepare(connection: Connection, options: dict[str, Any]) -> None:
            after.append(guards.enter_context(self._prepared(connection, options)))
            if not allow_destructive:
                guards.enter_context(guarded(connection, known, options.get("version_table", self._version_table)))

        def work(current: Any, _context: Any) -> Iterator[Any]:
            starts.append(tuple(current))
            for step in steps_to(script, revision, current, down=down):
                self._still_alone()
                yield step
                done.append(step.revision.revision)
            self._still_alone()
            for look in after:
                look()

        try:
            known = known_of(self.connection)
            self.connection.rollback()
            with guards:
                self._run(config, work, prepare)
                self.connection.commit()
        except Exception as error:
            if not self.connection.invalidated:
                self.connection.rollback()
            raise self._failed(error, starts[0] if starts else None) from error
        return done

    def _still_alone(self) -> None:
        """Raise when the connection that holds the lock is gone: env.py may migrate by another one."""
        if self.connection.dialect.name != "sqlite":
            with no_transaction_left(self.connection):
                self.connection.exec_driver_sql("SELECT 1")

    @contextmanager
    def _prepared(self, connection: Connection, options: dict[str, Any]) -> Iterator[Callable[[], None]]:
        """Set time limits, and on SQLite begin a transaction for all; yield what to look at in the end."""
        settings = self._migrations.settings
        if connection.dialect.name == "sqlite":
            options["transactional_ddl"] = True  # SQLite can, though Python's driver begins none by itself
            with _whole(connection) as look:
                yield look
            return
        connection.detach()  # or else its time limits would go on to whoever gets it from a pool next
        begun = connection.in_transaction()
        for command in _limits(connection, settings):
            connection.exec_driver_sql(command)
        if not begun:
            connection.commit()
        yield lambda: None

    def _config(self) -> Any:
        return config_of(self._migrations.folder, self._migrations.engine, self.connection)

    def _run(
        self, config: Any, work: Callable[[Any, Any], Iterable[Any]], prepare: Any = None, **options: Any
    ) -> str:
        """Run env.py; whatever Alembic or a script raises becomes one kind of error."""
        try:
            return run_env(self._migrations.app, self._migrations.folder, config, work, prepare, **options)
        except (ProdKitError, DBAPIError):
            raise
        except Exception as error:
            raise MigrationError(f"{type(error).__name__}: {first_line(error)}") from error

    def _failed(self, error: Exception, before: tuple[str, ...] | None) -> Exception:
        """Say what failed, and what of it the database keeps."""
        if not isinstance(error, (MigrationError, SQLAlchemyError)):
            return error
        said = first_line(error)
        if _codes(error) & _LOCKED:
            seconds = self._migrations.settings.lock_timeout
            said = (
                f"a table was in use for longer than MIGRATIONS_LOCK_TIMEOUT ({seconds:g} s), "
                f"and waiting on would have stopped all traffic behind it ({said})"
            )
        return MigrationError(f"{said}\n{self._kept(before)}")

    def _kept(self, before: tuple[str, ...] | None) -> str:
        if before is None:
            return "Nothing was changed."
        try:
            now = self._look(lambda *_: ())
        except (SQLAlchemyError, ProdKitError):
            return "What the database kept of it is not known: it does not answer. See `flask prod db check`."
        if now != before:
            return f"The database is at {_words(now)} now; it was at {_words(before)}."
        if self.connection.dialect.name in ("mysql", "mariadb"):
            return (
                f"The database still says {_words(before)}, but MySQL keeps each change of a table that was made."
            )
        return f"Nothing was changed: the database is at {_words(before)}, as before."


@contextmanager
def _whole(connection: Connection) -> Iterator[Callable[[], None]]:
    """Begin on SQLite; foreign keys are off while tables are rebuilt, and looked at before the end."""
    driver: Any = connection.connection.dbapi_connection
    enforced = driver.execute("PRAGMA foreign_keys").fetchone()[0]
    if not driver.in_transaction:
        # Dropping the old table of a rebuilt one would delete, by ON DELETE CASCADE, the rows that refer to it.
        driver.execute("PRAGMA foreign_keys = OFF")
        driver.execute("BEGIN IMMEDIATE")
    orphans = set(driver.execute("PRAGMA foreign_key_check").fetchall())

    try:
        yield partial(_refuse_new_orphans, driver, orphans)
    finally:
        if enforced and not connection.closed and not connection.invalidated:
            if driver.in_transaction:
                driver.rollback()
            driver.execute("PRAGMA foreign_keys = ON")


def _refuse_new_orphans(driver: Any, before: set[Any]) -> None:
    orphans = set(driver.execute("PRAGMA foreign_key_check").fetchall()) - before
    if orphans:
        table, _, parent, _ = next(iter(orphans))
        raise MigrationError(f"{len(orphans)} rows would refer to nothing, among them one of {table} to {parent}")


def _limits(connection: Connection, settings: MigrationsSettings) -> Iterator[str]:
    """Yield what sets the time limits of a session; a line that PyMySQL itself would cut is told to wait."""
    if connection.dialect.name == "postgresql":
        limits = {"lock_timeout": settings.lock_timeout, "statement_timeout": settings.statement_timeout}
        yield from (f"SET {name} = {round(seconds * 1000)}" for name, seconds in limits.items())
        return
    driver: Any = connection.connection.dbapi_connection
    if hasattr(driver, "_read_timeout"):
        driver._read_timeout = driver._write_timeout = None
    yield f"SET SESSION lock_wait_timeout = {max(1, round(settings.lock_timeout or _FOR_EVER))}"
    if getattr(connection.dialect, "is_mariadb", False):
        yield f"SET SESSION max_statement_time = {settings.statement_timeout}"


def _codes(error: BaseException) -> set[object]:
    """Return SQLSTATE and number of what a driver raised, as far as it has them."""
    orig = getattr(error, "orig", None)
    return {getattr(orig, "sqlstate", None), *getattr(orig, "args", ())[:1]}


def _words(revisions: tuple[str, ...]) -> str:
    return ", ".join(revisions) or "no revision"
