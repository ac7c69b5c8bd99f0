"""RQ's Job and Queue, bound to one application: JSON payload, allow-list, application context.

Whatever lies in Redis, these never load a pickle and never import a name found there: functions and callbacks
come from the registry of the application or not at all.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import lru_cache
from time import perf_counter
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, ClassVar

from rq.job import Job
from rq.queue import Queue

from flask_prod.core.errors import ProdKitError
from flask_prod.core.record import RequestRecord, current_record, enter, leave

from ..tasks.task import AnyTask, Task
from .payload import JsonSerializer

if TYPE_CHECKING:
    from redis import Redis

    from ..engine import Engine

logger = logging.getLogger(__name__)

_SHOWN = 100
"""A name from Redis may be anything; so many characters of it are shown."""

_CHOSEN_BY_NAME = ("on_success", "on_failure", "on_stopped", "webhooks")


class NotRegistered(ProdKitError):
    """A job names a function that this application has not registered; it does not run."""


class AppJob(Job):
    """A job of one application; made by `bind`."""

    engine: ClassVar[Engine]

    idempotent = False
    """A finished dispatch is remembered, so that a second delivery runs nothing."""
    crashes = interrupted = 0
    """Processes that ended under this job, and stops that put it back."""

    def __init__(self, id: str | None = None, connection: Redis | None = None, serializer: Any = None) -> None:
        super().__init__(id, connection)
        self.serializer = JsonSerializer  # given above, RQ would look at it at length, for each job

    @property
    def task(self) -> AnyTask | None:
        """The registered task, None when there is none of this name or the payload cannot be read."""
        try:
            return self.engine.tasks.get(self.func_name)
        except Exception:
            return None

    @property
    def label(self) -> str:
        """The name for metrics and logs: that of a registered task, else "unknown"."""
        task = self.task
        return "unknown" if task is None else task.name

    @property
    def func(self) -> Callable[..., Any]:
        """The registered function; NotRegistered for any other name."""
        task = self.engine.tasks.get(self.func_name)
        if task is None:
            raise NotRegistered(
                f"{str(self.func_name)[:_SHOWN]!r} is not registered with @prod.job in {self.engine.app.name!r}, "
                "so it does not run; is the module that registers it imported?"
            )
        return task.run

    # Callbacks and webhooks found in Redis would import names and call addresses that nobody here has chosen.
    success_callback = failure_callback = stopped_callback = None

    def send_webhooks(self, *_: Any, **__: Any) -> None:
        """Send nothing: an address found in Redis is not one that the application has chosen."""

    def restore(self, raw_data: Any) -> None:
        """Read the job's hash; one that another program wrote gets our time limits."""
        super().restore(raw_data)
        if not self.timeout:
            self.timeout = self.engine.timeout(None)
        if self.failure_ttl is None:
            self.failure_ttl = self.engine.failure_ttl
        meta: object = self.meta
        if not isinstance(meta, dict):
            self.meta = {}
        self.idempotent = raw_data.get(b"idempotent") == b"1"
        self.crashes = int(raw_data.get(b"crashes") or 0)
        self.interrupted = int(raw_data.get(b"interrupted") or 0)

    def to_dict(self, include_meta: bool = True, include_result: bool = True) -> dict[str, Any]:
        """Return the fields of the record, in RQ's words and ours."""
        fields: dict[str, Any] = super().to_dict(include_meta, include_result)
        if self.idempotent:
            fields["idempotent"] = 1
        return fields

    def perform(self) -> Any:
        """Run the function in an application context of its own, so that its end closes what the job opened."""
        began = perf_counter()
        attributes = {**told("process", self.engine.short(self.origin)), "messaging.message.id": self.id}
        with in_request_of(self), self.engine.tracer.continued(f"process {self.label}", self.meta, attributes):
            self._keep_trace()
            with self.engine.app.app_context():
                result = super().perform()
            seconds = perf_counter() - began
            logger.info("Job %s (%s) finished in %.3f s", self.label, self.id, seconds, extra=facts(self, seconds))
        return result

    def _keep_trace(self) -> None:
        """Remember a trace that began here, for what is told of the job's failure after its end."""
        record = current_record()
        if record is not None and record.trace_id:
            self.meta["trace_id"] = record.trace_id


