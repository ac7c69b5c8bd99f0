"""The jobs of one application: what accepts them, looks at them, and says when one is dead."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any

from rq.defaults import RQ_KEY_PREFIX
from rq.job import Job, JobStatus, Retry
from rq.queue import Queue
from rq.registry import ScheduledJobRegistry
from rq.utils import now, utcformat

from flask_prod.core.component import Event, Installed
from flask_prod.core.errors import Unavailable
from flask_prod.core.ports import RedisPort

from .face import AnyTask, Options, Tasks
from .job import AppQueue, bind, in_request_of, label_of, origin_of_request, told
from .payload import JsonSerializer, Unencodable, prepare
from .retries import delays
from .scripts import ACCEPT, ENQUEUE_DUE
from .settings import JobsSettings, weights_of

if TYPE_CHECKING:
    from flask import Flask
    from redis import Redis

logger = logging.getLogger(__name__)

_DUE_AT_ONCE = 500
"""Scheduled jobs moved in one step; Redis serves nobody else meanwhile."""


@dataclass(frozen=True, slots=True)
class QueueState:
    """What one queue looks like; `waiting` includes scheduled jobs that are due, `workers` counts living ones."""

    queue: str
    waiting: int
    scheduled: int
    running: int
    failed: int
    workers: int


class Engine:
    """One application's jobs; `kit.handle("jobs")` is one."""

    def __init__(self, app: Flask, settings: JobsSettings, tasks: Tasks, kit: Installed) -> None:
        self.app = app
        self.settings = settings
        self.tasks = tasks
        self.redis: RedisPort = kit.handle("redis")
        self.heartbeat = settings.recovery / 5
        self.result_ttl = math.ceil(settings.result_ttl)
        self.failure_ttl = math.ceil(settings.failure_ttl)
        self.job_class, self.queue_class = bind(self)
        self._emit = kit.emit
        self.tracer = kit.tracer
        self.traces: Any = kit.handle("tracing")
        self._prefix = self.redis.key("")
        labels = ("queue", "job")
        self.enqueued = kit.meter.counter("flask_prod_jobs_enqueued_total", "Jobs accepted by dispatch.", labels)
        self.finished = kit.meter.counter("flask_prod_jobs_finished_total", "Jobs that ended well.", labels)
        self.failed = kit.meter.counter("flask_prod_jobs_failed_total", "Jobs whose last attempt failed.", labels)

    def dispatch(self, task: AnyTask, options: Options, args: Sequence[Any], kwargs: dict[str, Any]) -> Job:
        """Queue one call of *task*; see `face.Dispatcher.dispatch` for what it raises."""
        check_call(task, args, kwargs)
        if not self.redis.configured:
            raise Unavailable(
                f"{task.name} was not accepted: jobs need a Redis. Set REDIS_URL to redis://host:6379/0, or start "
                "the application with `flask prod up`, which brings one."
            )
        with self.tracer.span(f"send {task.name}", "producer", told("send", options.queue)) as span:
            job = self._build(task, options, args, kwargs)
            span.set("messaging.message.id", job.id)
            keys, arguments = _acceptance(job, options.due)
            self.redis.attempt(lambda client: ACCEPT.run(client, keys, arguments), "EVALSHA")
        self.enqueued.inc(options.queue, task.name)
        return job

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
        """Return the state of every queue that is served or named by a job; Unavailable without Redis.

        It reads lengths only, since RQ's own counts clean up as they count.
        """
        names = tuple(dict.fromkeys((*self.queues(), *self.tasks.queues())))
        return self.redis.attempt(lambda client: _read(client, [self.queue(name) for name in names], names))

    def enqueue_due(self, queues: Iterable[Queue], connection: Redis) -> None:
        """Move scheduled jobs whose time has come to their queues; atomic, so any number of workers may do it."""
        for queue in queues:
            keys = (queue.scheduled_job_registry.key, queue.key)
            moment = now()
            arguments = (moment.timestamp(), _DUE_AT_ONCE, self.job_class.key_for(""), utcformat(moment))
            ENQUEUE_DUE.run(connection, keys, arguments)

    def give_up(self, job: Job, error: str, reason: str) -> None:
        """Tell of a job whose last attempt has failed: an event for the rooms, and its own handler."""
        task = self.tasks.get(label_of(job))
        name = "unknown" if task is None else task.name
        fields = {"job": name, "queue": self.short(job.origin), "id": job.id, "error": error}
        self.failed.inc(self.short(job.origin), name)
        with in_request_of(job), self.app.app_context():
            self._emit(Event("prod.job.failed", f"Job {name} failed for the last time: {error}.", "error", fields))
            if task is not None and task.on_failure is not None:
                try:
                    task.on_failure(job, reason)
                except Exception:
                    logger.exception("The failure handler of job %s (%s) failed", name, job.id)

    def _build(self, task: AnyTask, options: Options, args: Sequence[Any], kwargs: dict[str, Any]) -> Job:
        """Build RQ's job without a word to Redis."""
        retry = Retry(options.retry, delays(options.retry, options.backoff)) if options.retry else None
        job = self.queue(options.queue).create_job(
            task,
            args=tuple(args),
            kwargs=kwargs,
            timeout=self.timeout(options.timeout),
            meta={**origin_of_request(), **self.tracer.carrier()},
            status=JobStatus.SCHEDULED if options.due else JobStatus.QUEUED,
            retry=retry,
        )
        job.idempotent = options.idempotent  # type: ignore[attr-defined]  # our class of jobs
        job.enqueued_at = None if options.due else now()
        try:
            job.data  # noqa: B018  # encodes the call
        except Unencodable as error:
            raise TypeError(_blame(task, args, kwargs, error)) from None
        return job


