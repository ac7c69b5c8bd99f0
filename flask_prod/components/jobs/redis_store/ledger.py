"""How the end of an attempt is written down in Redis: which script, in which of RQ's keys."""

from __future__ import annotations

import zlib
from base64 import b64encode
from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

from rq.job import Job
from rq.results import Result
from rq.utils import now, utcformat

from ..delivery.source import Again, Dead, Delivery, Finished, Outcome, Released
from ..dispatch.payload import JsonSerializer
from .scripts import BURY, FINISH, PUT_BACK, Call

if TYPE_CHECKING:
    from redis import Redis

    from ..engine import Engine

_MARKER_LIFE = 86400
"""Seconds for which a finished idempotent job is remembered, if its result is not kept for longer."""


class Keys(NamedTuple):
    """The keys of one queue."""

    waiting: str
    running: str
    failed: str
    finished: str
    scheduled: str


class Ledger:
    """Knows for one worker what each outcome means in Redis; runs nothing itself."""

    def __init__(
        self, engine: Engine, client: Redis, worker: str, keys: Callable[[str], Keys], moment: Callable[[], float]
    ) -> None:
        self._engine = engine
        self._client = client
        self._worker = worker
        self._keys = keys
        self._moment = moment
        self._marker = engine.redis.key("jobs", "done", "")
        self._untold = engine.redis.key("jobs", "untold")

    def call(self, delivery: Delivery, outcome: Outcome) -> Call:
        """Return the script that writes down how an attempt ended."""
        job, keys = delivery.job, self._keys(delivery.queue)
        member = f"{job.id}:{delivery.token}"
        if isinstance(outcome, Finished):
            return self.finishing(delivery, outcome, "repeat" if job.repeats_left else "")
        if isinstance(outcome, Dead):
            return self._burying(delivery, outcome)
        text = utcformat(now())
        if isinstance(outcome, Released):
            fields = ("status", "queued", "started_at", "")
            counted = "interrupted" if outcome.begun else ""
            where = (member, job.id, "", "front", counted, *fields)
            return PUT_BACK, (keys.running, job.key, keys.waiting, keys.scheduled), where
        place, status = ("due", "scheduled") if outcome.seconds > 0 else ("back", "queued")
        if place == "back" and job.enqueue_at_front_on_retry:
            place = "front"
        return (
            PUT_BACK,
            (keys.running, job.key, keys.waiting, keys.scheduled),
            (
                member, job.id, self._moment() + outcome.seconds, place, "",
                "status", status, "ended_at", text, *_spent(job, outcome),
                "exc_info", zlib.compress(outcome.reason.encode(errors="replace")),
            ),
        )  # fmt: skip

    def finishing(self, delivery: Delivery, outcome: Finished, unless: str) -> Call:
        """Return the script for a good end; *unless* is repeat, anyhow, or empty: unless others wait for it."""
        job, keys = delivery.job, self._keys(delivery.queue)
        ttl = self._engine.result_ttl if job.result_ttl is None else job.result_ttl
        marker = max(_MARKER_LIFE, ttl) if getattr(job, "idempotent", False) else 0
        result = Result(
            job.id, Result.Type.SUCCESSFUL, self._client, return_value=outcome.result, worker_name=self._worker,
            execution_id=delivery.token,
            execution_started_at=job.started_at, execution_ended_at=now(),
        )  # fmt: skip
        result.serializer = JsonSerializer  # given above, RQ would look at it at length
        fields = [part for pair in result.serialize().items() for part in pair]
        return (
            FINISH,
            (
                keys.running, job.key, results_key(job.id), keys.finished, job.dependents_key, keys.waiting,
                self._marker + job.id,
            ),
            (
                f"{job.id}:{delivery.token}", job.id, utcformat(now()), self._moment(), ttl, marker, unless,
                *fields,
            ),
        )  # fmt: skip

    def _burying(self, delivery: Delivery, outcome: Dead) -> Call:
        job, keys = delivery.job, self._keys(delivery.queue)
        packed = zlib.compress(outcome.reason.encode(errors="replace"))
        result = (
            "type", Result.Type.FAILED.value, "worker_name", self._worker, "exc_string", b64encode(packed),
            "execution_id", delivery.token,
        )  # fmt: skip
        ttl = self._engine.failure_ttl if job.failure_ttl is None else job.failure_ttl
        fields = (
            "status", "failed", "ended_at", utcformat(now()), "exc_info", packed, "error", outcome.error,
        )  # fmt: skip
        return (
            BURY,
            (keys.running, job.key, keys.failed, results_key(job.id), self._untold),
            (f"{job.id}:{delivery.token}", job.id, self._moment(), ttl, len(result), *result, *fields),
        )


def results_key(job_id: str) -> str:
    """Return the key of a job's results; of an empty id, what all of them begin with."""
    key: str = Result.get_key(job_id)  # type: ignore[no-untyped-call]
    return key


def _spent(job: Job, outcome: Again) -> tuple[str, int]:
    """Return the field of the job that counts this attempt, and its value."""
    if outcome.asked:
        return "number_of_retries", (job.number_of_retries or 0) + 1
    return "retries_left", max(0, (job.retries_left or 0) - 1)
