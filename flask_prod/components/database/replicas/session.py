"""A session whose transactions read from a replica where the code says so.

A transaction has one database. Its first statement decides: a read that is marked goes to a replica, and so do the
marked reads after it; everything else goes to the primary. A transaction that has read from a replica and asks for
anything else turns to the primary, and does not come back: the replica's connection is given back at once.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from sqlalchemy import Connection, Engine
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import Session, SessionTransaction

from .engine import Replica, Rotation, has_lost_it, is_its_own
from .marks import marked
from .statements import reads_only
from .sticky import Stickiness, Writes
from .turn import is_part_of_a_load, release, settle

REPLICA = "replica"
"""The name of the option of statements and sessions, and of the argument of `get_bind`."""

_NO_OPTIONS: Mapping[str, Any] = {}
_CACHED = "cache_ttl"
_STREAMING = frozenset({"yield_per", "stream_results"})
"""Options by which rows are fetched while they are read: their connection must stay."""

LEFT_ALONE = 1.0
"""Seconds for which a replica that has failed a read is left alone; a measurement must then be good."""


class RoutingSession(Session):
    """A session of `prod.db` in an application with replicas."""

    def __init__(self, *args: Any, rotation: Rotation, client: Stickiness, **options: Any) -> None:
        super().__init__(*args, **options)
        self._rotation = rotation
        self._client = client
        # Of another database than the primary we know no replica: of a tenant's, for example.
        self._routes = self.bind is not None and self.bind is client.primary and not self.binds
        self.forget_course()

    def forget_course(self) -> None:
        """Begin anew with the next transaction."""
        self._replica: Replica | None = None
        self._on_primary = False
        self._has_old = False
        self._has_read = False
        self._streams = False
        self._writes: Writes | None = None
        self._until = 0.0

    def execute(
        self, statement: Any, params: Any = None, *, execution_options: Any = _NO_OPTIONS, **others: Any
    ) -> Any:
        """Execute a statement, on a replica where it may be."""
        return self._route(super().execute, statement, params, execution_options, others)

    def scalar(
        self, statement: Any, params: Any = None, *, execution_options: Any = _NO_OPTIONS, **others: Any
    ) -> Any:
        """Return the first column of the first row, from a replica where it may be."""
        return self._route(super().scalar, statement, params, execution_options, others)

    def scalars(
        self, statement: Any, params: Any = None, *, execution_options: Any = _NO_OPTIONS, **others: Any
    ) -> Any:
        """Return the first columns, from a replica where it may be."""
        return self._route(super().scalars, statement, params, execution_options, others)

    def flush(self, objects: Any = None) -> None:
        """Write what is pending, to the primary."""
        if (self._has_old or not self._on_primary) and self._is_pending:
            self._turn(writes=True)
        super().flush(objects)

    def connection(self, *args: Any, **options: Any) -> Connection:
        """Return the primary's connection: whatever is done by it."""
        self._turn(writes=True)
        return super().connection(*args, **options)

    def get_bind(
        self, mapper: Any = None, *, replica: Replica | None = None, **others: Any
    ) -> Engine | Connection:
        """Return the database of a statement: the primary, unless `execute` has chosen a replica."""
        return super().get_bind(mapper, **others) if replica is None else replica.engine

    @property
    def _is_pending(self) -> bool:
        return not self._is_clean()  # SQLAlchemy's own: `new`, `dirty` and `deleted` build a set each

    def _route(
        self, run: Callable[..., Any], statement: Any, params: Any, options: Any, others: dict[str, Any]
    ) -> Any:
        replica = self._choose(statement, options, others) if self._routes else None
        if replica is None:
            return run(statement, params, execution_options=options, **others)
        given = others.pop("bind_arguments", None) or {}
        try:
            return run(
                statement, params, execution_options=options, bind_arguments={**given, REPLICA: replica}, **others
            )
        except DBAPIError as error:
            if not self._survives(replica, error):
                raise
        return run(statement, params, execution_options=options, bind_arguments=given, **others)

    def _choose(self, statement: Any, options: Mapping[str, Any], others: Mapping[str, Any]) -> Replica | None:
        """Return the replica for a statement, None for the primary, to which the transaction then turns."""
        said = statement.get_execution_options()
        own = options.get(REPLICA)
        if own is None:
            own = said.get(REPLICA)
        wish = self.info.get(REPLICA) if own is None else own
        if wish is None:
            wish = marked.get()
        if self._has_old:
            wish = wish or (self._replica is not None and is_part_of_a_load(statement))
        elif self._on_primary or not wish:
            if wish:
                self._rotation.count("primary", "transaction")
            self._on_primary = True
            return None
        reads = "bind" not in (others.get("bind_arguments") or ()) and reads_only(statement, bool(own))
        # What the cache keeps must not be late: it would stay beyond the replica's lag.
        cached = _CACHED in said or _CACHED in options
        if wish and reads and not cached:
            if not _STREAMING.isdisjoint(said) or not _STREAMING.isdisjoint(options):
                self._streams = True
            return self._next()
        if wish:
            self._rotation.count("primary", "cached" if reads else "statement")
        self._turn(writes=not reads)
        return None

    def _next(self) -> Replica | None:
        """Return the replica for a read that may go to one."""
        if self._on_primary:
            self._rotation.count("primary", "transaction")
            return None
        # What is pending is written first, and the query must see it, as what was written by other ways.
        if self._is_pending or (self._writes is not None and self._writes.until != self._until):
            self._rotation.count("primary", "wrote")
            self._turn(writes=True)
            return None
        if self._replica is not None:
            self._has_read = True
            return self._replica
        self._writes = self._client.writes()
        self._until = self._writes.until
        self._replica = self._rotation.choose(self._writes)
        self._has_old = self._replica is not None
        self._on_primary = not self._has_old
        return self._replica

    def _turn(self, *, writes: bool) -> None:
        """Go on with the primary; before something is written, what came from a replica is made true."""
        replica, self._replica = self._replica, None
        self._on_primary = True
        if replica is not None and not self._streams:
            release(self, replica.engine)
        if writes and self._has_old:
            self._has_old = False
            settle(self)

    def _survives(self, replica: Replica, error: DBAPIError) -> bool:
        """Tell whether the primary may be asked in place of a replica that has failed; then it will be.

        It is never behind the replica. Where each statement sees what was committed before it, that is all a
        transaction is promised; under a stricter level only the first statement may move.
        """
        if not is_its_own(error):
            return False
        if has_lost_it(error):
            replica.failed(LEFT_ALONE)
        if self.in_nested_transaction() or self._streams or (self._has_read and not _sees_commits(replica.engine)):
            return False
        self._turn(writes=False)
        self._rotation.count("primary", "failed")
        return True


def end_course(session: Session, transaction: SessionTransaction) -> None:
    """Let the next transaction choose anew; listens to `after_transaction_end`."""
    if transaction.parent is None and isinstance(session, RoutingSession):
        session.forget_course()


def _sees_commits(engine: Engine) -> bool:
    level = engine.get_execution_options().get("isolation_level") or engine.dialect.default_isolation_level
    return level in ("READ COMMITTED", "READ UNCOMMITTED", "AUTOCOMMIT")
