"""The databases that can be backed up and restored: PostgreSQL and SQLite, behind one face."""

from __future__ import annotations

import sqlite3
import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from . import sqlite
from .manifest import BackupError, Sums

if TYPE_CHECKING:
    from .postgres import Server

Check = Callable[[dict[str, Sums]], None]


@dataclass(frozen=True)
class Dump:
    """The bytes of one moment, and what they hold."""

    chunks: Iterable[bytes]
    sums: dict[str, Sums]
    revision: list[str]
    server_version: str


class Source(Protocol):
    """A database, as backups see it."""

    @property
    def kind(self) -> str:
        """What a manifest calls it."""

    @property
    def name(self) -> str:
        """The name of the database, which whoever overwrites it types."""

    def dump(self) -> AbstractContextManager[Dump]:
        """Give all of one moment."""

    def scratch(self) -> AbstractContextManager[Source]:
        """Give an empty database of the same kind, which goes away afterwards."""

    def restore(self, chunks: Iterable[bytes], *, overwrite: bool, major: int, check: Check) -> None:
        """Write a dump into the database, and have it checked."""


def source_of(where: Any, pg_bin: str, kind: str = "") -> Source:
    """Return the database of an engine or an address; BackupError for one that cannot hold a backup of *kind*."""
    from sqlalchemy import exc, make_url

    engine = where if not isinstance(where, str) else None
    try:
        url = make_url(where) if engine is None else engine.url
    except exc.ArgumentError:
        raise BackupError("This is no address: postgresql://user@host/name, or sqlite:////path.") from None
    found = url.get_backend_name().replace("postgres", "postgresql").replace("postgresqlql", "postgresql")
    if kind and found != kind:
        raise BackupError(f"A backup of {kind} cannot be restored into {found}.")
    if found == "sqlite":
        if not url.database or ":memory:" in url.database:
            raise BackupError("A database in memory ends with its process: there is nothing to back up.")
        return SqliteSource(Path(url.database.removeprefix("file:").split("?", 1)[0]))
    if found == "postgresql":
        from .postgres import server_of

        return PostgresSource(server_of(url, engine), pg_bin)
    raise BackupError(f"Backups are made of PostgreSQL and SQLite; use {found}'s own programs.")


@dataclass(frozen=True)
class SqliteSource:
    """A file."""

    path: Path
    kind: str = "sqlite"

    @property
    def name(self) -> str:
        """The name of the file."""
        return self.path.name

    @contextmanager
    def dump(self) -> Iterator[Dump]:
        """Give a copy."""
        with sqlite.copied(self.path) as copy:
            sums, revision = sqlite.sums_in(copy), sqlite.revision_in(copy)
            yield Dump(sqlite.pieces(copy), sums, revision, sqlite3.sqlite_version)

    @contextmanager
    def scratch(self) -> Iterator[Source]:
        """Give a file in the temporary directory."""
        with tempfile.TemporaryDirectory(prefix="flask-prod-verify-") as folder:
            yield SqliteSource(Path(folder) / "scratch.db")

    def restore(self, chunks: Iterable[bytes], *, overwrite: bool, major: int, check: Check) -> None:
        """Replace what the file holds, once the copy was found whole."""

        def whole(draft: Path) -> None:
            try:
                check(sqlite.sums_in(draft))
            except sqlite3.DatabaseError as error:
                raise BackupError(f"What was restored is no whole SQLite file: {error}.") from error

        sqlite.restore(chunks, self.path, overwrite=overwrite, check=whole)


@dataclass(frozen=True)
class PostgresSource:
    """A database of a server."""

    server: Server
    pg_bin: str
    kind: str = "postgresql"

    @property
    def name(self) -> str:
        """The name of the database."""
        return self.server.database

    @contextmanager
    def dump(self) -> Iterator[Dump]:
        """Give pg_dump's output of a snapshot that stays open as long."""
        from . import postgres

        with postgres.snapshot(self.server) as moment:
            chunks = postgres.dumped(self.server, moment, self.pg_bin)
            yield Dump(chunks, moment.sums, moment.revision, moment.version)

    @contextmanager
    def scratch(self) -> Iterator[Source]:
        """Give a database of a name that nobody else has."""
        from . import postgres

        with postgres.scratch(self.server) as made:
            yield PostgresSource(made, self.pg_bin)

    def restore(self, chunks: Iterable[bytes], *, overwrite: bool, major: int, check: Check) -> None:
        """Have pg_restore write it in one transaction, count, and gather statistics for the planner."""
        from . import postgres

        if not overwrite and not postgres.is_empty(self.server):
            raise BackupError(
                f"{self.name} has tables: choose an empty database, or pass --overwrite to lose them."
            )
        postgres.restored(chunks, self.server, self.pg_bin, clean=overwrite, least=major)
        with self.server.connect() as connection:
            sums = postgres.sums_of(connection)
            connection.rollback()
            check(sums)
            connection.execute("ANALYZE")
