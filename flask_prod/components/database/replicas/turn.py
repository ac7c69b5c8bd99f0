"""What a transaction does when it turns from a replica to the primary: nothing old may decide what is written."""

from __future__ import annotations

import logging
from typing import Any

from sqlalchemy import Engine, inspect, select
from sqlalchemy.orm import InstanceState, Session
from sqlalchemy.orm.base import NEVER_SET, NO_VALUE
from sqlalchemy.orm.exc import StaleDataError

logger = logging.getLogger(__name__)

_UNKNOWN = (NO_VALUE, NEVER_SET)


def is_part_of_a_load(statement: Any) -> bool:
    """Tell whether a query loads what belongs to objects that are there: relationships, or columns."""
    options = getattr(statement, "_compile_options", None)
    path = getattr(options, "_current_path", None)
    return bool(getattr(options, "_for_refresh_state", False) or (path is not None and not path.is_root))


def release(session: Session, engine: Engine) -> None:
    """Take the connection of *engine* out of the session's transaction and give it back to its pool.

    SQLAlchemy has no call for that: a transaction of a session keeps every connection until its end. A savepoint
    holds on to them too, so then it stays.
    """
    transaction = session.get_transaction()
    held: dict[Any, Any] = getattr(transaction, "_connections", {})
    if engine not in held or session.in_nested_transaction():
        return
    connection, opened, *_ = held.pop(engine)
    held.pop(connection, None)
    try:
        opened.close()
        connection.close()
    except Exception:
        logger.debug("a replica's connection could not be given back; it is dropped", exc_info=True)
        connection.invalidate()


def settle(session: Session) -> None:
    """Forget what unchanged objects hold, and hold changed ones against the primary, whose rows are locked.

    StaleDataError for an object whose row has changed since the replica's copy was made: to write what was
    computed from it would undo that change.
    """
    changed = [*session.dirty, *session.deleted]
    for one in list(session.identity_map.values()):
        if not session.is_modified(one) and one not in session.deleted:
            session.expire(one)
    with session.no_autoflush:
        for one in changed:
            if session.is_modified(one) or one in session.deleted:
                _compare(session, one)


def _compare(session: Session, changed: Any) -> None:
    state: InstanceState[Any] = inspect(changed)
    mapper = state.mapper
    loaded = {**state.dict, **state.committed_state}
    names = [attribute.key for attribute in mapper.column_attrs if attribute.key in loaded]
    columns = [getattr(mapper.class_, name) for name in names]
    if not columns or state.identity is None:
        return
    keys = zip(mapper.primary_key, state.identity, strict=True)
    query = select(*columns).where(*(column == value for column, value in keys)).with_for_update()
    row = session.execute(query).first()
    if row is None:
        raise StaleDataError(f"{mapper.class_.__name__} {state.identity} was read from a replica and is deleted.")
    for name, value in zip(names, row, strict=True):
        if loaded[name] in _UNKNOWN or loaded[name] != value:
            raise StaleDataError(
                f"{mapper.class_.__name__} {state.identity} was read from a replica, and its {name} has changed "
                "since, or cannot be compared. Read it from the primary before you change it: prod.db.primary()."
            )
