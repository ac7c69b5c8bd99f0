"""Which tables a transaction has changed, told once it is committed: never before, and not after a rollback.

Seen at the connection, where everything comes by: what the ORM flushes, statements of Core and of `text`, bulk
inserts. What other programs write to the database is not seen.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterator
from typing import Any, Protocol, TypeAlias

from sqlalchemy import Connection, Engine, Table, event

EVERY = "*"
"""Stands for all tables: a statement that changes something, nobody can tell what."""

Tell: TypeAlias = Callable[[Collection[str]], None]

_KEY = "flask_prod_changes"
_TABLES = "_flask_prod_tables"
_WRITES = re.compile(
    r"\b(?:insert\s+(?:or\s+\w+\s+)?into|replace\s+into|update(?:\s+or\s+\w+)?(?:\s+only)?"
    r"|delete\s+from(?:\s+only)?|truncate(?:\s+table)?(?:\s+only)?|merge\s+into)\s+"
    r"((?:[\w$]+|\"[^\"]+\"|`[^`]+`|\[[^\]]+\])(?:\.(?:[\w$]+|\"[^\"]+\"|`[^`]+`|\[[^\]]+\]))?)",
    re.IGNORECASE,
)
_COMMENTS = re.compile(r"/\*.*?\*/|--[^\n]*", re.DOTALL)
_STRINGS = re.compile(r"'(?:[^']|'')*'")
_HARMLESS = frozenset(
    {"select", "with", "values", "explain", "show", "pragma", "set", "reset", "begin", "savepoint", "release",
     "commit", "rollback", "listen", "notify", "analyze", "vacuum", "lock", "declare", "fetch", "close", "table"}
)  # fmt: skip
"""First words of statements that change no row, unless a writing word is in them."""


class Levels:
    """What a transaction has changed, and below that each of its savepoints."""

    __slots__ = ("levels",)

    def __init__(self) -> None:
        self.levels: list[tuple[str, set[str]]] = [("", set())]

    def add(self, tables: Collection[str]) -> None:
        """Note changes of the innermost savepoint."""
        self.levels[-1][1].update(tables)

    def open(self, name: str) -> None:
        """Begin a savepoint."""
        self.levels.append((name, set()))

    def keep(self, name: str) -> None:
        """Give what a savepoint changed to what is around it."""
        for tables in self._cut(name):
            self.add(tables)

    def drop(self, name: str) -> None:
        """Forget what a savepoint changed."""
        self._cut(name)

    def all(self) -> set[str]:
        """Return everything that is changed now."""
        return set().union(*(tables for _, tables in self.levels))

    def _cut(self, name: str) -> list[set[str]]:
        """Take away a savepoint and those within it."""
        for index in range(len(self.levels) - 1, 0, -1):
            if self.levels[index][0] == name:
                gone = [tables for _, tables in self.levels[index:]]
                del self.levels[index:]
                return gone
        return []


class _HasInfo(Protocol):
    @property
    def info(self) -> dict[Any, Any]: ...


def changed_by(connection: _HasInfo) -> set[str]:
    """Return the tables that the open transaction of *connection* has changed."""
    levels: Levels | None = connection.info.get(_KEY)
    return levels.all() if levels is not None else set()


def follow(engine: Engine, tell: Tell) -> None:
    """Call *tell* with the names of the tables that each transaction of *engine* has changed, after its commit."""
    follower = _Follower(engine, tell)
    event.listen(engine, "after_cursor_execute", follower.executed)
    event.listen(engine, "rollback", follower.rolled_back)
    event.listen(engine, "rollback_twophase", follower.rolled_back)
    event.listen(engine, "checkin", follower.checkin)
    # The event `commit` comes before the commit, where others still read what is about to change, and the event
    # `savepoint` before the savepoint has its name. These are called after both.
    dialect: Any = engine.dialect
    dialect.do_savepoint = _then(dialect.do_savepoint, Levels.open)
    dialect.do_release_savepoint = _then(dialect.do_release_savepoint, Levels.keep)
    dialect.do_rollback_to_savepoint = _then(dialect.do_rollback_to_savepoint, Levels.drop)
    dialect.do_commit = follower.committing(dialect.do_commit, lambda args: args[0])
    dialect.do_commit_twophase = follower.committing(dialect.do_commit_twophase, lambda args: args[0].connection)


class _Follower:
    def __init__(self, engine: Engine, tell: Tell) -> None:
        self._dialect = engine.dialect
        self._tell = tell

    def executed(  # what SQLAlchemy calls
        self,
        connection: Connection,
        _cursor: object,
        statement: str,
        _parameters: object,
        context: Any,
        _many: bool,
    ) -> None:
        """Keep what a statement changes until its commit; tell at once where there is none to come."""
        tables = _tables_of(statement, context)
        if not tables:
            return
        if _is_autocommit(connection):
            self._tell(tables)
            return
        _levels(connection).add(tables)

    def rolled_back(self, connection: Connection, *_: object) -> None:
        connection.info.pop(_KEY, None)

    def checkin(self, _dbapi_connection: object, record: Any) -> None:
        record.info.pop(_KEY, None)

    def committing(self, commit: Callable[..., None], find: Callable[[Any], _HasInfo]) -> Callable[..., None]:
        """Return *commit* with what comes after it."""

        def commit_and_tell(*args: Any, **options: Any) -> None:
            info = find(args).info
            try:
                commit(*args, **options)
            except Exception as error:
                # The server may have committed before the line broke; any other failure is a rollback.
                levels = info.pop(_KEY, None)
                if levels is not None and self._broke(error):
                    self._announce(levels)
                raise
            levels = info.pop(_KEY, None)
            if levels is not None:
                self._announce(levels)

        return commit_and_tell

    def _broke(self, error: Exception) -> bool:
        dialect: Any = self._dialect
        return isinstance(error, dialect.loaded_dbapi.Error) and bool(dialect.is_disconnect(error, None, None))

    def _announce(self, levels: Levels) -> None:
        tables = levels.all()
        if tables:
            self._tell(tables)


def _then(do: Callable[..., None], note: Callable[[Levels, str], None]) -> Callable[..., None]:
    """Return what a dialect does with a savepoint, noted once it is done."""

    def do_and_note(connection: Connection, name: str) -> None:
        do(connection, name)
        note(_levels(connection), name)

    return do_and_note


def _levels(connection: _HasInfo) -> Levels:
    info = connection.info
    levels: Levels | None = info.get(_KEY)
    if levels is None:
        levels = info[_KEY] = Levels()
    return levels


def tables_written(text: str) -> frozenset[str]:
    """Return the tables that a statement written by hand changes; EVERY when nobody can tell."""
    bare = _STRINGS.sub("''", _COMMENTS.sub(" ", text)).strip()
    found = frozenset(_unquoted(name) for name in _WRITES.findall(bare))
    first = re.match(r"\(*\s*(\w+)", bare)
    if found or (first is not None and first[1].lower() in _HARMLESS):
        return found
    return frozenset({EVERY}) if bare else frozenset()


def name_of(table: Any) -> str:
    """Return a table's name with its schema, if it names one."""
    return str(getattr(table, "fullname", None) or getattr(table, "name", EVERY))