class AppQueue(Queue):
    """A queue of one application; takes registered jobs only."""

    engine: ClassVar[Engine]

    def create_job(self, func: Any, *args: Any, **kwargs: Any) -> Job:
        """Build a job for a registered function; NotRegistered for any other."""
        name = func.name if isinstance(func, Task) else func
        if self.engine.tasks.get(name) is None:
            raise NotRegistered(f"{func!r} is not a job: decorate it with @prod.job.")
        if any(kwargs.get(what) for what in _CHOSEN_BY_NAME):
            raise TypeError("RQ's callbacks and webhooks are not run here; use @prod.job(on_failure=...).")
        # RQ would describe a job by its arguments, which then stand in logs and on dashboards.
        kwargs["description"] = kwargs.get("description") or name
        for key, default in (("failure_ttl", self.engine.failure_ttl), ("result_ttl", self.engine.result_ttl)):
            if kwargs.get(key) is None:
                kwargs[key] = default
        return super().create_job(name, *args, **kwargs)

    def get_redis_server_version(self) -> tuple[int, int, int]:
        """Return a version that has all RQ asks for, without a round trip before each first dispatch."""
        return (7, 0, 0)


def bind(engine: Engine) -> tuple[type[AppJob], type[AppQueue]]:
    """Return the classes of one application."""
    job: type[AppJob] = type("AppJob", (AppJob,), {"engine": engine})
    queue: type[AppQueue] = type("AppQueue", (AppQueue,), {"engine": engine, "job_class": job})
    return job, queue


def label_of(job: Job) -> str:
    """Return the name of a registered job for metrics and logs; "unknown" for any other."""
    label: str = getattr(job, "label", "unknown")
    return label


def facts(job: Job, seconds: float | None = None) -> dict[str, object]:
    """Return what the log line of a job carries beside its words.

    Name and id of the job and the request's id are on every line that is said in a job: see `in_request_of`.
    """
    known: dict[str, object] = {"queue": job.origin}
    if seconds is not None:
        known["duration"] = round(seconds, 6)
    return known


@lru_cache(maxsize=256)
def told(operation: str, queue: str) -> Mapping[str, str]:
    """Return what a job's spans say of their queue, in OpenTelemetry's words."""
    return MappingProxyType(
        {
            "messaging.system": "rq",
            "messaging.operation.type": operation,
            "messaging.operation.name": operation,
            "messaging.destination.name": queue,
        }
    )


def origin_of_request() -> dict[str, str]:
    """Return what a job remembers of the request that dispatches it."""
    record = current_record()
    if record is None:
        return {}
    known = {
        "request_id": record.request_id,
        "trace_id": record.trace_id,
        "span_id": record.span_id,
        "user_id": record.user_id,
    }
    return {name: value for name, value in known.items() if value}


@contextmanager
def in_request_of(job: Job) -> Iterator[None]:
    """Let log lines and error reports of a job carry the id of the request that dispatched it.

    So do the jobs that it dispatches itself. A job that no request dispatched goes by its own id.
    """
    environ = {"REQUEST_METHOD": "JOB", "PATH_INFO": "/" + job.origin, "wsgi.url_scheme": "job", "SERVER_NAME": ""}
    record = RequestRecord(environ, str(job.meta.get("request_id") or job.id), perf_counter())
    record.trace_id = str(job.meta.get("trace_id") or "")
    user_id = job.meta.get("user_id")
    record.user_id = None if user_id is None else str(user_id)
    record.note(job_id=job.id, job=label_of(job), queue=job.origin)
    enter(record)
    try:
        yield
    finally:
        leave(record)
