"""One schema per tenant on the shared server: a tenant's connection looks there and nowhere else.

Tables of a MetaData are named with the schema by SQLAlchemy (`schema_translate_map`). For statements written by
hand the server's `search_path` is set, at every checkout, and outside of a transaction: a rollback would undo it.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from sqlalchemy import Engine, event
from sqlalchemy.engine.base import OptionEngine
from sqlalchemy.pool import PoolProxiedConnection

from .names import UnknownTenant

_BOUND = "flask_prod_tenant_schema"
_BIND = "SELECT set_config('search_path', %s, false), to_regnamespace(%s) IS NOT NULL, pg_my_temp_schema() <> 0"
_CLEAN = "DISCARD TEMP"
"""Temporary tables belong to the connection, and hide the tables of whoever gets it next."""

_UNBIND = f"RESET search_path; {_CLEAN}; CLOSE ALL; DISCARD SEQUENCES"
"""What else outlives a transaction and holds rows, or numbers of them: cursors WITH HOLD, and `lastval()`."""


class _Derived(OptionEngine):
    """What `execution_options` makes of a tenant's engine: it gives that engine's connections."""

    def raw_connection(self) -> PoolProxiedConnection:
        """Return a connection that is bound to the schema."""
        return self._proxied.raw_connection()


class SchemaEngine(OptionEngine):
    """The shared engine, seen by one tenant: the same pool, and nothing but the tenant's schema."""

    _option_cls = _Derived

    def __init__(self, shared: Engine, schema: str) -> None:
        super().__init__(shared, {"schema_translate_map": {None: schema}})
        self._path = shared.dialect.identifier_preparer.quote_identifier(schema)

    def raw_connection(self) -> PoolProxiedConnection:
        """Return a connection that is bound to the schema; UnknownTenant when the server has none of this name.

        Whatever SQLAlchemy does with this engine, it gets its connections here, also after one was lost.
        """
        connection = super().raw_connection()
        try:
            self._bind(connection)
        except BaseException:
            connection.close()
            raise
        return connection

    def _bind(self, connection: PoolProxiedConnection) -> None:
        connection.info[_BOUND] = self._path
        with _outside_of_transaction(connection.dbapi_connection) as cursor:
            cursor.execute(_BIND, (self._path, self._path))
            path, exists, temporary = cursor.fetchone()
            if temporary:  # who had the connection before may not have been a tenant
                cursor.execute(_CLEAN)
        if path != self._path or not exists:
            raise UnknownTenant("There is no schema for this tenant.")


def unbind_at_checkin(shared: Engine) -> None:
    """Let no connection come back to the pool bound to a schema; one that cannot be unbound is closed."""

    def checkin(connection: Any, record: Any) -> None:
        if record.info.pop(_BOUND, None) is None or connection is None:
            return
        try:
            with _outside_of_transaction(connection) as cursor:
                cursor.execute(_UNBIND)
        except Exception as error:
            record.invalidate(error)

    event.listen(shared, "checkin", checkin)


@contextmanager
def _outside_of_transaction(connection: Any) -> Iterator[Any]:
    """Give a cursor whose statements count at once; the drivers of PostgreSQL decide this on their own side."""
    before = connection.autocommit
    if not before:
        connection.autocommit = True
    cursor = connection.cursor()
    try:
        yield cursor
    finally:
        cursor.close()
        if not before:
            connection.autocommit = False
