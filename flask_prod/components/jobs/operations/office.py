"""What people ask of jobs: show them, let the dead run again, delete, cancel, pause, restart.

Reading changes nothing: RQ's own registries clean up as they count, and so run retries and handlers in the reader.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, TypeAlias

from rq.defaults import RQ_KEY_PREFIX
from rq.exceptions import NoSuchJobError
from rq.job import Job
from rq.utils import now, utcformat

from flask_prod.core.errors import ProdKitError

from ..dispatch.job import label_of
from ..redis_store.scripts import Script, records_of
from ..tasks.progress import KEY as PROGRESS
from .orders import CANCEL, DELETE, REQUEUE

if TYPE_CHECKING:
    from redis import Redis

    from ..engine import Engine

State: TypeAlias = str

PLACES = {
    "waiting": "queue",
    "scheduled": "scheduled",
    "deferred": "deferred",
    "running": "wip",
    "dead": "failed",
    "finished": "finished",
    "canceled": "canceled",
}
"""States that jobs can be listed by, and the name of the key that has those of one queue."""

_MOST = 1000
"""Jobs that one listing shows."""

_ALL = 100_000
"""Dead jobs that one command deals with."""


class CannotBeDone(ProdKitError):
    """A job is not in a state that allows what was asked for."""


@dataclass(frozen=True, slots=True)
class JobView:
    """One job as people see it; moments are ISO 8601, arguments are left out unless they were asked for."""

    id: str
    job: str
    queue: str
    status: str
    created: str
    enqueued: str
    started: str
    ended: str
    request_id: str
    retries_left: int
    crashes: int
    interrupted: int
    progress: float | None
    message: str
    tags: list[str]
    worker: str
    reason: str
    waits_for: list[str] = field(default_factory=list)
    result: str = ""
    arguments: str = ""


@dataclass(frozen=True, slots=True)
class WorkerView:
    """One living worker process; `busy` is how many seconds it has spent on jobs."""

    name: str
    state: str
    queues: str
    pid: int
    host: str
    born: str
    done: int
    failed: int
    busy: float


class Office:
    """Answers about the jobs of one application, and does what is asked."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._paused = engine.redis.key("jobs", "paused")
        self._stops = engine.redis.key("jobs", "stops")
        self._restart = engine.redis.key("jobs", "restart")

    # Looking

    def listing(self, state: State, queues: Sequence[str] = (), count: int = 50, tag: str = "") -> list[JobView]:
        """Return jobs of one state, the oldest first, of all queues or of some."""
        found: list[JobView] = []
        for queue in self.named(queues):
            jobs = self._engine.fetch_many(self.ids(state, queue, _MOST if tag else count))
            tagged = (job for job in jobs if not tag or tag in (job.meta.get("tags") or ()))
            found += [view(self._engine, job) for job in tagged]
        return found[:count]

    def show(self, job_id: str, arguments: bool = False) -> JobView:
        """Return one job, with its result or the reason of its failure."""
        job = self.get(job_id)
        shown = view(self._engine, job, whole=True)
        if not arguments:
            return shown
        return _with_arguments(shown, job)

    def get(self, job_id: str) -> Job:
        """Return a job; NoSuchJobError names the id."""
        job = self._engine.find(job_id)
        if job is None or not job.origin.startswith(self._engine.redis.key("")):
            raise NoSuchJobError(
                f"There is no job {job_id!r}: it was never dispatched here, or is no longer kept."
            )
        return job

    def ids(self, state: State, queue: str, count: int = _MOST) -> list[str]:
        """Return the ids of the first jobs of one state on one queue."""
        key = self._key(state, queue)
        if state == "waiting":
            found = self._engine.redis.attempt(lambda client: client.lrange(key, 0, count - 1), "LRANGE")
        else:
            found = self._engine.redis.attempt(lambda client: client.zrange(key, 0, count - 1), "ZRANGE")
        # A running job is noted together with the attempt.
        return [member.decode(errors="replace").partition(":")[0] for member in found]

    def named(self, queues: Sequence[str]) -> Sequence[str]:
        """Return the queues that are meant; ValueError for one that nobody serves."""
        known = self._engine.known_queues()
        for queue in queues:
            if queue not in known:
                raise ValueError(f"there is no queue {queue!r}; known are {', '.join(sorted(known))}")
        return queues or tuple(dict.fromkeys((*self._engine.queues(), *self._engine.tasks.queues())))

    def dead_ids(self, queues: Sequence[str] = ()) -> Sequence[str]:
        """Return the ids of all dead jobs that there are now."""
        return [job_id for queue in self.named(queues) for job_id in self.ids("dead", queue, _ALL)]

    def workers(self) -> Sequence[WorkerView]:
        """Return the worker processes that live, by name."""
        registries = [f"{RQ_KEY_PREFIX}:workers:{self._engine.redis.key(queue)}" for queue in self.named(())]
        members = self._engine.redis.attempt(lambda client: client.sunion(registries), "SUNION")
        keys = sorted(member.decode() for member in members)
        records = self._engine.redis.attempt(lambda client: records_of(client, keys), "HGETALL")
        return [_worker(self._engine, key, record) for key, record in zip(keys, records, strict=True) if record]

    def paused(self) -> frozenset[str]:
        """Return the queues from which nothing is taken."""
        found = self._engine.redis.attempt(lambda client: client.smembers(self._paused), "SMEMBERS")
        return frozenset(member.decode() for member in found)

    # Doing

    def requeue(self, job_id: str) -> None:
        """Let a dead, stopped or canceled job run again, with all its attempts; CannotBeDone for any other."""
        job = self.get(job_id)
        task = self._engine.tasks.get(label_of(job))
        queue = self._engine.short(job.origin)
        keys = [
            job.key,
            self._key("waiting", queue),
            self._key("dead", queue),
            self._key("canceled", queue),
            self._engine.redis.key("jobs", "untold"),
            f"{RQ_KEY_PREFIX}:queues",
        ]
        retries = task.options.retry if task is not None else 0
        arguments = (job.id, utcformat(now()), len(job.retry_intervals or ()) or retries)
        status = self._run(REQUEUE, keys, arguments)
        if status != "done":
            raise CannotBeDone(
                f"Job {job_id!r} is {status}; only one that is dead, stopped or canceled can run again."
            )
        self._engine.counts.enqueued.inc(queue, label_of(job))

    def delete(self, job_id: str) -> None:
        """Forget a job and its result; CannotBeDone for one that runs: cancel it first."""
        job = self.get(job_id)
        queue = self._engine.short(job.origin)
        keys = [job.key, f"{RQ_KEY_PREFIX}:results:{job.id}", self._engine.redis.key("jobs", "untold")]
        keys += [self._key(state, queue) for state in PLACES]
        if self._run(DELETE, keys, (job.id,)) != "done":
            raise CannotBeDone(f"Job {job_id!r} runs; cancel it before it is deleted.")

    def drop_lost(self, job_id: str) -> bool:
        """Forget a dead job whose record is not there any more, as after an eviction; false when it is there."""
        if self._engine.redis.ask("EXISTS", self._engine.job_class.key_for(job_id)):
            return False
        for queue in self.named(()):
            self._engine.redis.ask("ZREM", self._key("dead", queue), job_id)
        return True

    def cancel(self, job_id: str) -> str:
        """Let a job not run, or ask its worker to stop it; return what it was."""
        job = self.get(job_id)
        queue = self._engine.short(job.origin)
        keys = [job.key, self._stops, self._key("canceled", queue)]
        keys += [self._key(state, queue) for state in ("waiting", "scheduled", "deferred")]
        was = self._run(CANCEL, keys, (job.id, utcformat(now()), time.time() + self._engine.failure_ttl))
        if was not in ("queued", "scheduled", "deferred", "rate_limited", "started"):
            raise CannotBeDone(f"Job {job_id!r} is {was} already; there is nothing to cancel.")
        return was

    def pause(self, queues: Sequence[str]) -> None:
        """Let workers take nothing from these queues; what runs ends."""
        names = list(self.named(queues))
        self._engine.redis.attempt(lambda client: client.sadd(self._paused, *names), "SADD")

    def resume(self, queues: Sequence[str]) -> None:
        """Let workers take jobs from these queues again."""
        names = list(self.named(queues))
        self._engine.redis.attempt(lambda client: client.srem(self._paused, *names), "SREM")

    def restart(self) -> None:
        """Ask all workers to begin anew, each after its running job."""
        text = f"{time.time():.3f}"
        self._engine.redis.attempt(lambda client: client.set(self._restart, text), "SET")

    def _key(self, state: State, queue: str) -> str:
        if state not in PLACES:
            raise ValueError(f"jobs are {', '.join(PLACES)}, not {state!r}")
        return f"{RQ_KEY_PREFIX}:{PLACES[state]}:{self._engine.redis.key(queue)}"

    def _run(self, script: Script, keys: Sequence[str], arguments: Sequence[Any]) -> str:
        def call(client: Redis) -> Any:
            return script.run(client, keys, arguments)

        answer = self._engine.redis.attempt(call, "EVALSHA")
        return answer.decode() if isinstance(answer, bytes) else str(answer)


