"""Jobs in this process's memory, for tests and development: in a thread, in their order, or in the dispatch."""

from __future__ import annotations

import heapq
import itertools
import logging
import threading
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar

from flask_prod.core.errors import Unavailable

from .dispatch.accept import Answer, Order, Slot
from .tasks.retries import next_attempt

if TYPE_CHECKING:
    from rq.job import Job

    from flask_prod.core.ports import ListenerPort, RedisPort

    from .engine import Engine

logger = logging.getLogger(__name__)

ResultT = TypeVar("ResultT")

_GOODBYE = 2.0
"""Seconds that the end of the process waits for the job that runs just then."""


class NoServer:
    """Stands in for the Redis of jobs that do without: names keys, and says of all else that there is none."""

    configured = degraded = watchable = False

    def __init__(self, redis: RedisPort) -> None:
        self._redis = redis

    def key(self, *parts: str) -> str:
        """Return a key in this service's namespace."""
        return self._redis.key(*parts)

    def client(self, purpose: str = "request") -> Any:
        """Return a client for RQ's classes to hold; each of its commands raises Unavailable."""
        import redis

        client = redis.Redis()
        client.execute_command = _refuse  # type: ignore[method-assign]
        return client

    def attempt(self, call: Callable[[Any], ResultT], name: str = "call") -> ResultT:
        """Raise Unavailable."""
        _refuse()

    def ask(self, *command: str | bytes | int | float) -> Any:
        """Raise Unavailable."""
        _refuse()

    def pipeline(self, commands: Any) -> list[Any]:
        """Raise Unavailable."""
        _refuse()

    def lock(self, name: str, seconds: float) -> str | None:
        """Raise Unavailable."""
        _refuse()

    def unlock(self, name: str, token: str) -> bool:
        """Raise Unavailable."""
        _refuse()

    def prolong(self, name: str, token: str, seconds: float) -> bool:
        """Raise Unavailable."""
        _refuse()

    def listen(self, channel: str, on_message: Any, on_lost: Callable[[], None]) -> ListenerPort:
        """Raise Unavailable."""
        _refuse()

    def watch(self, prefix: str, on_change: Any, on_lost: Callable[[], None]) -> ListenerPort:
        """Raise Unavailable."""
        _refuse()


class EagerKeeper:
    """Runs each job within its dispatch, once; what it raises, the dispatch raises."""

    batch = 1

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._slots: dict[str, int] = {}

    def accept(self, orders: Sequence[Order]) -> list[Answer]:
        """Run each job as a worker would: with its arguments as they were stored, in a context of its own."""
        for order in orders:
            order.job._result = job_from(self._engine, order.job.id, order.fields).perform()
            self._engine.counts.finished.inc(order.queue, order.job.func_name)
        return [Answer("accepted", order.job.id) for order in orders]

    def ready(self, name: str) -> None:
        """Be ready: memory is always there for the job *name*."""

    def keep_meta(self, job: Job) -> None:
        """Keep nothing: the job is over before anybody could ask."""

    def slots(self) -> dict[str, int]:
        """Return the slots that have gone by."""
        return self._slots

    def pass_slot(self, slot: Slot) -> None:
        """Note that a slot has gone by."""
        self._slots[slot.schedule] = slot.moment

    def leads(self, seconds: float) -> bool:
        """Lead: there is no other process."""
        return True

    def resign(self) -> None:
        """Do nothing: nobody waits for the lead."""

    def after_fork(self) -> None:
        """Do nothing: no job waits."""

    def close(self) -> None:
        """Do nothing: no thread runs."""


