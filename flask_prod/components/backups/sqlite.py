"""Back up and restore an SQLite file while others use it."""

from __future__ import annotations

import hashlib
import os
import sqlite3
import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from .manifest import BackupError, Sums
from .stream import CHUNK

_BUSY = 60.0
"""Seconds that a restore waits for those who use the file."""

_MODULUS = 2**64


@contextmanager
def copied(source: Path) -> Iterator[Path]:
    """Give a whole copy of the file at one moment; writers go on meanwhile, as they may in WAL mode."""
    if not source.is_file():
        raise BackupError(f"There is no SQLite file {source}: nothing was stored yet.")
    with tempfile.TemporaryDirectory(prefix="flask-prod-backup-") as folder:
        copy = Path(folder) / "copy.db"
        with closing(sqlite3.connect(source, timeout=_BUSY)) as live, closing(sqlite3.connect(copy)) as target:
            live.backup(target)
            target.execute("PRAGMA journal_mode = DELETE")
            check_whole(target, str(source))
        yield copy


def pieces(path: Path) -> Iterator[bytes]:
    """Yield the bytes of a file."""
    with open(path, "rb") as file:
        while data := file.read(CHUNK):
            yield data


def check_whole(connection: sqlite3.Connection, name: str) -> None:
    """Raise BackupError when SQLite itself finds the file damaged."""
    try:
        said = connection.execute("PRAGMA integrity_check(1)").fetchone()[0]
    except sqlite3.DatabaseError as error:
        said = str(error)
    if said != "ok":
        raise BackupError(f"{name} is damaged: {said}.")


def sums_in(path: Path) -> dict[str, Sums]:
    """Return rows and checksum of each table."""
    with closing(sqlite3.connect(path)) as connection:
        connection.text_factory = bytes
        return {name: _sums(connection, name) for name in _tables(connection)}


def revision_in(path: Path) -> list[str]:
    """Return Alembic's revisions, none where it has no table."""
    with closing(sqlite3.connect(path)) as connection:
        if "alembic_version" not in _tables(connection):
            return []
        return sorted(row[0] for row in connection.execute("SELECT version_num FROM alembic_version"))


def restore(chunks: Iterable[bytes], target: Path, *, overwrite: bool, check: Callable[[Path], None]) -> None:
    """Write a file, have it checked, and let it replace what *target* holds in one transaction."""
    if not overwrite and _used(target):
        raise BackupError(f"{target} has tables: choose an empty database, or pass --overwrite to lose them.")
    with tempfile.TemporaryDirectory(prefix="flask-prod-restore-") as folder:
        draft = Path(folder) / "restored.db"
        with open(draft, "wb") as file:
            for data in chunks:
                file.write(data)
        check(draft)
        target.parent.mkdir(parents=True, exist_ok=True)
        if not target.exists():
            os.close(os.open(target, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
        with closing(sqlite3.connect(draft)) as source, closing(sqlite3.connect(target, timeout=_BUSY)) as live:
            source.backup(live)


def _used(path: Path) -> bool:
    if not path.exists() or path.stat().st_size == 0:
        return False
    with closing(sqlite3.connect(path)) as connection:
        return bool(_tables(connection))


def _tables(connection: sqlite3.Connection) -> list[str]:
    rows = connection.execute(
        "SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite!_%' ESCAPE '!' "
        "AND coalesce(sql, '') NOT LIKE 'CREATE VIRTUAL%' ORDER BY name"
    )
    return [row[0] if isinstance(row[0], str) else row[0].decode() for row in rows]


def _sums(connection: sqlite3.Connection, table: str) -> Sums:
    quoted = table.replace('"', '""')
    rows = total = 0
    for row in connection.execute(f'SELECT * FROM "{quoted}"'):  # noqa: S608  # a name of the file's own, quoted
        rows += 1
        total += int.from_bytes(hashlib.blake2b(repr(row).encode(), digest_size=8).digest())
    return Sums(rows, format(total % _MODULUS, "016x"))
