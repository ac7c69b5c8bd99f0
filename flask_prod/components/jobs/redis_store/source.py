"""Jobs from Redis: what `delivery.source.Source` promises, in RQ's own keys, with few commands per job."""

from __future__ import annotations

import time
import zlib
from base64 import b64encode
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry
from rq.defaults import RQ_KEY_PREFIX
from rq.job import Job, JobStatus
from rq.queue import Queue
from rq.registry import FailedJobRegistry, FinishedJobRegistry, ScheduledJobRegistry, StartedJobRegistry
from rq.repeat import Repeat
from rq.suspension import WORKERS_SUSPENDED
from rq.utils import as_text, now, utcformat

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
    SourceAway,
    Untold,
)
from ..dispatch.payload import JsonSerializer
from .housekeeping import Housekeeper
from .ledger import Keys, Ledger, results_key
from .roster import Roster
from .scripts import BEAT, GIVE_BACK, TAKE, Call, run_all

if TYPE_CHECKING:
    from ..engine import Engine

_PATIENCE = 3.0
"""Seconds until a Redis that does not answer counts as away; more than a worker ever waits for a job."""

LIMITS = f"{RQ_KEY_PREFIX}:rl"
"""What the keys of RQ's rate limits begin with."""

_WAITED_FOR = 2
"""FINISH says: other jobs wait for this one."""

_MANY = 0.2
"""Seconds to wait for the first of several queues, before all of them are asked again."""


