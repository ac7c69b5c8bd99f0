"""What SQLite needs to behave like a server's database under several threads and processes."""

from __future__ import annotations

import sqlite3
from pathlib import Path
from typing import Any

from sqlalchemy import URL, Engine, event
from sqlalchemy.pool import StaticPool

BUSY_TIMEOUT = 5.0
"""Seconds that a writer waits for another before `database is locked`; sqlite3's own default, made explicit."""


def is_file(url: URL) -> bool:
    """Tell whether *url* names a file rather than a database in memory."""
    name = url.database or ""
    return name not in ("", ":memory:") and "mode=memory" not in name and url.query.get("mode") != "memory"


def is_file_of(url: URL) -> bool:
    """Tell whether *url* names a file of SQLite by its plain path."""
    return url.get_backend_name() == "sqlite" and is_file(url) and not (url.database or "").startswith("file:")


def path_of(url: URL) -> Path:
    """Return the file that *url* names."""
    return Path((url.database or "").removeprefix("file:").split("?", 1)[0])


def options(url: URL) -> dict[str, Any]:
    """Return the arguments of `create_engine` that only SQLite takes."""
    # IMMEDIATE: a transaction that begins with a write takes the write lock at once and waits for it. Begun as
    # DEFERRED, it would fail without waiting as soon as another process wrote in between.
    connect_args: dict[str, Any] = {"isolation_level": "IMMEDIATE", "timeout": BUSY_TIMEOUT}
    if is_file(url):
        return {"connect_args": connect_args}
    # A database in memory belongs to its connection: all threads of the process share one.
    return {"connect_args": {**connect_args, "check_same_thread": False}, "poolclass": StaticPool}


def prepare(engine: Engine) -> None:
    """Set up every new connection, and lock where the application asks for a lock."""
    event.listen(engine, "connect", _set_pragmas)
    event.listen(engine, "savepoint", _begin_before_savepoint)
    event.listen(engine, "before_cursor_execute", _begin_before_locking_select)


def _set_pragmas(connection: sqlite3.Connection, _record: object) -> None:
    # foreign_keys is off by default for the sake of files from before 2009. synchronous NORMAL is safe in WAL
    # mode: a power cut may lose the last transactions, never the file.
    for pragma in ("foreign_keys = ON", "synchronous = NORMAL"):
        connection.execute(f"PRAGMA {pragma}")
    try:
        connection.execute("PRAGMA journal_mode = WAL")
    except sqlite3.OperationalError:
        return  # a read-only or network file system: the older journal works there


def _begin(connection: Any) -> None:
    if not connection.connection.dbapi_connection.in_transaction:
        connection.connection.dbapi_connection.execute("BEGIN IMMEDIATE")


def _begin_before_savepoint(connection: Any, _name: str) -> None:
    """Without a transaction around it, releasing a savepoint would commit."""
    _begin(connection)


def _begin_before_locking_select(
    connection: Any, _cursor: object, _statement: str, _parameters: object, context: Any, _many: bool
) -> None:
    """Make `with_for_update()` lock: SQLite has no such clause, and SQLAlchemy leaves it out in silence."""
    compiled = context.compiled if context is not None else None
    if compiled is not None and getattr(compiled.statement, "_for_update_arg", None) is not None:
        _begin(connection)
