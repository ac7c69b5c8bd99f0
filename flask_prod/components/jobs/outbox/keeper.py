"""Jobs written to a table first, in the caller's own transaction: what is rolled back was never dispatched."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa
from sqlalchemy import event
from sqlalchemy.exc import OperationalError, ProgrammingError, SQLAlchemyError
from sqlalchemy.orm import Session

from flask_prod.core.errors import Unavailable

from ..dispatch.accept import Answer, Keeper, Order
from .table import Outbox, row_of

if TYPE_CHECKING:
    from rq.job import Job

    from ..dispatch.accept import Slot

logger = logging.getLogger(__name__)

_PENDING = "flask_prod_jobs_pending"
"""Where a session remembers the names of the jobs that wait for its commit."""

_AT_ONCE = 500
"""Rows written by one statement."""


class OutboxKeeper:
    """Keeps jobs in the outbox, always or when *inner* is away; a relay or a worker finds them there.

    Without *inner* there is no Redis: workers take jobs from the table.
    """

    batch = _AT_ONCE

    def __init__(self, outbox: Outbox, inner: Keeper | None, mode: str) -> None:
        self._outbox = outbox
        self._inner = inner
        self._always = mode == "always"
        self.wake: Callable[[], None] = lambda: None
        """Called when rows were committed."""

    def accept(self, orders: Sequence[Order]) -> list[Answer]:
        """Keep each job in the caller's transaction, in Redis, or in a transaction of its own, as the mode says.

        Unavailable when the database is away, too.
        """
        session = orders[0].session
        if orders[0].slot is not None and self._inner is not None:
            return self._inner.accept(orders)  # the clock's leader has no transaction, and asks again by itself
        if session is None and self._always and orders[0].slot is None:
            session = self._outbox.session
            if session is None:
                return self._write_apart(orders)
        if session is not None:
            return self._write(session, orders)
        if self._inner is not None:
            try:
                return self._accept_by(self._inner, orders)
            except Unavailable as error:
                logger.warning("%s goes to the outbox: %s", orders[0].job.func_name, error)
        return self._write_apart(orders)

    def _accept_by(self, inner: Keeper, orders: Sequence[Order]) -> list[Answer]:
        answers: list[Answer] = []
        for start in range(0, len(orders), inner.batch):
            try:
                answers += inner.accept(orders[start : start + inner.batch])
            except Unavailable:
                if not answers:
                    raise
                return answers + self._write_apart(orders[start:])
        return answers

    def _write(self, session: Session, orders: Sequence[Order]) -> list[Answer]:
        """Write rows in a session's transaction."""
        if session.get_bind().engine.url != self._outbox.engine.url:
            raise ValueError(
                "The session given to within() is one of another database than DATABASE_URL; the relay would not "
                "see the job there."
            )
        self._watch(session)
        session.info.setdefault(_PENDING, []).extend(str(order.job.func_name) for order in orders)
        return self._insert(session, orders)

    def _write_apart(self, orders: Sequence[Order]) -> list[Answer]:
        """Write rows at once, whatever becomes of the caller's transaction.

        On SQLite a transaction that has written holds the only lock, so there the rows go into that one.
        """
        session = self._writing_session()
        if session is not None:
            return self._write(session, orders)
        try:
            with self._outbox.engine.begin() as connection:
                answers = self._insert(connection, orders)
        except SQLAlchemyError as error:
            raise Unavailable(f"The outbox cannot be written: {type(error).__name__}") from error
        self.wake()
        return answers

    def _writing_session(self) -> Session | None:
        from flask import has_app_context

        if self._outbox.engine.dialect.name != "sqlite" or not has_app_context():
            return None
        session = self._outbox.session
        if session is None or not session.in_transaction():
            return None
        driver: Any = session.connection().connection.dbapi_connection
        return session if driver.in_transaction else None

    def _insert(self, target: Session | sa.Connection, orders: Sequence[Order]) -> list[Answer]:
        answers = self._look_for_others(target, orders)
        rows = [row_of(order) for order, answer in zip(orders, answers, strict=True) if answer.kind == "accepted"]
        try:
            if rows:
                target.execute(sa.insert(self._outbox.table), rows)
        except (ProgrammingError, OperationalError) as error:
            raise Unavailable(_explain(self._outbox.table.name, error)) from error
        return answers

    def _look_for_others(self, _target: Session | sa.Connection, orders: Sequence[Order]) -> list[Answer]:
        """Return what becomes of each order; whether a unique one is there already, Redis says in the end."""
        return [Answer("accepted", order.job.id) for order in orders]

    def _watch(self, session: Session) -> None:
        """Be told of the end of a session's transaction."""
        if _PENDING not in session.info:
            session.info[_PENDING] = []
            event.listen(session, "after_commit", self._committed)
            event.listen(session, "after_rollback", _rolled_back)
            event.listen(session, "after_transaction_end", _ended)

    def _committed(self, session: Session) -> None:
        if session.info.get(_PENDING) and not session.in_nested_transaction():
            session.info[_PENDING] = []
            self.wake()

    # What only Redis can do

    def ready(self, name: str) -> None:
        """Be ready: where Redis is away, the table takes the job *name*."""

    def keep_meta(self, job: Job) -> None:
        """Write down `job.meta`."""
        self._redis.keep_meta(job)

    def slots(self) -> dict[str, int]:
        """Return the last slot of each schedule that had one."""
        return self._redis.slots()

    def pass_slot(self, slot: Slot) -> None:
        """Note that a slot has gone by without a job."""
        self._redis.pass_slot(slot)

    def leads(self, seconds: float) -> bool:
        """Take or keep the lead over all workers for so long."""
        return self._redis.leads(seconds)

    def resign(self) -> None:
        """Give the lead up."""
        self._redis.resign()

    @property
    def _redis(self) -> Keeper:
        assert self._inner is not None
        return self._inner


def _rolled_back(session: Session) -> None:
    if not session.in_nested_transaction():
        session.info[_PENDING] = []


def _ended(session: Session, transaction: Any) -> None:
    """Say loudly that jobs were dispatched and nobody committed: they are gone."""
    if transaction.parent is not None:
        return
    names, session.info[_PENDING] = session.info.get(_PENDING) or [], []
    if names:
        logger.error(
            "%d jobs were dispatched in a transaction that was neither committed nor rolled back, so they do not "
            "run: %s; commit after the dispatch",
            len(names),
            ", ".join(sorted(set(names))),
        )


def _explain(table: str, error: SQLAlchemyError) -> str:
    text = str(getattr(error, "orig", error)).lower()
    if "no such table" in text or "does not exist" in text or "doesn't exist" in text:
        return f"The outbox's table {table} does not exist: run `flask prod jobs outbox create`, or migrate."
    return f"The outbox cannot be written: {type(error).__name__}"
