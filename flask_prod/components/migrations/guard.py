"""Look at every statement of a migration before the database sees it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from sqlalchemy import Connection, event, inspect
from sqlalchemy.exc import NoSuchTableError

from flask_prod.core.errors import ProdKitError

from .danger import BATCH, Known, dangers, plain, statements


class Destructive(ProdKitError):
    """A migration would destroy data, which nobody allowed; `found` says what, a few words each."""

    def __init__(self, found: list[str]) -> None:
        self.found = found
        listed = "\n".join(f"  - {what}" for what in found)
        super().__init__(
            f"This migration destroys data:\n{listed}\nTake a backup (flask prod db backup) and pass "
            "--allow-destructive, or leave this step to a later release, once no version needs the data."
        )


def known_of(connection: Connection) -> Known:
    """Return what there is before the migration; of other schemas than the default one, all counts as there."""
    inspector = inspect(connection)
    default = inspector.default_schema_name
    before = set(inspector.get_table_names())

    def type_of(table: str, column: str) -> str | None:
        schema, _, name = table.rpartition(".")
        try:
            columns = inspect(connection).get_columns(name, schema=schema or None)
        except NoSuchTableError:
            return None
        found = next((one for one in columns if one["name"] == column), None)
        return None if found is None else found["type"].compile(connection.dialect)

    def is_new(table: str) -> bool:
        schema, _, name = table.rpartition(".")
        return schema in ("", default) and name not in before

    return Known(type_of, is_new)


@contextmanager
def guarded(connection: Connection, known: Known, version_table: str) -> Iterator[None]:
    """Raise Destructive before a statement that destroys data; its transaction is rolled back."""
    looking = False

    def look(_c: Any, cursor: Any, statement: str, _parameters: Any, _context: Any, _many: bool) -> None:
        nonlocal looking
        if looking:
            return
        looking = True
        try:
            found = [what for one in statements(statement) for what in _found(cursor, one, known, version_table)]
        finally:
            looking = False
        if found:
            raise Destructive(found)

    event.listen(connection, "before_cursor_execute", look)
    try:
        yield
    finally:
        event.remove(connection, "before_cursor_execute", look)


def _found(cursor: Any, statement: str, known: Known, version_table: str) -> Iterator[str]:
    """Yield what a statement destroys; a batch on SQLite drops a table that it has copied before."""
    for what in dangers(statement, known, version_table):
        table = what.removeprefix("drops the table ")
        copied = _columns(cursor, BATCH + table) if table != what else {}
        if not copied:
            yield what
            continue
        for column, kind in _columns(cursor, plain(table)).items():
            if column not in copied:
                yield f"drops the column {table}.{column}"
            else:
                yield from _narrowed(table, column, kind, copied[column])


def _narrowed(table: str, column: str, before: str, after: str) -> Iterator[str]:
    words = f"ALTER TABLE {table} ALTER COLUMN {column} TYPE {after or 'BLOB'}"
    yield from dangers(words, Known(lambda *_: before))


def _columns(cursor: Any, table: str) -> dict[str, str]:
    """Return the columns of a table of SQLite and their types; none on other databases."""
    connection: Any = getattr(cursor, "connection", None)
    if not type(cursor).__module__.startswith("sqlite3"):
        return {}
    rows = connection.execute("SELECT name, type FROM pragma_table_info(?)", (table,))
    return dict(rows.fetchall())
