"""Jobs from a table, without Redis: what `delivery.source.Source` promises, for small installations.

PostgreSQL and MySQL skip rows that another worker has locked; SQLite has one writer at a time, which waits.
"""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa
from rq.job import JobStatus
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session

from flask_prod.core.errors import Unavailable

from ..delivery.source import (
    Again,
    Dead,
    Delivery,
    Fate,
    Finished,
    Orders,
    Outcome,
    Presence,
    Released,
    SourceAway,
    Untold,
)
from ..dispatch.accept import Answer, Order, Slot
from ..memory import job_from
from .keeper import OutboxKeeper
from .overview import long_gone, note_presence, unavailable
from .table import DEAD, FINISHED, FRONT, NOTE, RUNNING, WAITING, Outbox, as_dict, changed, empty_row, fields_of

if TYPE_CHECKING:
    from rq.job import Job

    from ..engine import Engine

INTERRUPTED = FRONT - 1
"""The rank of a job that was interrupted: before all others."""

_LEAD = "jobs:lead"


class DatabaseKeeper(OutboxKeeper):
    """Keeps jobs in the table, from which workers take them."""

    def __init__(self, outbox: Outbox, mode: str) -> None:
        super().__init__(outbox, None, mode)
        self._token = os.urandom(16).hex()

    def _look_for_others(self, target: Session | sa.Connection, orders: Sequence[Order]) -> list[Answer]:
        return [self._look_for_another(target, order) for order in orders]

    def _look_for_another(self, target: Session | sa.Connection, order: Order) -> Answer:
        """Return "taken" when a slot has its job, or a unique one is there: the order's job is that one."""
        job, claim, table = order.job, order.claim, self._outbox.table
        if order.after or order.group or job.has_rate_limit:
            raise ValueError(f"{job.func_name}: jobs that run after others, groups and limits need a REDIS_URL")
        there = None
        if order.slot is not None:
            there = target.execute(sa.select(table.c.job_id).where(table.c.job_id == job.id)).scalar()
            _note(target, table, order.slot)
        elif claim is not None:
            states = (WAITING,) if claim.until == "started" else (WAITING, RUNNING)
            mine = (table.c.claim == claim.key[:255], table.c.status.in_(states))
            there = target.execute(sa.select(table.c.job_id).where(*mine).limit(1)).scalar()
        if there is None:
            return Answer("accepted", job.id)
        job._id = there
        return Answer("taken", there)

    def keep_meta(self, job: Job) -> None:
        """Keep nothing: what a job says of its progress is for Redis alone."""

    def slots(self) -> dict[str, int]:
        """Return the last slot of each schedule that had one."""
        table = self._outbox.table
        query = sa.select(table.c.job, table.c.moved).where(table.c.status == NOTE, table.c.job != "")
        with unavailable(), self._outbox.engine.connect() as connection:
            return {row.job: int(row.moved) for row in connection.execute(query)}

    def pass_slot(self, slot: Slot) -> None:
        """Note that a slot has gone by without a job."""
        with self._outbox.engine.begin() as connection:
            _note(connection, self._outbox.table, slot)

    def leads(self, seconds: float) -> bool:
        """Take or keep the lead over all workers for so long."""
        table, moment = self._outbox.table, time.time()
        free = sa.or_(table.c.token == self._token, table.c.lease < moment)
        try:
            with self._outbox.engine.begin() as connection:
                if connection.execute(sa.select(table.c.id).where(table.c.job_id == _LEAD)).first() is None:
                    connection.execute(sa.insert(table), empty_row(_LEAD, NOTE))
                changes = {"token": self._token, "lease": moment + seconds}
                taken = connection.execute(sa.update(table).where(table.c.job_id == _LEAD, free).values(changes))
                return taken.rowcount > 0
        except SQLAlchemyError as error:
            raise Unavailable(f"The lead cannot be taken: {type(error).__name__}") from error

    def resign(self) -> None:
        """Give the lead up."""
        table = self._outbox.table
        mine = (table.c.job_id == _LEAD, table.c.token == self._token)
        with self._outbox.engine.begin() as connection:
            connection.execute(sa.update(table).where(*mine).values(lease=0.0))


