"""What is counted of jobs, and what queues and workers look like; reading changes nothing in Redis."""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from rq.defaults import RQ_KEY_PREFIX
from rq.job import Job

from flask_prod.core.component import Finding
from flask_prod.core.errors import Unavailable

from ..dispatch.job import label_of
from ..redis_store.scripts import Script

if TYPE_CHECKING:
    from flask_prod.core.later import Later
    from flask_prod.core.ports import Meter

    from ..engine import Engine
    from ..settings import JobsSettings
    from ..tasks.task import AnyTask

_SECONDS = (0.005, 0.025, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 1800.0)
"""Bounds of durations and waits: from what is done at once to half an hour."""

_STATES = ("waiting", "scheduled", "deferred", "running", "failed")
_WORKER_STATES = ("busy", "idle", "suspended")


@dataclass(frozen=True, slots=True)
class QueueState:
    """What one queue looks like; `waiting` includes scheduled jobs that are due, `workers` counts living ones.

    `oldest` is how many seconds the job that waits longest has waited.
    """

    queue: str
    waiting: int
    scheduled: int
    running: int
    failed: int
    workers: int
    deferred: int = 0
    oldest: float = 0.0
    paused: bool = False
    states: dict[str, int] = field(default_factory=dict)
    """Living workers of this queue by what they do: busy, idle or suspended."""


class Counts:
    """The metrics of one application's jobs."""

    def __init__(self, meter: Meter) -> None:
        def counter(name: str, documentation: str) -> Any:
            return meter.counter(f"flask_prod_jobs_{name}_total", documentation, ("queue", "job"))

        def seconds(name: str, documentation: str) -> Any:
            return meter.histogram(f"flask_prod_jobs_{name}_seconds", documentation, ("queue", "job"), _SECONDS)

        self.enqueued = counter("enqueued", "Jobs accepted by dispatch.")
        self.started = counter("started", "Attempts at jobs that have begun.")
        self.finished = counter("finished", "Jobs that ended well.")
        self.failed = counter("failed", "Attempts at jobs that failed.")
        self.retried = counter("retried", "Attempts that failed and are followed by another.")
        self.dead = counter("dead", "Jobs whose last attempt failed.")
        self.recovered = counter("recovered", "Jobs given back because their worker was gone.")
        self.duration = seconds("duration", "Seconds that an attempt at a job took.")
        self.wait = seconds("wait", "Seconds between the time when a job could run and its start.")
        self.depth = meter.gauge("flask_prod_jobs", "Jobs on a queue by state.", ("queue", "state"))
        self.oldest = meter.gauge(
            "flask_prod_jobs_oldest_seconds", "Seconds that the oldest job on a queue has waited.", ("queue",)
        )
        self.held = meter.gauge("flask_prod_jobs_held", "Jobs that wait for a slot of their limit.")
        self.late = meter.gauge(
            "flask_prod_jobs_schedule_late_seconds",
            "Seconds that the next job of a schedule is overdue.",
            ("schedule",),
        )
        self.workers = meter.gauge("flask_prod_jobs_workers", "Living worker processes by state.", ("state",))

    def show(self, tasks: Iterable[AnyTask]) -> None:
        """Show what can happen to each job as zero, so that the first time is seen too."""
        for task in tasks:
            for counter in (self.started, self.finished, self.failed, self.retried, self.dead, self.recovered):
                counter.show(task.options.queue, task.name)

    def begun(self, job: Job, queue: str) -> None:
        """Count the start of an attempt, and how long the job waited for it."""
        label = label_of(job)
        self.started.inc(queue, label)
        since = job.enqueued_at
        if since is not None:
            since = since if since.tzinfo else since.replace(tzinfo=UTC)
            self.wait.observe(max(0.0, (datetime.now(UTC) - since).total_seconds()), queue, label)

    def given_back(self, engine: Engine, found: Iterable[tuple[str, str]]) -> None:
        """Count jobs that were given back, by id and what became of them."""
        ids = [job_id for job_id, became in found if became == "crash"]
        for job in engine.fetch_many(ids) if ids else ():
            self.recovered.inc(engine.short(job.origin), label_of(job))


def set_gauges(engine: Engine) -> None:
    """Look at the queues and set the gauges; a Redis that is away leaves them as they were."""
    try:
        states, late = overview(engine), tuple(_lateness(engine))
        held = sum(limit.held for limit in engine.limits())
    except Unavailable:
        return
    counts = engine.counts
    counts.held.set(held)
    for state in states:
        for name in _STATES:
            counts.depth.set(getattr(state, name), state.queue, "dead" if name == "failed" else name)
        counts.oldest.set(state.oldest, state.queue)
    for name in _WORKER_STATES:
        counts.workers.set(max((state.states.get(name, 0) for state in states), default=0), name)
    for name, seconds in late:
        counts.late.set(seconds, name)
    if engine.backend.kind == "database":
        depth, age = engine.backend.gauges()
        depth.set(sum(state.waiting + state.scheduled for state in states))
        age.set(max((state.oldest for state in states), default=0.0))


def _lateness(engine: Engine) -> Iterator[tuple[str, float]]:
    """Yield how late each schedule is: the clock notes each slot that it has dispatched, or passed."""
    schedules = engine.tasks.schedules()
    known = engine.desk.keeper.slots() if schedules else {}
    moment = time.time()
    for schedule in schedules:
        last = known.get(schedule.name)
        yield schedule.name, 0.0 if last is None else max(0.0, moment - schedule.following(last))


