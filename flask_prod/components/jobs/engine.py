"""The jobs of one application: what accepts them, looks at them, and says when one is dead."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from rq.defaults import RQ_KEY_PREFIX
from rq.job import Job
from rq.queue import Queue
from rq.utils import now, utcformat

from flask_prod.core.component import Event, Installed
from flask_prod.core.ports import RedisPort

from .dispatch.accept import RedisKeeper
from .dispatch.desk import Call, Desk
from .dispatch.job import AppQueue, bind, in_request_of, label_of
from .dispatch.payload import JsonSerializer
from .operations.office import Office
from .operations.ping import PING
from .operations.watch import Counts, QueueState, overview, set_gauges
from .redis_store.scripts import ENQUEUE_DUE, records_of
from .settings import weights_of

if TYPE_CHECKING:
    from flask import Flask
    from redis import Redis

    from .backend import Backend
    from .operations.limits import LimitState
    from .tasks.options import Options
    from .tasks.task import AnyTask, Tasks

logger = logging.getLogger(__name__)

_DUE_AT_ONCE = 500
"""Scheduled jobs moved in one step; Redis serves nobody else meanwhile."""


class Engine:
    """One application's jobs; `kit.handle("jobs")` is one."""

    def __init__(self, app: Flask, backend: Backend, tasks: Tasks, kit: Installed) -> None:
        settings = backend.settings
        self.app = app
        self.settings = settings
        self.tasks = tasks
        tasks.hidden[PING.name] = PING
        self.backend = backend
        self.redis: RedisPort = backend.redis()
        self.heartbeat = settings.recovery / 5
        self.result_ttl = math.ceil(settings.result_ttl)
        self.failure_ttl = math.ceil(settings.failure_ttl)
        self.job_class, self.queue_class = bind(self)
        self._emit = kit.emit
        self.tracer = kit.tracer
        self.traces: Any = kit.handle("tracing")
        self._prefix = self.redis.key("")
        self.desk = Desk(self, backend.keeper(self, RedisKeeper(self.redis, self._prefix)))
        self.office = Office(self)
        self.counts = Counts(kit.meter)

    def dispatch(self, task: AnyTask, options: Options, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Job:
        """Queue one call of *task*; see `task.Dispatcher.dispatch` for what it raises."""
        return self.desk.dispatch(task, options, (args, kwargs))

    def dispatch_many(self, task: AnyTask, options: Options, calls: Iterable[Call]) -> list[Job]:
        """Queue many calls of *task*; see `task.Dispatcher.dispatch_many`."""
        return self.desk.dispatch_many(task, options, calls)

    def queue(self, name: str = "default", connection: Redis | None = None) -> AppQueue:
        """Return the RQ queue behind *name*: in Redis its name has the service's namespace in front."""
        return self.queue_class(
            self._prefix + name,
            connection=connection or self.redis.client("jobs"),
            default_timeout=self.timeout(None),
            serializer=JsonSerializer,
        )

    def fetch(self, job_id: str) -> Job:
        """Return a job by its id."""
        return self.job_class.fetch(job_id, connection=self.redis.client("jobs"))

    def find(self, job_id: str) -> Job | None:
        """Return a job by its id, None when it is gone or cannot be read."""
        return next(iter(self.fetch_many([job_id])), None)

    def fetch_many(self, job_ids: Sequence[str]) -> list[Job]:
        """Return those of these jobs that are there and can be read; Unavailable without Redis."""
        keys = [self.job_class.key_for(job_id) for job_id in job_ids]
        records = self.redis.attempt(lambda client: records_of(client, keys), "HGETALL")
        connection = self.redis.client("jobs")
        jobs: list[Job] = []
        for job_id, record in zip(job_ids, records, strict=True):
            job = self.job_class(connection=connection)
            job._id = job_id  # one that another program chose may have signs that RQ refuses
            with suppress(Exception):  # whatever lies in Redis
                if record:
                    job.restore(record)
                    jobs.append(job)
        return jobs

    def group(self, name: str) -> list[Job]:
        """Return the jobs of a group that are still known."""
        key = f"{RQ_KEY_PREFIX}:group:{self._prefix}{name}"
        members = self.redis.attempt(lambda client: client.smembers(key), "SMEMBERS")
        return self.fetch_many(sorted(member.decode() for member in members))

    def known_queues(self) -> frozenset[str]:
        """Return the queues that some worker serves: of JOBS_QUEUES, and those that jobs name."""
        return frozenset((*self.queues(), *self.tasks.queues()))

    def short(self, queue_name: str) -> str:
        """Return a queue's name without the namespace."""
        return queue_name.removeprefix(self._prefix)

    def queues(self) -> tuple[str, ...]:
        """Return the queues that workers serve, the most urgent first."""
        return tuple(weights_of(self.settings.queues)) or self.tasks.queues()

    def weights(self) -> Mapping[str, int]:
        """Return these queues with their weights, all 0 when the first one strictly comes first."""
        return weights_of(self.settings.queues) or dict.fromkeys(self.tasks.queues(), 0)

    def timeout(self, seconds: float | None) -> int:
        """Return a job's time limit in whole seconds."""
        return math.ceil(self.settings.default_timeout if seconds is None else seconds)

    def overview(self) -> list[QueueState]:
        """Return the state of every queue that is served or named by a job; Unavailable without Redis."""
        return overview(self)

    def limits(self) -> list[LimitState]:
        """Return the limits that any job is under now; none where there is no Redis."""
        if self.backend.kind != "redis":
            return []
        from .operations.limits import limits

        return limits(self)

    def watch(self) -> None:
        """Set the gauges: depth, age of the oldest, workers."""
        set_gauges(self)

    def enqueue_due(self, queues: Iterable[Queue], connection: Redis) -> None:
        """Move scheduled jobs whose time has come to their queues; atomic, so any number of workers may do it."""
        for queue in queues:
            keys = (queue.scheduled_job_registry.key, queue.key)
            moment = now()
            arguments = (moment.timestamp(), _DUE_AT_ONCE, self.job_class.key_for(""), utcformat(moment))
            ENQUEUE_DUE.run(connection, keys, arguments)

    def give_up(self, job: Job, error: str, reason: str, cause: BaseException | None = None) -> None:
        """Tell of a job whose last attempt has failed: an event for the rooms, and its own handler.

        *cause* is the exception, where this is the process in which it was raised.
        """
        task = self.tasks.get(label_of(job))
        name = "unknown" if task is None else task.name
        queue = self.short(job.origin)
        fields = {"job": name, "queue": queue, "id": job.id, "error": error}
        self.counts.dead.inc(queue, name)
        with in_request_of(job), self.app.app_context():
            words = f"Job {name} failed for the last time: {error}."
            self._emit(Event("prod.job.failed", words, "error", fields, cause))
            if task is not None and task.on_failure is not None:
                try:
                    task.on_failure(job, reason)
                except Exception:
                    logger.exception("The failure handler of job %s (%s) failed", name, job.id)