class DatabaseSource:
    """The jobs of one application in its table."""

    def __init__(self, engine: Engine, outbox: Outbox, worker: str, queues: Sequence[str]) -> None:
        self._engine = engine
        self._worker = worker
        self._queues = queues
        self._outbox = outbox
        self._table = outbox.table
        self._lease = 3 * engine.heartbeat
        self._cleaned_at = self._hold = 0.0

    # In a child

    def take(self, queues: Sequence[str], token: str) -> Delivery | None:
        """Take the first job of the first of these queues that has one."""
        table, moment = self._table, time.time()
        for queue in queues:
            due = (table.c.status == WAITING, table.c.queue == queue, table.c.due <= moment)
            query = sa.select(table).where(*due).order_by(table.c.place, table.c.id).limit(1)
            with self._away():
                with self._outbox.engine.connect() as connection:
                    if connection.execute(query.with_only_columns(table.c.id)).first() is None:
                        continue  # SQLite has one lock for all: it is not taken to find nothing
                with self._outbox.engine.begin() as connection:
                    row = connection.execute(query.with_for_update(skip_locked=True)).first()
                    if row is None:
                        continue
                    changes = {"status": RUNNING, "token": token, "lease": moment + self._lease, "moved": moment}
                    connection.execute(sa.update(table).where(table.c.id == row.id).values(changes))
            return self._delivery(as_dict(row), queue, token)
        return None

    def settle(
        self, delivery: Delivery, outcome: Outcome, queues: Sequence[str] = (), token: str = ""
    ) -> tuple[bool, Delivery | None]:
        """Write down how an attempt ended, then take the next job."""
        table = self._table
        mine = (table.c.job_id == delivery.job.id, table.c.token == delivery.token, table.c.status == RUNNING)
        with self._away(), self._outbox.engine.begin() as connection:
            row = connection.execute(sa.select(table).where(*mine).with_for_update()).first()
            if row is not None:
                changes = _ending(as_dict(row), delivery.job, outcome)
                connection.execute(sa.update(table).where(table.c.id == row.id).values(changes))
        return row is not None, self.take(queues, token) if queues else None

    def wait(self, queues: Sequence[str], seconds: float) -> None:
        """Return after a moment: a table cannot call."""
        time.sleep(min(seconds, self._engine.settings.outbox_interval))

    def tell(self) -> Iterator[Untold]:
        """Claim dead jobs of which nobody has told."""
        table = self._table
        with self._away(), self._outbox.engine.connect() as connection:
            query = sa.select(table).where(table.c.status == DEAD, table.c.told == 0).limit(100)
            rows = connection.execute(query).all()
        for row in rows:
            with self._away(), self._outbox.engine.begin() as connection:
                update = sa.update(table).where(table.c.id == row.id, table.c.told == 0).values(told=1)
                claimed = connection.execute(update).rowcount
            if claimed:
                yield Untold(self._job(as_dict(row)), row.error, row.reason)

    # In the supervisor

    def orders(self) -> Orders:
        """Return what people have asked for: nothing, which needs a Redis."""
        return Orders()

    def beat(self, tokens: Sequence[str]) -> list[tuple[str, str]]:
        """Prolong the leases of these attempts; return the id and the token of those that run."""
        table = self._table
        if not tokens:
            return []
        mine = (table.c.status == RUNNING, table.c.token.in_(tokens))
        with self._away():
            with self._outbox.engine.connect() as connection:
                query = sa.select(table.c.job_id, table.c.token, table.c.lease).where(*mine)
                found = connection.execute(query).all()
            if any(row.lease < time.time() + self._lease * 2 / 3 for row in found):
                with self._outbox.engine.begin() as connection:
                    connection.execute(sa.update(table).where(*mine).values(lease=time.time() + self._lease))
        return [(row.job_id, row.token) for row in found]

    def present(self, living: Sequence[Presence], gone: Sequence[str]) -> None:
        """Let `flask prod jobs`, the health check and the metrics see the workers, for three heartbeats."""
        supervisor = f"{self._worker}.{os.getpid()}"
        with self._away():
            note_presence(self._outbox, supervisor, self._queues, living, time.time() + self._lease)

    def lost(self, token: str, fate: Fate, why: str) -> list[tuple[str, str]]:
        """Give back what a dead process held; return the ids, and what became of each."""
        return self._give_back(self._table.c.token.startswith(token, autoescape=True), fate, why)

    def look_after(self) -> list[tuple[str, str]]:
        """Give back what lost its lease, forget what has expired."""
        moment = time.time()
        if moment - self._cleaned_at >= self._engine.heartbeat:
            self._cleaned_at = moment
            self._forget(moment)
        # After an outage whoever lives must have had the time to prolong its leases.
        if time.monotonic() < self._hold:
            return []
        return self._give_back(self._table.c.lease < moment, "crash", "The worker that ran it has gone.")

    def _give_back(self, whose: sa.ColumnElement[bool], fate: Fate, why: str) -> list[tuple[str, str]]:
        table, became = self._table, []
        query = sa.select(table).where(table.c.status == RUNNING, whose)
        with self._away():
            with self._outbox.engine.connect() as connection:
                if connection.execute(query.limit(1)).first() is None:
                    return []
            with self._outbox.engine.begin() as connection:
                for row in connection.execute(query.with_for_update(skip_locked=True)).all():
                    what, changes = self._returned(as_dict(row), fate, why)
                    connection.execute(sa.update(table).where(table.c.id == row.id).values(changes))
                    became.append((row.job_id, what))
        return became

    def _returned(self, row: Mapping[str, Any], fate: Fate, why: str) -> tuple[str, dict[str, Any]]:
        crashes = row["crashes"] + (fate == "crash")
        if fate == "stopped" or crashes >= self._engine.settings.max_crashes:
            error = "Stopped" if fate == "stopped" else "AbandonedJobError"
            gone = {"status": DEAD, "error": error, "reason": why, "told": 0, "crashes": crashes}
            return "stopped" if fate == "stopped" else "dead", gone | {"moved": time.time()}
        return fate, {"status": WAITING, "place": INTERRUPTED, "crashes": crashes, "token": ""}

    def _forget(self, moment: float) -> None:
        table, engine = self._table, self._engine
        done = sa.and_(table.c.status == FINISHED, table.c.moved < moment - engine.result_ttl)
        dead = sa.and_(table.c.status == DEAD, table.c.moved < moment - engine.failure_ttl)
        old = sa.or_(done, dead, long_gone(table, moment))
        with self._away():
            with self._outbox.engine.connect() as connection:
                if connection.execute(sa.select(table.c.id).where(old).limit(1)).first() is None:
                    return
            with self._outbox.engine.begin() as connection:
                connection.execute(sa.delete(table).where(old))

    def _delivery(self, row: Mapping[str, Any], queue: str, token: str) -> Delivery:
        try:
            job = job_from(self._engine, row["job_id"], fields_of(row))
            job._status = JobStatus.STARTED
        except Exception as error:
            unreadable = Dead(type(error).__name__, f"The record cannot be read: {error!r:.200}")
            return Delivery(self._nameless(row), queue, token, unreadable)
        return Delivery(job, queue, token)

    def _job(self, row: Mapping[str, Any]) -> Job:
        try:
            return job_from(self._engine, row["job_id"], fields_of(row))
        except Exception:
            return self._nameless(row)

    def _nameless(self, row: Mapping[str, Any]) -> Job:
        job = self._engine.job_class(connection=self._engine.redis.client("jobs"))
        job._id, job.origin = row["job_id"], self._engine.redis.key("") + row["queue"]
        return job

    @contextmanager
    def _away(self) -> Iterator[None]:
        """Say in the worker's words that the database cannot be reached."""
        try:
            yield
        except (SQLAlchemyError, OSError) as error:
            self._hold = time.monotonic() + self._lease
            raise SourceAway(
                f"The database: {type(error).__name__}: {getattr(error, 'orig', error)}"[:300]
            ) from error