def finding(engine: Engine | Later) -> Finding:
    """Return what the health check says: a warning for jobs that nobody comes for, wait too long, or are dead."""
    states = engine.overview()
    settings = engine.settings
    dead = sum(state.failed for state in states)
    problems = [problem for state in states for problem in _problems(state, settings)]
    if settings.warn_dead and dead > settings.warn_dead:
        problems.append(
            f"{dead} jobs are dead, and JOBS_WARN_DEAD is {settings.warn_dead}: `flask prod jobs dead`."
        )
    unserved = [state.queue for state in states if state.waiting and not state.workers]
    if unserved:
        problems.insert(
            0, f"Jobs wait on {', '.join(unserved)}, and no worker serves it: start `flask prod worker`."
        )
    data = {
        "workers": max(state.workers for state in states),
        "waiting": {state.queue: state.waiting for state in states},
        "oldest": {state.queue: state.oldest for state in states},
        "failed": dead,
    }
    return Finding("warn", " ".join(problems), data) if problems else Finding(data=data)


def _problems(state: QueueState, settings: JobsSettings) -> Iterator[str]:
    because = ", which is paused" if state.paused else ""
    if settings.warn_age and state.oldest > settings.warn_age:
        limit = f"JOBS_WARN_AGE is {settings.warn_age:g} s"
        yield f"A job has waited for {state.oldest:.0f} s on {state.queue}{because}, and {limit}."
    if settings.warn_waiting and state.waiting > settings.warn_waiting:
        limit = f"JOBS_WARN_WAITING is {settings.warn_waiting}"
        yield f"{state.waiting} jobs wait on {state.queue}{because}, and {limit}."


def overview(engine: Engine) -> list[QueueState]:
    """Return the state of every queue that is served or named by a job; Unavailable when they are out of reach.

    Of Redis one script reads lengths and what is first, since RQ's own counts clean up as they count.
    """
    names = tuple(dict.fromkeys((*engine.queues(), *engine.tasks.queues())))
    if engine.backend.kind == "database":
        from ..outbox.overview import overview as overview_of_table

        return overview_of_table(engine.backend.outbox(), names)
    arguments = [time.time(), f"{RQ_KEY_PREFIX}:job:", engine.redis.key("jobs", "paused"), RQ_KEY_PREFIX]
    arguments += [engine.redis.key(name) for name in names]
    answer = engine.redis.attempt(lambda client: _LOOK.run(client, (), arguments), "EVALSHA")
    rows = json.loads(answer)
    return [_state(engine, name, row) for name, row in zip(names, rows, strict=True)]


def _state(engine: Engine, name: str, row: dict[str, Any]) -> QueueState:
    workers: Sequence[str] = list(row["workers"])
    states = {state: workers.count(state) for state in dict.fromkeys(workers)}
    moment = time.time()
    waited = [moment - _seconds(text) for text in row["since"]]
    if row["overdue"]:
        waited.append(moment - float(row["overdue"]))
    return QueueState(
        queue=name,
        waiting=row["waiting"] + row["due"],
        scheduled=row["scheduled"] - row["due"],
        running=row["running"],
        failed=row["failed"],
        workers=len(workers),
        deferred=row["deferred"],
        oldest=round(max((0.0, *waited)), 1),
        paused=bool(row["paused"]),
        states=states,
    )


def _seconds(text: str) -> float:
    """Return a moment as RQ writes it in seconds since 1970; now for what is none."""
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        return time.time()
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()


_LOOK = Script("""
-- Describe queues; reads only. ARGV: now, prefix of job keys, set of paused queues, RQ's prefix, queue names ...
local rows = {}
for i = 5, #ARGV do
  local name, rq = ARGV[i], ARGV[4]
  local list, scheduled = rq .. ":queue:" .. name, rq .. ":scheduled:" .. name
  local row = {since = {}, workers = {}, overdue = ""}
  row.waiting = redis.call("LLEN", list)
  row.scheduled = redis.call("ZCARD", scheduled)
  row.due = redis.call("ZCOUNT", scheduled, "-inf", ARGV[1])
  row.deferred = redis.call("ZCARD", rq .. ":deferred:" .. name)
  row.running = redis.call("ZCARD", rq .. ":wip:" .. name)
  row.failed = redis.call("ZCARD", rq .. ":failed:" .. name)
  row.paused = redis.call("SISMEMBER", ARGV[3], string.match(name, "[^:]*$"))
  -- The first one may have been put to the front a moment ago, so the last one is looked at too.
  for _, place in ipairs({0, -1}) do
    local id = redis.call("LINDEX", list, place)
    local since = id and redis.pcall("HGET", ARGV[2] .. id, "enqueued_at")
    if type(since) == "string" then table.insert(row.since, since) end
  end
  if row.due > 0 then row.overdue = redis.call("ZRANGE", scheduled, 0, 0, "WITHSCORES")[2] end
  for _, key in ipairs(redis.call("SMEMBERS", rq .. ":workers:" .. name)) do
    local state = redis.pcall("HGET", key, "state")
    if type(state) == "string" then table.insert(row.workers, state) end
  end
  rows[#rows + 1] = row
end
-- An empty table would become an object.
return (string.gsub(cjson.encode(rows), "{}", "[]"))
""")