def check_call(task: AnyTask, args: Sequence[Any], kwargs: dict[str, Any]) -> None:
    """Raise TypeError when the arguments do not fit the function, ValueError when no worker could find it."""
    if task.function.__module__ == "__main__":
        raise ValueError(
            f"{task.name} is defined in the file that was started; move it to a module workers can import."
        )
    try:
        task.signature.bind(*args, **kwargs)
    except TypeError as error:
        raise TypeError(f"{task.name}: {error}") from None


def _acceptance(job: Job, due: datetime | None) -> tuple[list[str], list[Any]]:
    """Return keys and arguments of the script that stores a job."""
    queue_key = AppQueue.redis_queue_namespace_prefix + job.origin
    place = queue_key
    if due is not None:
        place = ScheduledJobRegistry.key_template.format(job.origin)
    when = "" if due is None else math.ceil(due.timestamp())
    fields = [part for pair in job.to_dict().items() if pair[1] is not None for part in pair]
    return [job.key, place, AppQueue.redis_queues_keys], [job.id, when, queue_key, *fields]


def _blame(task: AnyTask, args: Sequence[Any], kwargs: dict[str, Any], error: Unencodable) -> str:
    """Say which argument cannot be stored."""
    for name, value in task.signature.bind(*args, **kwargs).arguments.items():
        try:
            prepare(value)
        except Unencodable as cause:
            return f"{task.name}: argument {name!r}: {cause}."
        except RecursionError:
            break
    return f"{task.name}: {error}."


def _read(client: Redis, queues: Sequence[AppQueue], names: Sequence[str]) -> list[QueueState]:
    moment = time.time()
    with client.pipeline(transaction=False) as pipe:
        for queue in queues:
            scheduled = queue.scheduled_job_registry.key
            pipe.llen(queue.key)
            pipe.zcount(scheduled, 0, moment)
            pipe.zcount(scheduled, f"({moment}", "+inf")
            pipe.zcard(queue.started_job_registry.key)
            pipe.zcard(queue.failed_job_registry.key)
            pipe.smembers(f"{RQ_KEY_PREFIX}:workers:{queue.name}")
        answers = pipe.execute()
        rows = [answers[start : start + 6] for start in range(0, len(answers), 6)]
        for row in rows:
            pipe.exists(*row[5]) if row[5] else pipe.echo("0")
        alive = pipe.execute() if rows else []
    return [
        QueueState(name, row[0] + row[1], row[2], row[3], row[4], int(living))
        for name, row, living in zip(names, rows, alive, strict=True)
    ]