def _tables_of(statement: str, context: Any) -> frozenset[str]:
    """Return what a statement changes; remembered with its compiled form, which SQLAlchemy keeps."""
    compiled = getattr(context, "compiled", None)
    if compiled is None:
        return tables_written(statement)
    known: frozenset[str] | None = getattr(compiled, _TABLES, None)
    if known is None:
        known = frozenset(find_written(compiled, statement))
        setattr(compiled, _TABLES, known)
    return known


def find_written(compiled: Any, statement: str) -> Iterator[str]:
    """Yield the tables that a compiled statement changes."""
    element = compiled.statement
    kind = getattr(element, "__visit_name__", "")
    if kind == "textclause":
        yield from tables_written(statement)
    elif kind in ("insert", "update", "delete"):
        yield from _with_dependents(element.table, kind)
    elif kind not in ("select", "compound_select", "textual_select", "select_statement_grouping"):
        yield from tables_written(statement)  # DDL, a procedure, somebody's own construct
        return
    for cte in getattr(compiled, "ctes", None) or ():
        inner = getattr(cte, "element", None)
        inner_kind = getattr(inner, "__visit_name__", "")
        if inner_kind in ("insert", "update", "delete"):
            yield from _with_dependents(inner.table, inner_kind)  # type: ignore[union-attr]
        elif inner_kind == "textclause" or getattr(inner, "_is_textual", False):
            yield from tables_written(statement)


def _with_dependents(table: Any, kind: str) -> Iterator[str]:
    """Yield a table, and those whose rows the database itself changes with it (ON DELETE CASCADE and the like)."""
    waiting, seen = [table], set()
    while waiting:
        one = waiting.pop()
        if one in seen:
            continue
        seen.add(one)
        yield name_of(one)
        if kind != "insert" and isinstance(one, Table):
            waiting += [other for other in one.metadata.tables.values() if _follows(other, one)]


def _follows(other: Table, table: Table) -> bool:
    """Tell whether rows of *other* change by themselves; a key that names neither action refuses the statement."""
    return any(
        bool(key.ondelete or key.onupdate) and key.target_fullname.rpartition(".")[0] == table.fullname
        for key in other.foreign_keys
    )


def _unquoted(name: str) -> str:
    return re.sub(r"[\"`\[\]]", "", name)


def _is_autocommit(connection: Connection) -> bool:
    level = connection.get_execution_options().get("isolation_level")
    if level is None:
        level = getattr(connection.dialect, "_on_connect_isolation_level", None)
    return level == "AUTOCOMMIT"