class MemoryKeeper(EagerKeeper):
    """Runs jobs one after the other in a thread, which starts with the first; they end with the process."""

    batch = 1000

    def __init__(self, engine: Engine) -> None:
        super().__init__(engine)
        self._begin()

    def _begin(self) -> None:
        self._changed = threading.Condition()
        self._waiting: list[tuple[float, int, Job, str]] = []
        self._claims: dict[str, str] = {}
        self._number = itertools.count()
        self._thread: threading.Thread | None = None
        self._busy = self._stopping = False

    def accept(self, orders: Sequence[Order]) -> list[Answer]:
        """Put jobs at the end of the line."""
        for order in orders:
            if order.after or order.group:
                raise ValueError(
                    f"{order.job.func_name}: jobs that run after others, and groups, need a REDIS_URL"
                )
        with self._changed:
            answers = [self._accept(order) for order in orders]
            if self._thread is None:
                self._stopping = False
                self._thread = threading.Thread(target=self._run, name="flask-prod-jobs", daemon=True)
                self._thread.start()
            self._changed.notify_all()
        return answers

    def _accept(self, order: Order) -> Answer:
        job, claim = order.job, order.claim
        if claim is not None:
            holder = self._claims.setdefault(claim.key, job.id)
            if holder != job.id:
                job._id = holder
                return Answer("taken", holder)
        made = job_from(self._engine, job.id, order.fields)
        due = 0.0 if order.due is None else order.due.timestamp()
        number = next(self._number)
        heapq.heappush(self._waiting, (due, -number if order.front else number, made, order.queue))
        return Answer("accepted", job.id)

    def join(self, seconds: float = 10.0) -> bool:
        """Wait until no job is due or running; false when that takes longer. For tests."""

        def idle() -> bool:
            return not self._busy and not (self._waiting and self._waiting[0][0] <= time.time())

        with self._changed:
            return self._changed.wait_for(idle, seconds)

    def _run(self) -> None:
        while True:
            with self._changed:
                self._busy = False
                self._changed.notify_all()
                while not self._stopping and not (self._waiting and self._waiting[0][0] <= time.time()):
                    self._changed.wait(max(0.01, self._waiting[0][0] - time.time()) if self._waiting else None)
                if self._stopping:
                    return
                _, _, job, queue = heapq.heappop(self._waiting)
                self._busy = True
            self._attempt(job, queue)

    def _attempt(self, job: Job, queue: str) -> None:
        """Run a job as a worker would, without a time limit: only a main thread can have one."""
        try:
            job.perform()
        except BaseException as error:  # a job that calls sys.exit ends its attempt, not the thread
            seconds = next_attempt(job, error)
            if seconds is not None:
                job.retries_left = max(0, (job.retries_left or 0) - 1)
                with self._changed:
                    heapq.heappush(self._waiting, (time.time() + seconds, next(self._number), job, queue))
                return
            self._engine.give_up(job, type(error).__name__, "".join(traceback.format_exception(error)))
        else:
            self._engine.counts.finished.inc(queue, job.func_name)
        with self._changed:
            self._claims = {key: holder for key, holder in self._claims.items() if holder != job.id}

    def after_fork(self) -> None:
        """Begin anew in a child: the parent runs its own jobs."""
        self._begin()

    def close(self) -> None:
        """End the thread after the job that runs; what waits is lost with the process, and that is said."""
        with self._changed:
            self._stopping = True
            left = len(self._waiting)
            self._changed.notify_all()
        if self._thread is not None and self._thread is not threading.current_thread():
            self._thread.join(_GOODBYE)
        if left:
            logger.warning("%d jobs in memory end with their process: JOBS_BACKEND=memory keeps nothing", left)


def job_from(engine: Engine, job_id: str, fields: Mapping[str, Any]) -> Job:
    """Return RQ's job made of its record, as it would be read from Redis."""
    job = engine.job_class(connection=engine.redis.client("jobs"))
    job._id = job_id
    record = {name.encode(): _encoded(value) for name, value in fields.items() if value is not None}
    job.restore(record)
    return job


def _encoded(value: Any) -> bytes:
    """Return a field as Redis would give it back."""
    return value if isinstance(value, bytes) else str(getattr(value, "value", value)).encode()


def _refuse(*_: Any, **__: Any) -> NoReturn:
    raise Unavailable("There is no REDIS_URL: this can be done with a Redis only.")