class RedisSource:
    """The jobs of one application in Redis; each process has one, built after its fork."""

    def __init__(self, engine: Engine, worker: str, queues: Sequence[str]) -> None:
        self._engine = engine
        self._worker = worker
        self._queues = queues
        self._client = _impatient(engine.redis.client("blocking"))
        self._prefix = engine.redis.key("")
        self._jobs = engine.job_class.key_for("")
        self._marker = engine.redis.key("jobs", "done", "")
        self._untold = engine.redis.key("jobs", "untold")
        self._lease = 3 * engine.heartbeat
        self._keys = lru_cache(maxsize=1024)(self._keys_of)
        self._ledger = Ledger(engine, self._client, worker, self._keys, self._moment)
        self._roster = Roster(engine, [self._prefix + queue for queue in queues])
        self._housekeeper = Housekeeper(engine, self._client, f"{worker}.{id(self)}")
        self._hold = time.monotonic() + engine.heartbeat
        self._skew = 0.0

    # In a child

    def take(self, queues: Sequence[str], token: str) -> Delivery | None:
        """Take the first job of the first of these queues that has one."""
        with self._away():
            script, keys, arguments = self._taking(queues, token)
            return self._delivery(script.run(self._client, keys, arguments), queues, token)

    def settle(
        self, delivery: Delivery, outcome: Outcome, queues: Sequence[str] = (), token: str = ""
    ) -> tuple[bool, Delivery | None]:
        """Write down how an attempt ended and take the next job, in one round trip."""
        calls = [self._ledger.call(delivery, outcome)]
        if queues:
            calls.append(self._taking(queues, token))
        with self._away():
            answers = run_all(self._client, calls) if queues else [calls[0][0].run(self._client, *calls[0][1:])]
            following = self._delivery(answers[1], queues, token) if queues else None
            if answers[0] == _WAITED_FOR and isinstance(outcome, Finished):
                answers[0] = self._finish_for_others(delivery, outcome)
            if answers[0] and delivery.job.has_rate_limit:
                self._free_slot(delivery.job, outcome)
            return bool(answers[0]), following

    def wait(self, queues: Sequence[str], seconds: float) -> None:
        """Return when the first queue has a job, or after a moment; takes nothing."""
        if not queues:
            time.sleep(seconds)
            return
        first = self._keys(queues[0]).waiting
        with self._away():
            # From the head to the head: it moves nothing, and waits for the first job to come.
            patience = seconds if len(queues) == 1 else min(seconds, _MANY)
            self._client.blmove(first, first, patience, "LEFT", "LEFT")  # type: ignore[arg-type]  # it takes fractions

    def tell(self) -> Iterator[Untold]:
        """Claim dead jobs of which nobody has told; what depends on them is dealt with first."""
        with self._away():
            ids = [as_text(job_id) for job_id in self._client.zrange(self._untold, 0, 99)]  # type: ignore[arg-type]
        for job_id in ids:
            with self._away():
                untold = self._claim(job_id)
            if untold is not None:
                yield untold

    # In the supervisor

    def orders(self) -> Orders:
        """Return what people have asked for, and learn how far this machine's clock is from that of Redis."""
        with self._away(), self._client.pipeline(transaction=False) as pipe:
            pipe.smembers(self._engine.redis.key("jobs", "paused"))
            pipe.exists(WORKERS_SUSPENDED)
            pipe.get(self._engine.redis.key("jobs", "restart"))
            pipe.smembers(self._engine.redis.key("jobs", "stops"))
            pipe.time()
            paused, suspended, restart, stops, moment = pipe.execute()
        self._skew = moment[0] + moment[1] / 1e6 - time.time()
        return Orders(_texts(paused), bool(suspended), as_text(restart or b""), _texts(stops))

    def beat(self, tokens: Sequence[str]) -> list[tuple[str, str]]:
        """Prolong the leases of these attempts; return the id and the token of those that run."""
        if not tokens:
            return []
        with self._away():
            keys = [self._keys(queue).running for queue in self._served()]
            found = BEAT.run(self._client, keys, (self._moment() + self._lease, *tokens))
        return [(job_id, token) for job_id, _, token in (as_text(member).partition(":") for member in found)]

    def present(self, living: Sequence[Presence], gone: Sequence[str]) -> None:
        """Let RQ's own tools see the workers, each for three heartbeats."""
        with self._away():
            self._roster.write(self._client, living, gone)

    def lost(self, token: str, fate: Fate, why: str) -> list[tuple[str, str]]:
        """Give back what a dead process held; return the ids, and what became of each."""
        with self._away():
            return self._give_back(token, fate, why)

    def look_after(self) -> list[tuple[str, str]]:
        """Move what is due, give back what lost its lease, forget what has expired."""
        with self._away():
            self._engine.enqueue_due(
                [self._engine.queue(name, self._client) for name in self._served()], self._client
            )
            self._housekeeper.clean(self._served())
            # After an outage whoever lives must have had the time to prolong its leases.
            if time.monotonic() < self._hold:
                return []
            return self._give_back("", "crash", "The worker that ran it has gone.")

    # How it is done

    def _served(self) -> Sequence[str]:
        return tuple(dict.fromkeys((*self._queues, *self._engine.queues())))

    def _moment(self) -> float:
        return time.time() + self._skew

    def _keys_of(self, queue: str) -> Keys:
        name = self._prefix + queue
        return Keys(
            Queue.redis_queue_namespace_prefix + name,
            StartedJobRegistry.key_template.format(name),
            FailedJobRegistry.key_template.format(name),
            FinishedJobRegistry.key_template.format(name),
            ScheduledJobRegistry.key_template.format(name),
        )

    def _taking(self, queues: Sequence[str], token: str) -> Call:
        all_keys = [self._keys(queue) for queue in queues]
        keys = [key for kind in range(3) for key in (one[kind] for one in all_keys)]
        moment = self._moment()
        dead_until = int(moment) + self._engine.failure_ttl
        return (
            TAKE,
            keys,
            (
                self._jobs,
                self._marker,
                token,
                moment + self._lease,
                self._worker,
                utcformat(now()),
                dead_until,
                LIMITS,
            ),
        )

    def _delivery(self, answer: Any, queues: Sequence[str], token: str) -> Delivery | None:
        """Return what was taken; a record that cannot be read is buried, and nothing is returned."""
        if not answer:
            return None
        queue, job_id, flat = queues[answer[0]], as_text(answer[1]), answer[2]
        job = self._engine.job_class(connection=self._client)
        job._id = job_id  # one that another program chose may have signs that RQ refuses
        delivery = Delivery(job, queue, token)
        try:
            job.restore(dict(zip(flat[::2], flat[1::2], strict=True)))
            job._status = JobStatus.STARTED
        except Exception as error:
            job.origin = self._prefix + queue
            job.failure_ttl = self._engine.failure_ttl
            delivery.unreadable = Dead(type(error).__name__, f"The record cannot be read: {error!r:.200}")
        return delivery

    def _finish_for_others(self, delivery: Delivery, outcome: Finished) -> int:
        """Finish a job for which others wait, or that repeats, in RQ's own transaction."""
        job = delivery.job
        queue = self._engine.queue(delivery.queue, self._client)
        script, keys, arguments = self._ledger.finishing(delivery, outcome, "anyhow")
        self._client.script_load(script.text)
        job._status = JobStatus.FINISHED
        for _ in range(100):
            with self._client.pipeline() as pipe:
                try:
                    pipe.watch(job.dependents_key)  # type: ignore[no-untyped-call]
                    ready = queue.move_dependents_to_ready(job, pipeline=pipe)
                    if not pipe.explicit_transaction:
                        pipe.multi()
                    place = len(pipe)
                    pipe.evalsha(script.sha, len(keys), *keys, *arguments)
                    if job.repeats_left:
                        pipe.persist(job.key)
                        Repeat.schedule(job, queue, pipeline=pipe)
                    answer = int(pipe.execute()[place])
                except redis.WatchError:
                    continue
                queue.enqueue_ready_jobs_by_queue(ready)
                return answer
        return 0

    def _free_slot(self, job: Job, outcome: Outcome) -> None:
        from rq.rate_limit import RateLimitRegistry

        # One that is tried again in an hour keeps nobody waiting; it takes a slot again when it is due. One that
        # is queued again may have begun by now, with the slot that it had.
        if isinstance(outcome, Finished | Dead) or (isinstance(outcome, Again) and outcome.seconds > 0):
            RateLimitRegistry.from_job(job).release_and_enqueue(job.id)

    def _claim(self, job_id: str) -> Untold | None:
        """Return a dead job for whoever tells of it; None when somebody else does, or there is nothing to tell."""
        queue_class = self._engine.queue_class
        job = self._engine.job_class(connection=self._client)
        job._id = job_id
        try:
            record = self._client.hgetall(job.key)
            job.restore(record)
            if self._client.exists(job.dependents_key):
                queue = queue_class(job.origin, connection=self._client, serializer=JsonSerializer)
                queue.enqueue_dependents(job, refresh_job_status=False)
            if job.has_rate_limit:
                self._free_slot(job, Dead("", ""))
        except (redis.ConnectionError, redis.TimeoutError):
            raise
        except Exception:
            record = {}  # its record is gone, or was never one
        if not self._client.zrem(self._untold, job_id):
            return None
        error = as_text(record.get(b"error", b"")) or "unknown"
        return Untold(job, error, job._exc_info or "Its record cannot be read.")

    def _give_back(self, token: str, fate: Fate, why: str) -> list[tuple[str, str]]:
        served = [self._keys(queue) for queue in self._served()]
        keys = [key for kind in (1, 0, 2) for key in (one[kind] for one in served)]
        error = "AbandonedJobError" if fate == "crash" else "Stopped"
        packed = zlib.compress(why.encode())
        arguments = (
            token, self._moment(), utcformat(now()), self._jobs, results_key(""), fate,
            self._engine.settings.max_crashes, self._engine.failure_ttl, error, why, packed, b64encode(packed),
        )  # fmt: skip
        found = GIVE_BACK.run(self._client, (*keys, self._untold), arguments)
        pairs = [as_text(one).rpartition(":") for one in found]
        given_back = [(job_id, became) for job_id, _, became in pairs]
        with suppress(Unavailable):
            self._engine.counts.given_back(self._engine, given_back)
        return given_back

    @contextmanager
    def _away(self) -> Iterator[None]:
        """Say in the worker's words that Redis cannot be reached."""
        try:
            yield
        except (redis.RedisError, OSError) as error:
            # Also a Redis that answers and takes nothing: read-only, out of memory, loading.
            self._hold = time.monotonic() + self._lease
            raise SourceAway(f"Redis: {type(error).__name__}: {error}"[:300]) from error


def _texts(members: set[bytes]) -> frozenset[str]:
    return frozenset(as_text(member) for member in members)


def _impatient(client: redis.Redis) -> redis.Redis:
    """Let each command give up soon: the worker has its own way to wait for Redis, and to stop meanwhile."""
    client.connection_pool.connection_kwargs.update(socket_timeout=_PATIENCE, retry=Retry(NoBackoff(), 0))
    return client