def _ending(row: Mapping[str, Any], job: Job, outcome: Outcome) -> dict[str, Any]:
    """Return what changes in a row when an attempt ends."""
    moment = time.time()
    if isinstance(outcome, Finished):
        # The row stays as the marker of a finished job; what it carried is not needed any more.
        return {"status": FINISHED, "moved": moment, "token": "", "body": "", "claim": ""}
    if isinstance(outcome, Dead):
        return {"status": DEAD, "moved": moment, "error": outcome.error[:255], "reason": _clean(outcome.reason)}
    if isinstance(outcome, Released):
        return {"status": WAITING, "place": INTERRUPTED, "token": ""}
    assert isinstance(outcome, Again)
    spent: dict[str, Any] = {"retries_left": max(0, (job.retries_left or 0) - 1)}
    if outcome.asked:
        spent = {"number_of_retries": (job.number_of_retries or 0) + 1}
    again = {"status": WAITING, "place": 0, "token": "", "due": moment + outcome.seconds}
    return again | {"body": changed(row, **spent), "reason": _clean(outcome.reason)}


def _note(target: Session | sa.Connection, table: sa.Table, slot: Slot) -> None:
    """Write down the last slot of a schedule, unless a later one stands there."""
    job_id = "slot:" + hashlib.sha256(slot.schedule.encode()).hexdigest()[:32]
    there = target.execute(sa.select(table.c.moved).where(table.c.job_id == job_id)).scalar()
    moved = float(slot.moment)
    if there is None:
        target.execute(sa.insert(table), empty_row(job_id, NOTE) | {"job": slot.schedule[:255], "moved": moved})
    elif there < moved:
        target.execute(sa.update(table).where(table.c.job_id == job_id).values(moved=moved))


def _clean(text: str) -> str:
    """Return *text* as PostgreSQL can store it."""
    return text.replace("\0", "\N{REPLACEMENT CHARACTER}").encode(errors="replace").decode()
