"""What jobs in the table look like to those who watch, and which workers live that take them."""

from __future__ import annotations

import hashlib
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import msgspec
import sqlalchemy as sa
from sqlalchemy.exc import SQLAlchemyError

from flask_prod.core.errors import Unavailable

from ..delivery.source import Presence
from ..operations.watch import QueueState
from .table import DEAD, NOTE, RUNNING, WAITING, Outbox, empty_row

_WORKERS = "workers:"
"""What the ids of notes about living workers begin with."""

_FORGOTTEN = 3600.0
"""Seconds after which the note of a supervisor that was killed is deleted."""


@contextmanager
def unavailable() -> Iterator[None]:
    """Say in the kit's words that the table cannot be read or written."""
    try:
        yield
    except SQLAlchemyError as error:
        raise Unavailable(f"The jobs in the database cannot be seen: {type(error).__name__}.") from error


def overview(outbox: Outbox, queues: Sequence[str]) -> list[QueueState]:
    """Return the state of each of these queues; Unavailable when the database is."""
    with unavailable(), outbox.engine.connect() as connection:
        counts = _counts(connection, outbox.table)
        workers = _workers(connection, outbox.table)
    return [_state(queue, counts.get(queue, {}), workers.get(queue, ())) for queue in queues]


def note_presence(
    outbox: Outbox, name: str, queues: Iterable[str], living: Sequence[Presence], until: float
) -> None:
    """Write down the workers of one supervisor, or that it has none any more."""
    table, job_id = outbox.table, _WORKERS + hashlib.sha256(name.encode()).hexdigest()[:32]
    body = msgspec.json.encode({"queues": [*queues], "states": [one.state for one in living]}).decode()
    with outbox.engine.begin() as connection:
        if not living:
            connection.execute(sa.delete(table).where(table.c.job_id == job_id))
            return
        changes = {"body": body, "lease": until}
        if not connection.execute(sa.update(table).where(table.c.job_id == job_id).values(changes)).rowcount:
            connection.execute(sa.insert(table), empty_row(job_id, NOTE) | changes)


def long_gone(table: sa.Table, moment: float) -> sa.ColumnElement[bool]:
    """Return which notes are of supervisors that nobody has heard of for long."""
    return sa.and_(
        table.c.status == NOTE, table.c.job_id.startswith(_WORKERS), table.c.lease < moment - _FORGOTTEN
    )


def _counts(connection: sa.Connection, table: sa.Table) -> dict[str, dict[str, tuple[int, float]]]:
    """Return by queue and state how many there are, and when the first of them could have run."""
    moment = time.time()
    began = sa.case((table.c.due > table.c.created, table.c.due), else_=table.c.created)
    state = sa.case(
        (sa.and_(table.c.status == WAITING, table.c.due > moment), "scheduled"), else_=table.c.status
    ).label("state")
    alive = table.c.status.in_((WAITING, RUNNING, DEAD))
    query = sa.select(table.c.queue, state, sa.func.count(), sa.func.min(began)).where(alive)
    found: dict[str, dict[str, tuple[int, float]]] = {}
    for queue, name, count, first in connection.execute(query.group_by(table.c.queue, state)):
        found.setdefault(queue, {})[name] = (count, max(0.0, moment - first))
    return found


def _workers(connection: sa.Connection, table: sa.Table) -> dict[str, list[str]]:
    """Return what the living workers of each queue do."""
    mine = (table.c.status == NOTE, table.c.job_id.startswith(_WORKERS), table.c.lease >= time.time())
    found: dict[str, list[str]] = {}
    for body in connection.scalars(sa.select(table.c.body).where(*mine)):
        note: dict[str, Any] = msgspec.json.decode(body)
        for queue in note["queues"]:
            found.setdefault(queue, []).extend(note["states"])
    return found


def _state(queue: str, counts: Mapping[str, tuple[int, float]], workers: Sequence[str]) -> QueueState:
    nothing = (0, 0.0)
    waiting, oldest = counts.get(WAITING, nothing)
    return QueueState(
        queue=queue,
        waiting=waiting,
        scheduled=counts.get("scheduled", nothing)[0],
        running=counts.get(RUNNING, nothing)[0],
        failed=counts.get(DEAD, nothing)[0],
        workers=len(workers),
        oldest=round(oldest, 1),
        states=dict(Counter(workers)),
    )