def view(engine: Engine, job: Job, whole: bool = False) -> JobView:
    """Return what people see of a job; its result and the whole reason only when asked for."""
    progress = job.meta.get(PROGRESS) or {}
    reason = job._exc_info or ""
    return JobView(
        id=job.id,
        job=label_of(job) if label_of(job) != "unknown" else f"unknown: {_name_found(job)}",
        queue=engine.short(job.origin),
        status=str(job.get_status(refresh=False).value),
        created=_text(job.created_at),
        enqueued=_text(job.enqueued_at),
        started=_text(job.started_at),
        ended=_text(job.ended_at),
        request_id=str(job.meta.get("request_id") or ""),
        retries_left=job.retries_left or 0,
        crashes=getattr(job, "crashes", 0),
        interrupted=getattr(job, "interrupted", 0),
        progress=progress.get("fraction"),
        message=str(progress.get("message") or ""),
        tags=list(job.meta.get("tags") or ()),
        worker=job.worker_name or "",
        reason=reason if whole else _last_line(reason),
        waits_for=list(job._dependency_ids),
        result=_result(job) if whole else "",
    )


def _worker(engine: Engine, key: str, record: dict[bytes, bytes]) -> WorkerView:
    def text(name: str) -> str:
        return record.get(name.encode(), b"").decode(errors="replace")

    return WorkerView(
        name=key.removeprefix(f"{RQ_KEY_PREFIX}:worker:"),
        state=text("state"),
        queues=", ".join(engine.short(queue) for queue in text("queues").split(",")),
        pid=int(text("pid") or 0),
        host=text("hostname"),
        born=text("birth"),
        done=int(text("successful_job_count") or 0),
        failed=int(text("failed_job_count") or 0),
        busy=float(text("total_working_time") or 0),
    )


def _with_arguments(shown: JobView, job: Job) -> JobView:
    try:
        words = [*map(repr, job.args), *(f"{name}={value!r}" for name, value in job.kwargs.items())]
    except Exception:
        words = ["they cannot be read"]
    return replace(shown, arguments=", ".join(words))


def _result(job: Job) -> str:
    if not job.is_finished:
        return ""
    value = job.return_value()
    return "" if value is None else repr(value)


def _name_found(job: Job) -> str:
    try:
        return str(job.func_name)[:100]
    except Exception:
        return "its payload cannot be read"


def _text(moment: Any) -> str:
    return moment.isoformat(timespec="seconds") if moment else ""


def _last_line(reason: str) -> str:
    return next((line.strip() for line in reversed(reason.splitlines()) if line.strip()), "")[:300]
