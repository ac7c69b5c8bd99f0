"""One migrator at a time: a lock that ends with its holder, and says who that is."""

from __future__ import annotations

import fcntl
import json
import os
import socket
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from time import monotonic, sleep
from typing import Any

from sqlalchemy import Connection, text

NUMBER = 0x666C70726F64
"""The advisory lock on PostgreSQL, per database: `flprod` in ASCII."""

_POLL = 0.1


@dataclass(frozen=True)
class Holder:
    """Who migrates now."""

    pid: int
    name: str
    since: str

    def __str__(self) -> str:
        return f"{self.name} (process {self.pid}) since {self.since}"


class Lock(ABC):
    """A lock of one database."""

    @abstractmethod
    def take(self) -> bool:
        """Take the lock if it is free."""

    @abstractmethod
    def give_back(self) -> None:
        """Let the next one in."""

    @abstractmethod
    def holder(self) -> Holder | None:
        """Return who has it."""

    @abstractmethod
    def end_holder(self, holder: Holder) -> bool:
        """End the holder's connection, which undoes what it has not committed; False where it cannot."""

    def wait(self, seconds: float) -> bool:
        """Take the lock within *seconds*; False when somebody had it all the time."""
        end = monotonic() + seconds
        while not self.take():
            if monotonic() >= end:
                return False
            sleep(_POLL)
        return True


def lock_of(connection: Connection, name: str) -> Lock:
    """Return the lock of the database behind *connection*, held by *name*."""
    backend = connection.dialect.name
    if backend == "sqlite":
        return FileLock(_sqlite_path(connection), name)
    return PostgresLock(connection) if backend == "postgresql" else MysqlLock(connection)


class PostgresLock(Lock):
    """A session's advisory lock: the server gives it back when the connection ends, however it does."""

    _HOLDER = """
        SELECT a.pid, coalesce(nullif(a.application_name, ''), a.usename), a.backend_start
        FROM pg_locks l JOIN pg_stat_activity a USING (pid)
        WHERE l.locktype = 'advisory' AND l.granted AND l.objsubid = 1
          AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())
          AND l.classid = :high AND l.objid = :low
    """

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def take(self) -> bool:
        """Take the lock if it is free."""
        return bool(self._ask("SELECT pg_try_advisory_lock(:number)", number=NUMBER)[0])

    def give_back(self) -> None:
        """Let the next one in."""
        self._ask("SELECT pg_advisory_unlock(:number)", number=NUMBER)

    def holder(self) -> Holder | None:
        """Return who has it."""
        row = self._ask(self._HOLDER, high=NUMBER >> 32, low=NUMBER & 0xFFFFFFFF)
        return None if row is None else Holder(row[0], row[1], _moment(row[2]))

    def end_holder(self, holder: Holder) -> bool:
        """End the holder's connection."""
        return bool(self._ask("SELECT pg_terminate_backend(:pid)", pid=holder.pid)[0])

    def _ask(self, query: str, **values: object) -> Any:
        with no_transaction_left(self._connection):
            return self._connection.execute(text(query), values).first()


class MysqlLock(Lock):
    """A named lock of the server, which ends with the connection."""

    _NAME = "concat('flask-prod migrations ', md5(database()))"  # 64 characters are the most
    _HOLDER = """
        SELECT id, concat(user, ' from ', host), timestampadd(SECOND, -time, utc_timestamp())
        FROM information_schema.processlist WHERE id = :pid
    """

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def take(self) -> bool:
        """Take the lock if it is free."""
        return bool(self._ask(f"SELECT get_lock({self._NAME}, 0)")[0] == 1)

    def give_back(self) -> None:
        """Let the next one in."""
        self._ask(f"SELECT release_lock({self._NAME})")

    def holder(self) -> Holder | None:
        """Return who has it."""
        pid = self._ask(f"SELECT is_used_lock({self._NAME})")[0]
        if pid is None:
            return None
        row = self._ask(self._HOLDER, pid=pid)
        if row is None:  # another user's, which we may not see
            return Holder(int(pid), "another user's connection", "an unknown time")
        return Holder(int(pid), str(row[1]), f"{row[2]:%Y-%m-%d %H:%M:%S} UTC or before")

    def end_holder(self, holder: Holder) -> bool:
        """End the holder's connection."""
        self._ask(f"KILL {int(holder.pid)}")
        return True

    def _ask(self, query: str, **values: object) -> Any:
        with no_transaction_left(self._connection):
            result = self._connection.execute(text(query), values)
            return result.first() if result.returns_rows else None


class FileLock(Lock):
    """A locked file beside an SQLite database, which holds for one host; none in memory."""

    def __init__(self, database: Path | None, name: str) -> None:
        self._path = None if database is None else database.with_name(database.name + ".migrating")
        self._name = name
        self._file: int | None = None

    def take(self) -> bool:
        """Take the lock if it is free."""
        if self._path is None:
            return True
        file = os.open(self._path, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if os.fstat(file).st_ino != os.stat(self._path).st_ino:
                raise FileNotFoundError  # its last holder took the file away while we came
        except OSError:
            os.close(file)
            return False
        note = {"pid": os.getpid(), "name": self._name, "since": _moment(datetime.now(UTC))}
        os.ftruncate(file, 0)
        os.pwrite(file, json.dumps(note).encode(), 0)
        self._file = file
        return True

    def give_back(self) -> None:
        """Let the next one in, and leave no file."""
        if self._path is not None and self._file is not None:
            self._path.unlink(missing_ok=True)
            os.close(self._file)
            self._file = None

    def holder(self) -> Holder | None:
        """Return who has it."""
        if self._path is None or self._is_free():
            return None
        with suppress(OSError, ValueError, KeyError):
            note = json.loads(self._path.read_text())
            return Holder(note["pid"], note["name"], note["since"])
        return Holder(0, "another process of this host", "a moment ago")

    def end_holder(self, holder: Holder) -> bool:
        """Leave a process of this host to whoever runs it."""
        return False

    def _is_free(self) -> bool:
        try:
            with open(self._path or "", "rb") as file:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except FileNotFoundError:
            return True
        except OSError:
            return False
        return True


def signature(service: str) -> str:
    """Return what others see as the holder's name: `shop migrations on web-1`, as long as PostgreSQL keeps."""
    return f"{service} migrations on {socket.gethostname()}"[:63]


@contextmanager
def no_transaction_left(connection: Connection) -> Iterator[None]:
    """Leave no transaction behind that was not there: it would be idle while the migration runs."""
    begun = connection.in_transaction()
    yield
    if not begun:
        connection.commit()


def _sqlite_path(connection: Connection) -> Path | None:
    """Return the file behind a connection, as SQLite itself sees it; None in memory."""
    driver: Any = connection.connection.dbapi_connection
    rows = driver.execute("PRAGMA database_list").fetchall()
    file = next((row[2] for row in rows if row[1] == "main"), "")
    return Path(file) if file else None


def _moment(when: datetime) -> str:
    return when.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
