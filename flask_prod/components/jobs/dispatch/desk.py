"""From a call to a job that is kept: everything that can be wrong is said before anything is stored."""

from __future__ import annotations

import difflib
import hashlib
from collections.abc import Iterable, Mapping, Sequence
from inspect import BoundArguments
from typing import TYPE_CHECKING, Any
from uuid import NAMESPACE_URL, uuid5

from rq.job import Job, JobStatus, Retry
from rq.utils import now

from flask_prod.core.errors import Unavailable

from ..tasks.retries import delays
from .accept import Answer, Claim, Keeper, Order, Slot
from .job import AppJob, AppQueue, origin_of_request, told
from .payload import JsonSerializer, Unencodable

if TYPE_CHECKING:
    from ..engine import Engine
    from ..tasks.options import Options, Unique
    from ..tasks.task import AnyTask

Call = tuple[Sequence[Any], Mapping[str, Any]]

_SHOWN = 5
"""Queue names that an error message lists."""


class Desk:
    """Takes jobs for one application."""

    def __init__(self, engine: Engine, keeper: Keeper) -> None:
        self._engine = engine
        self.keeper = keeper

    def dispatch(self, task: AnyTask, options: Options, call: Call, slot: Slot | None = None) -> Job:
        """Queue one call of *task* and return its job, or the one that a unique job found there."""
        engine = self._engine
        self._check(task, options)
        with engine.tracer.span(f"send {task.name}", "producer", told("send", options.queue)) as span:
            order = self.order(task, options, call, slot)
            span.set("messaging.message.id", order.job.id)
            answer = self.keeper.accept([order])[0]
        return self._answered(task, order, answer)

    def dispatch_many(self, task: AnyTask, options: Options, calls: Iterable[Call]) -> list[Job]:
        """Queue many calls of *task*; each is built before the first is sent."""
        self._check(task, options)
        with self._engine.tracer.span(f"send {task.name}", "producer", told("send", options.queue)) as span:
            queue = self._engine.queue(options.queue)
            orders = [self.order(task, options, call, queue=queue) for call in calls]
            span.set("messaging.batch.message_count", len(orders))
            answers = self._accept_all(task, orders)
        return [self._answered(task, order, answer) for order, answer in zip(orders, answers, strict=True)]

    def order(
        self,
        task: AnyTask,
        options: Options,
        call: Call,
        slot: Slot | None = None,
        queue: AppQueue | None = None,
    ) -> Order:
        """Build one job without a word to Redis; TypeError or ValueError says what is wrong with the call."""
        bound = task.shape.bind(*call)
        args, kwargs = call
        if task.shape.has_enums:
            args = [task.shape.stored(value) for value in args]
            kwargs = {name: task.shape.stored(value) for name, value in kwargs.items()}
        try:
            claim = self._claim(task, options.unique, call, bound) if options.unique else None
            job = self._build(queue or self._engine.queue(options.queue), task, options, (args, kwargs), slot)
            self._weigh(task, job)
        except Unencodable as error:
            raise TypeError(task.shape.blame(bound, error)) from None
        return Order(
            job=job,
            queue=options.queue,
            # RQ writes what is empty too, a third of the record; a field that is missing means the same to it.
            fields={name: value for name, value in job.to_dict().items() if value not in ("", None)},
            due=options.due,
            front=options.priority == "high",
            after=options.after,
            group=options.group,
            claim=claim,
            slot=slot,
            session=options.session,
        )

    def slot_id(self, slot: Slot) -> str:
        """Return the id of the job for a slot: whoever dispatches it means the same job."""
        return str(uuid5(NAMESPACE_URL, f"{self._engine.redis.key('')}{slot.schedule}@{slot.moment}"))

    def _accept_all(self, task: AnyTask, orders: Sequence[Order]) -> list[Answer]:
        """Send orders in batches, so that an error can say how many were accepted."""
        answers: list[Answer] = []
        for start in range(0, len(orders), self.keeper.batch):
            try:
                answers += self.keeper.accept(orders[start : start + self.keeper.batch])
            except Unavailable as error:
                raise Unavailable(
                    f"{task.name}: {len(answers)} of {len(orders)} jobs were accepted, then: {error}"
                ) from error
        return answers

    def _answered(self, task: AnyTask, order: Order, answer: Answer) -> Job:
        if answer.kind == "accepted":
            self._engine.counts.enqueued.inc(order.queue, task.name)
            return order.job
        if answer.kind == "missing":
            raise ValueError(
                f"{task.name}: there is no job {answer.job_id!r} to run after; its result may have been kept for "
                "less time (JOBS_RESULT_TTL)"
            )
        if answer.kind == "duplicate":
            return self._engine.fetch(answer.job_id)
        return order.job

    def _check(self, task: AnyTask, options: Options) -> None:
        """Refuse what would be kept and never run."""
        if task.function.__module__ == "__main__":
            raise ValueError(
                f"{task.name} is defined in the file that was started; move it to a module workers can import."
            )
        self.keeper.ready(task.name)
        if options.session is not None and not self._engine.backend.outboxed:
            raise ValueError(
                f"{task.name}: within() writes to the outbox, so set JOBS_OUTBOX to fallback or always"
            )
        if options.after and options.due:
            raise ValueError(f"{task.name}: a job that runs after others cannot have a time as well")
        known = self._engine.known_queues()
        if options.queue not in known:
            near = difflib.get_close_matches(options.queue, known, 1)
            hint = f"; did you mean {near[0]!r}?" if near else f"; known are {', '.join(sorted(known)[:_SHOWN])}."
            raise ValueError(
                f"{task.name}: no worker serves a queue {options.queue!r}: name it in JOBS_QUEUES, or in a job's "
                f"decorator{hint}"
            )

    def _build(self, queue: AppQueue, task: AnyTask, options: Options, call: Call, slot: Slot | None) -> AppJob:
        """Build RQ's job."""
        engine = self._engine
        retry = Retry(options.retry, delays(options.retry, options.backoff)) if options.retry else None
        meta: dict[str, Any] = {**origin_of_request(), **engine.tracer.carrier()}
        if options.tags:
            meta["tags"] = list(dict.fromkeys(options.tags))
        if slot is not None:
            meta["slot"] = slot.moment
        job = queue.create_job(
            task,
            args=tuple(call[0]),
            kwargs=dict(call[1]),
            timeout=engine.timeout(options.timeout),
            meta=meta,
            status=JobStatus.SCHEDULED if options.due else JobStatus.QUEUED,
            retry=retry,
            depends_on=list(options.after) or None,
            group_id=engine.redis.key(options.group) if options.group else None,
            job_id=None if slot is None else self.slot_id(slot),
        )
        assert isinstance(job, AppJob)
        job.idempotent = options.idempotent
        if options.limit is not None:
            key, job.rate_limit_concurrency = options.limit
            job.rate_limit_key = engine.redis.key("limit", key or task.name)
        job.enqueue_at_front = True if options.priority == "high" else None
        job.enqueued_at = None if options.due else now()
        return job

    def _weigh(self, task: AnyTask, job: Job) -> None:
        """Encode the call; ValueError when it is larger than a job may be."""
        size, limit = len(job.data), self._engine.settings.payload_limit
        if size > limit:
            raise ValueError(
                f"{task.name}: its arguments take {size:,} bytes, and JOBS_PAYLOAD_LIMIT is {limit:,}; pass an id "
                "and let the job read the rest"
            )

    def _claim(self, task: AnyTask, unique: Unique, call: Call, bound: BoundArguments) -> Claim:
        """Return what a unique job claims; of all arguments, by name and by position make no difference."""
        if unique.key is not None:
            what = unique.key(*call[0], **call[1])
        else:
            bound.apply_defaults()
            what = [[name, task.shape.stored(value)] for name, value in bound.arguments.items()]
        digest = hashlib.sha256(JsonSerializer.dumps(what)).hexdigest()[:32]
        return Claim(f"{task.name}:{digest}", unique.seconds, unique.until)
