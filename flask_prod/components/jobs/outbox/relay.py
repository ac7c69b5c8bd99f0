"""From the outbox to Redis: one process of all relays, in the order of the table.

A row stays for JOBS_OUTBOX_KEEP after it was sent, with the run id of the Redis that took it: one that was killed
may have lost its last second, and a replica that took over what it had not seen yet. Whatever was sent to another
run than that which answers now is sent once more; a job that is there already is not stored twice.
"""

from __future__ import annotations

import hashlib
import logging
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa

from flask_prod.core.component import Finding
from flask_prod.core.errors import Unavailable

from .table import DEAD, SENT, WAITING, Outbox, as_dict, order_of

if TYPE_CHECKING:
    from flask_prod.core.ports import GaugePort, RedisPort

    from ..dispatch.accept import Keeper, Order
    from ..engine import Engine

logger = logging.getLogger(__name__)

LEASE = 12.0
"""Seconds after which another process takes over from a leader that was killed."""

_LOCK = "jobs:relay"
_BATCH = 200
_SMALLEST = 10
"""Jobs sent in one round trip: fewer after one that a busy machine did not end within its time limit."""

_MEASURED_EVERY = 5.0
"""Seconds between two counts of what waits."""

_LONGEST_ERROR = 200


class Relay:
    """The thread of one process; of all these, the one that holds a lock in Redis sends."""

    def __init__(
        self, engine: Engine, outbox: Outbox, keeper: Keeper, gauges: tuple[GaugePort, GaugePort]
    ) -> None:
        self._engine = engine
        self._redis: RedisPort = engine.redis
        self._outbox = outbox
        self._keeper = keeper
        self._depth, self._age = gauges
        self._wake = threading.Event()
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None
        self._lead = ""
        self._kept_at = self._measured_at = 0.0
        self._failing = False
        self._size = _BATCH

    def start(self) -> None:
        """Start the thread of this process."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="flask-prod-outbox", daemon=True)
            self._thread.start()

    def wake(self) -> None:
        """Let the thread look at once: something was committed."""
        self._wake.set()

    def after_fork(self) -> None:
        """Begin anew in a child, without the parent's lead."""
        self._wake, self._stopping = threading.Event(), threading.Event()
        self._thread, self._lead = None, ""

    def close(self) -> None:
        """End the thread, and let another process lead at once."""
        self._stopping.set()
        self._wake.set()
        if self._thread is not None and self._thread is not threading.current_thread():
            self._thread.join(2.0)
        self._thread = None
        if self._lead:
            with suppress(Unavailable):
                self._redis.unlock(_LOCK, self._lead)
            self._lead = ""

    def _run(self) -> None:
        while not self._stopping.is_set():
            self._wake.wait(self._engine.settings.outbox_interval)
            self._wake.clear()
            if not self._stopping.is_set():
                self._step()

    def _step(self) -> None:
        """Do what is due; an outage is logged once."""
        try:
            self._measure()
            if self._leads():
                self.relay()
        except Exception as error:
            self._size = max(_SMALLEST, self._size // 4)
            if not self._failing:
                stack = None if isinstance(error, Unavailable | sa.exc.SQLAlchemyError) else error
                logger.warning("The outbox waits: %s", str(error)[:_LONGEST_ERROR], exc_info=stack)
            self._failing = True
        else:
            if self._failing:
                logger.warning("The outbox is relayed again")
            self._failing = False

    def relay(self) -> int:
        """Send all that waits, and once more what another run of Redis was sent; return how many were sent."""
        run, sent = self._run_id(), 0
        while not self._stopping.is_set():
            rows = self._waiting()
            if not rows:
                break
            self._send(rows, run)
            sent += len(rows)
            self._size = min(_BATCH, self._size * 2)
            if not self._leads():
                return sent
        sent += self._send_again(run)
        if sent:
            self._measured_at = 0.0
            self._measure()
        return sent

    def _leads(self) -> bool:
        """Take or keep the lead; Unavailable when Redis is away."""
        moment = time.monotonic()
        if self._lead and moment - self._kept_at < LEASE / 4:
            return True
        if not self._lead or not self._redis.prolong(_LOCK, self._lead, LEASE):
            self._lead = self._redis.lock(_LOCK, LEASE) or ""
        self._kept_at = moment
        return bool(self._lead)

    def _run_id(self) -> str:
        """Return the name of the run of Redis that answers now; asked for before jobs are sent to it."""
        found: Any = self._redis.attempt(lambda client: client.info("server"), "INFO")
        if "run_id" in found:
            return str(found["run_id"])
        nodes = sorted(str(node.get("run_id")) for node in found.values() if isinstance(node, dict))
        return hashlib.sha256(" ".join(nodes).encode()).hexdigest()[:40]

    def _waiting(self) -> list[Mapping[str, Any]]:
        table = self._outbox.table
        query = sa.select(table).where(table.c.status == WAITING).order_by(table.c.id).limit(self._size)
        with self._outbox.engine.connect() as connection:
            return [as_dict(row) for row in connection.execute(query)]

    def _send(self, rows: Sequence[Mapping[str, Any]], run: str) -> None:
        """Send rows in their order, and note it; one that cannot be sent is dead, and holds nobody up."""
        orders: dict[str, Order] = {}
        broken: dict[str, str] = {}
        for row in rows:
            try:
                orders[row["job_id"]] = order_of(self._engine, row)
            except Exception as error:
                broken[row["job_id"]] = f"The row cannot be read: {error!r}"[:_LONGEST_ERROR]
        answers = self._keeper.accept(list(orders.values())) if orders else []
        for job_id, answer in zip(orders, answers, strict=True):
            if answer.kind == "missing":
                broken[job_id] = f"There is no job {answer.job_id!r} to run after."
        taken = [row["id"] for row in rows if row["job_id"] not in broken]
        table = self._outbox.table
        with self._outbox.engine.begin() as connection:
            if taken:
                changes = {"status": SENT, "sent_to": run, "moved": time.time()}
                connection.execute(sa.update(table).where(table.c.id.in_(taken)).values(changes))
            for job_id, reason in broken.items():
                logger.error("Job %s of the outbox is dead: %s", job_id, reason)
                gone = {"status": DEAD, "error": "NotSent", "reason": reason, "moved": time.time(), "told": 1}
                connection.execute(sa.update(table).where(table.c.job_id == job_id).values(gone))

    def _send_again(self, run: str) -> int:
        """Send what another run of Redis was sent a short while ago, and forget what is older."""
        table, sent = self._outbox.table, 0
        long_ago = time.time() - self._engine.settings.outbox_keep
        while not self._stopping.is_set():
            mine = (table.c.status == SENT, table.c.sent_to != run, table.c.moved >= long_ago)
            with self._outbox.engine.connect() as connection:
                query = sa.select(table).where(*mine).order_by(table.c.id).limit(self._size)
                rows = [as_dict(row) for row in connection.execute(query)]
            if not rows:
                break
            logger.warning("Redis was restarted: %d jobs of the outbox are sent once more", len(rows))
            self._send(rows, run)
            sent += len(rows)
        self._forget(long_ago)
        return sent

    def _forget(self, long_ago: float) -> None:
        table = self._outbox.table
        old = (table.c.status == SENT, table.c.moved < long_ago)
        with self._outbox.engine.connect() as connection:
            some = connection.execute(sa.select(table.c.id).where(*old).limit(1)).first()
        if some is not None:  # SQLite has one writer at a time: nobody waits for a deletion of nothing
            with self._outbox.engine.begin() as connection:
                connection.execute(sa.delete(table).where(*old))

    def _measure(self) -> None:
        """Tell how many wait, and for how long."""
        if time.monotonic() - self._measured_at >= _MEASURED_EVERY:
            self._measured_at = time.monotonic()
            depth, age = waiting(self._outbox)
            self._depth.set(depth)
            self._age.set(age)


def waiting(outbox: Outbox) -> tuple[int, float]:
    """Return how many jobs wait in the outbox, and the seconds since the oldest was dispatched, or due."""
    table = outbox.table
    began = sa.case((table.c.due > table.c.created, table.c.due), else_=table.c.created)
    query = sa.select(sa.func.count(), sa.func.min(began)).where(table.c.status == WAITING)
    with outbox.engine.connect() as connection:
        depth, oldest = connection.execute(query).one()
    return depth, 0.0 if oldest is None else max(0.0, time.time() - oldest)


def look(outbox: Outbox, longest: float) -> Finding:
    """Return what the health check tells of the outbox."""
    try:
        depth, age = waiting(outbox)
    except sa.exc.SQLAlchemyError as error:
        text = str(getattr(error, "orig", error)).lower()
        if "no such table" in text or "exist" in text:
            return Finding(
                "fail", f"The table {outbox.table.name} does not exist: run `flask prod jobs outbox create`."
            )
        return Finding("fail", f"The outbox cannot be read: {type(error).__name__}.")
    data = {"depth": depth, "age_seconds": round(age, 1)}
    if age > longest:
        return Finding("warn", f"Jobs have waited in the outbox for {age:.0f} s: does Redis answer?", data)
    return Finding(data=data)
