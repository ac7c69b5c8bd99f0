"""Results of queries, forgotten when a transaction that changed one of their tables is committed.

An entry belongs to the statement as the database gets it, its parameters, the database (address and schemas), and
what the caller adds by `key`. It holds names and rows, no objects: those belong to a session.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Hashable, Mapping
from dataclasses import dataclass, replace
from hashlib import blake2b
from typing import Any, TypeAlias
from weakref import WeakKeyDictionary, WeakMethod, WeakSet

from sqlalchemy import Connection, Engine, Select, Table, event
from sqlalchemy.engine import Dialect, Result
from sqlalchemy.orm import ORMExecuteState, Session, lazyload
from sqlalchemy.sql import visitors
from sqlalchemy.sql.base import Executable

from flask_prod.core.errors import NotInstalled
from flask_prod.core.kit import current_state

from .absent import MISSING
from .backend import SafeBackend, Timeout
from .changes import EVERY, changed_by, find_written, follow, name_of
from .entry import Entry
from .envelope import encode_value
from .loader import Made, Want
from .rows import Rows

logger = logging.getLogger(__name__)

TABLE = "table:"
"""Begins the tag of a table: `table:products`, which pages and functions may carry too."""

_OPTION = "cache_ttl"
_CONNECTIONS = "flask_prod_connections"
_ASKING = "flask_prod_asking"
_MOST_SHAPES = 1000
_LEVELS = frozenset({"READ COMMITTED", "READ UNCOMMITTED", "AUTOCOMMIT"})
"""Isolation levels under which each statement sees what was committed before it began."""


@dataclass(frozen=True, slots=True)
class Shape:
    """What all statements have in common that differ in their parameters only."""

    digest: bytes
    tables: tuple[str, ...]
    objects: str = ""
    """The first object that the statement asks for, where it does not ask for columns only."""

    locks: bool = False


@dataclass(frozen=True, slots=True)
class Asked:
    """A query, and how its rows are kept."""

    statement: Executable
    ttl: Timeout = None
    tags: tuple[str, ...] = ()
    key: str = ""
    bind: Mapping[str, Any] | None = None
    """What tells the session which database to ask, where the caller said so."""

    @property
    def bind_arguments(self) -> dict[str, Any]:
        """What the session finds the database by."""
        return dict(self.bind) if self.bind else {"clause": self.statement}


Found: TypeAlias = tuple[list[str], list[list[Any]]]


def _weakly(method: Callable[[ORMExecuteState], Any]) -> Callable[[ORMExecuteState], Any]:
    """Return a listener that keeps nothing alive: SQLAlchemy never forgets one of a class of sessions."""
    found = WeakMethod(method)

    def execute(state: ORMExecuteState) -> Any:
        own = found()
        return None if own is None else own(state)

    return execute


class Queries:
    """The query cache of one application."""

    def __init__(self, backend: SafeBackend) -> None:
        self._backend = backend
        self._shapes: dict[Hashable, Shape] = {}
        self._addresses: WeakKeyDictionary[Engine, bytes] = WeakKeyDictionary()
        self._followed: WeakSet[Engine] = WeakSet()

    def follow(self, engine: Engine, sessions: Any) -> None:
        """Watch what *engine* commits, and let the sessions of *sessions* take `cache_ttl` as an option."""
        if engine not in self._followed:
            self._followed.add(engine)
            follow(engine, self.forget)
        event.listen(sessions, "after_begin", _remember)
        event.listen(sessions, "do_orm_execute", _weakly(self._execute))

    def forget(self, tables: Collection[str]) -> None:
        """Invalidate the results of *tables*, EVERY for all; never raises, since the commit is done."""
        try:
            self._backend.invalidate(*(TABLE + name for name in sorted(tables)))
        except Exception:
            logger.exception(
                "results of changed tables could not be invalidated; they live until their time is over"
            )

    def fetch(self, session: Session, asked: Asked, *, followed: bool = True) -> Rows:
        """Return the rows, from the cache where that may be; a session that is not *followed* is looked into.

        TypeError for a statement that changes something.
        """
        if not followed and session.in_transaction():
            _remember(session, None, session.connection(bind_arguments=asked.bind_arguments))
        bind = session.get_bind(**asked.bind_arguments)
        shape, parameters = self._look_at(asked.statement, bind.dialect)
        reason = _refuse(session, bind, shape)
        key = "" if reason else self._key(bind, asked, shape, parameters)
        if reason or not key:
            self._backend.counters.refused.inc(reason or "type")
            return Rows(*_ask(session, asked, shape))

        def make() -> tuple[Rows, Made | None]:
            found = _ask(session, asked, shape)
            return Rows(*found), self._made(found)

        tags = (TABLE + EVERY, *(TABLE + name for name in shape.tables), *asked.tags)
        order = self._backend.order
        if asked.ttl is not None:
            order = replace(order, ttl=self._backend.seconds(asked.ttl))
        rows: Rows = self._backend.obtain(Want(key, tags, order, make, self._read))
        return rows

    def _made(self, found: Found) -> Made | None:
        try:
            return self._backend.made(list(found))
        except TypeError as error:
            self._backend.counters.refused.inc("type")
            if self._backend.strict:
                raise
            if "query" not in self._backend.unfit:
                self._backend.unfit.add("query")
                logger.error("The result of a query is not cached: %s", error)
            return None

    def _read(self, entry: Entry) -> Any:
        found = self._backend.value_of(entry)
        try:
            names, rows = found
            return Rows(names, rows)
        except (TypeError, ValueError):
            return MISSING

    def _execute(self, state: ORMExecuteState) -> Result[Any] | None:
        """Answer `session.execute(..., execution_options={"cache_ttl": "1m"})`."""
        ttl = state.execution_options.get(_OPTION)
        if ttl is None or not state.is_select or state.is_relationship_load or state.is_column_load:
            return None
        if state.session.info.get(_ASKING):
            return None
        asked = _asked_by(state, ttl)
        shape, _ = self._look_at(asked.statement, state.session.get_bind(**asked.bind_arguments).dialect)
        if shape.objects:
            raise TypeError(
                f"cache_ttl keeps rows, and {shape.objects} is an object of a session: select its columns, or use "
                "prod.cache.query(...), which gives its columns."
            )
        return self.fetch(state.session, asked).result()

    def _look_at(self, statement: Any, dialect: Dialect) -> tuple[Shape, list[Any]]:
        """Return what is known of a statement, and its values in order; compiling costs more than most queries."""
        cache_key = statement._generate_cache_key()  # as SQLAlchemy's own cache does
        if cache_key is None:
            values = statement.compile(dialect=dialect).params
            return _shape_of(statement, dialect), [[name, values[name]] for name in sorted(values)]
        name = (dialect.name, cache_key.key)
        found = self._shapes.get(name)
        if found is None:
            if len(self._shapes) >= _MOST_SHAPES:
                self._shapes.clear()
            found = self._shapes[name] = _shape_of(statement, dialect)
        return found, [one.effective_value for one in cache_key.bindparams]

    def _key(self, bind: Engine | Connection, asked: Asked, shape: Shape, parameters: list[Any]) -> str:
        """Return the key, empty for parameters that make none; their types count: 1 is not "1"."""
        engine = bind.engine
        address = self._addresses.get(engine)
        if address is None:
            address = self._addresses[engine] = engine.url.render_as_string(hide_password=True).encode()
        options = {**bind.get_execution_options(), **asked.statement.get_execution_options()}
        schemas = sorted((str(a), str(b)) for a, b in (options.get("schema_translate_map") or {}).items())
        try:
            values = encode_value([parameters, [*map(list, schemas)], asked.key])
        except TypeError:
            return ""
        digest = blake2b(b"%b\0%b\0%b%b" % (address, shape.digest, *values), digest_size=16)
        return "query:" + digest.hexdigest()


def session_of_app() -> Session:
    """Return the session of the current context; NotInstalled where the database room is left out."""
    database = current_state().contributions.get("database")
    if database is None:
        raise NotInstalled("database is left out of this application's kit: pass session= to prod.cache.query.")
    session: Session = database.handle.session
    return session


def _asked_by(state: ORMExecuteState, ttl: Any) -> Asked:
    statement: Any = state.statement
    if state.parameters:
        if not isinstance(state.parameters, Mapping):
            raise TypeError("cache_ttl is for one query, not for a list of parameters.")
        statement = statement.params(**state.parameters)
    options = dict(state.execution_options)
    del options[_OPTION]
    tags, key = options.pop("cache_tags", ()), options.pop("cache_key", "")
    # All others go with the statement: which schemas are meant, for example, tells tenants apart.
    return Asked(statement.execution_options(**options), ttl, tuple(tags), str(key), state.bind_arguments)


def _ask(session: Session, asked: Asked, shape: Shape) -> Found:
    """Ask the database in the session's transaction, which first writes what the session has pending."""
    asking = session.info.get(_ASKING)
    session.info[_ASKING] = True
    try:
        if session.autoflush:
            session.flush()
        statement: Any = asked.statement
        if shape.objects:
            statement = statement.options(lazyload("*"))  # not what is loaded along with objects
        result = session.connection(bind_arguments=asked.bind_arguments).execute(statement)
        # SQLAlchemy's names of columns know how they are quoted, and are no plain text.
        return [str(name) for name in result.keys()], [list(row) for row in result]  # noqa: SIM118  # no dict
    finally:
        session.info[_ASKING] = asking


def _refuse(session: Session, bind: Engine | Connection, shape: Shape) -> str:
    """Return why this session's result is neither taken from the cache nor stored, empty when it may be.

    It has changed one of the tables itself, or it may see an older state of them than others do, or it locks rows.
    """
    if shape.locks:
        return "lock"
    if session.new or session.deleted or session.dirty:
        return "changed"
    for connection in _open_connections(session, bind):
        changed = changed_by(connection)
        if changed and (EVERY in changed or not changed.isdisjoint(shape.tables)):
            return "changed"
        if _sees_the_past(connection):
            return "snapshot"
    return ""


def _sees_the_past(connection: Connection) -> bool:
    if connection.dialect.name == "sqlite":
        return bool(getattr(connection.connection.dbapi_connection, "in_transaction", False))
    level = connection.get_execution_options().get("isolation_level") or connection.default_isolation_level
    return level not in _LEVELS


def _open_connections(session: Session, bind: Engine | Connection) -> list[Connection]:
    known: list[Connection] = session.info.get(_CONNECTIONS, [])
    found = [one for one in known if not one.closed and one.in_transaction()]
    if known and len(found) != len(known):
        session.info[_CONNECTIONS] = found
    return [*found, bind] if isinstance(bind, Connection) and bind not in found else found


def _remember(session: Session, _transaction: object, connection: Connection) -> None:
    known = session.info.setdefault(_CONNECTIONS, [])
    known[:] = [one for one in known if not one.closed and one is not connection]
    known.append(connection)


def _entities(statement: Any) -> list[str]:
    if not isinstance(statement, Select):
        return []
    return [
        str(one["name"])
        for one in statement.column_descriptions
        if isinstance(one["type"], type) and one.get("expr") is one.get("entity") is not None
    ]


def _shape_of(statement: Any, dialect: Dialect) -> Shape:
    objects = next(iter(_entities(statement)), "")
    if objects:
        statement = statement.options(lazyload("*"))
    compiled = statement.compile(dialect=dialect)
    if any(find_written(compiled, str(compiled))):
        raise TypeError("The query cache is for queries, and this statement changes something.")
    state = getattr(compiled, "compile_state", None)
    whole = [statement, getattr(state, "statement", None)]
    tables = {
        name_of(part)
        for one in whole
        if one is not None
        for part in visitors.iterate(one)
        if isinstance(part, Table)
    }
    digest = blake2b(f"{dialect.name}\0{compiled}".encode(), digest_size=16).digest()
    return Shape(digest, tuple(sorted(tables)), objects, getattr(statement, "_for_update_arg", None) is not None)
