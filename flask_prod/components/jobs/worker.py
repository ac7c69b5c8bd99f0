"""RQ's forking worker, made to lose nothing it has taken.

What differs from `rq worker`, and why:

- A stop sets a flag and waiting is done in short slices, so a job is never taken and then dropped (rq#2236).
- A second stop kills the running job and puts it back to the front of its queue; RQ leaves it "started" for ever.
- Several queues are asked in turn with LMOVE; RQ's BLPOP loses the job that it popped when the worker dies.
- Heartbeats live for three beats, and every worker looks for abandoned jobs once per beat, also while it works:
  RQ's idle worker looks every ten minutes at best.
- Scheduled jobs are moved by one atomic script of any worker; there is no scheduler process that can be missing.
- All of that runs in the main thread: no fork happens while another thread of ours holds a lock.
"""

from __future__ import annotations

import logging
import os
import signal
import socket
import time
from collections.abc import Sequence
from types import FrameType
from typing import Any

from redis.backoff import ExponentialWithJitterBackoff
from redis.retry import Retry
from rq.exceptions import AbandonedJobError, DequeueTimeout, InvalidJobOperation, NoSuchJobError
from rq.executions import Execution
from rq.job import Job, JobStatus
from rq.queue import Queue
from rq.utils import now
from rq.worker.base import WorkerStatus

from .engine import Engine
from .housekeeping import Housekeeper
from .job import facts, in_request_of, label_of
from .payload import JsonSerializer
from .processes import die_with_parent
from .steady import AWAY, SteadyWorker

logger = logging.getLogger(__name__)

_SLICE = 1.0
"""Seconds a worker of one queue waits for a job before it looks whether it should stop."""

_SLICE_OF_MANY = 0.2
"""The same with several queues, since only the first is waited for."""


class AppWorker(SteadyWorker):
    """A worker for the queues of one application."""

    def __init__(self, engine: Engine, queues: Sequence[str], name: str) -> None:
        self.engine = engine
        connection = engine.redis.client("blocking")
        super().__init__(
            [engine.queue(queue, connection) for queue in queues],
            # The end is random: a name must not be taken while its last bearer, killed, is still in the books.
            name=f"{name}.{os.getpid()}.{os.urandom(2).hex()}",
            default_result_ttl=engine.result_ttl,
            connection=connection,
            exception_handlers=[self._note_abandoned],
            maintenance_interval=engine.heartbeat,
            worker_ttl=3 * engine.heartbeat,
            job_class=engine.job_class,
            queue_class=engine.queue_class,
            job_monitoring_interval=engine.heartbeat,
            serializer=JsonSerializer,
        )
        self._own_pid = os.getpid()
        if engine.traces is not None:
            engine.traces.load()  # the children of this process share what is imported now
        self._error = ""
        self._beat_at = self._due_at = 0.0
        self._housekeeper = Housekeeper(connection, self.name, 3 * engine.heartbeat)

    @property
    def stopping(self) -> bool:
        """True once a stop was asked for."""
        return self._stop_requested

    # Stopping

    def _install_signal_handlers(self) -> None:
        """Leave signals to the process, which owns them before and after this worker."""

    def request_stop(self, signum: int = signal.SIGTERM, frame: FrameType | None = None) -> None:
        """Stop when the running job has ended."""
        self._shutdown_requested_date = now()
        self._stop_requested = True

    def request_force_stop(self, signum: int = signal.SIGTERM, frame: FrameType | None = None) -> None:
        """Stop now: the running job is killed and goes back to the front of its queue.

        Ignored in the first second after the first request, when a terminal and a supervisor both pass one on.
        """
        if self.horse_pid:
            super().request_force_stop(signum, frame)

    def execute_job(self, job: Job, queue: Queue) -> None:
        """Run one job in a forked child, and count how it ended."""
        try:
            super().execute_job(job, queue)
            self._count(job)
        except SystemExit:
            self._give_back(job, queue)
            raise
        except AWAY as error:
            # No child is left here: either none was forked, or the job has ended and could not be written down.
            logger.warning(
                "Job %s lost its Redis (%s); it is found when that is back", job.id, type(error).__name__
            )

    def _give_back(self, job: Job, queue: Queue) -> None:
        """Put an interrupted job to the front of its queue, unless it had come to its end."""
        try:
            never_begun = self.connection.lrem(queue.intermediate_queue_key, 1, job.id)
            job.refresh()  # type: ignore[no-untyped-call]
            with self.connection.pipeline() as pipeline:
                for execution in tuple(self.executions.values()):
                    self.cleanup_execution(job, pipeline=pipeline, execution=execution)
                if never_begun or job.get_status(refresh=False) == JobStatus.STARTED:
                    job.meta["interrupted"] = int(job.meta.get("interrupted", 0)) + 1
                    job.started_at = None
                    queue._enqueue_job(job, pipeline=pipeline, at_front=True)
                pipeline.execute()
        except NoSuchJobError:
            return
        except AWAY as error:
            logger.warning("Job %s could not be put back (%s); it is found by its heartbeat", job.id, error)

    # Waiting

    def dequeue_job_and_maintain_ttl(
        self, timeout: int | None, max_idle_time: int | None = None
    ) -> tuple[Job, Queue] | None:
        """Return the next job; None when a stop was asked for, or in burst mode when there is none."""
        burst = timeout is None
        self.set_state(WorkerStatus.IDLE)
        while not self._stop_requested:
            try:
                self._tick(burst)
                found = self._take(burst)
            except AWAY as error:
                self.wait_for_redis(error)
                continue
            if found is not None or burst:
                return found
        return None

    def _take(self, burst: bool) -> tuple[Job, Queue] | None:
        """Ask all queues in order of urgency, then wait for the first one for a moment."""
        for queue in self.queues:
            found = self._pop(queue, None)
            if found is not None:
                return found
        if burst:
            return None
        try:
            return self._pop(self.queues[0], _SLICE if len(self.queues) == 1 else _SLICE_OF_MANY)
        except DequeueTimeout:
            return None

    def _pop(self, queue: Queue, seconds: float | None) -> tuple[Job, Queue] | None:
        """Take the next job of one queue; those that cannot be read are put aside on the way."""
        while True:
            try:
                return self.queue_class.dequeue_any(
                    [queue],
                    seconds,  # type: ignore[arg-type]  # Redis takes fractions
                    self.connection,
                    self.job_class,
                    self.serializer,
                    self.death_penalty_class,
                )
            except (*AWAY, DequeueTimeout):
                raise
            except Exception as error:
                job_id = getattr(error, "job_id", None)
                if job_id is None:
                    raise
                self._bury(job_id, queue, error)

    def _bury(self, job_id: str, queue: Queue, error: Exception) -> None:
        """Put a job whose record cannot be read among the failed ones, where it stops nobody."""
        with self.connection.pipeline() as pipeline:
            pipeline.lrem(queue.intermediate_queue_key, 1, job_id)
            pipeline.zadd(queue.failed_job_registry.key, {job_id: int(time.time()) + self.engine.failure_ttl})
            pipeline.execute()
        logger.error(
            "Job %s on %s cannot be read: %s", job_id, self.engine.short(queue.name), type(error).__name__
        )
        self.engine.failed.inc(self.engine.short(queue.name), "unknown")

    # Looking after what others left

    def _tick(self, burst: bool) -> None:
        """Do what is due between jobs: a heartbeat, a rest while `rq suspend` holds, the work of a housekeeper."""
        moment = time.monotonic()
        if moment >= self._beat_at:
            self._beat_at = moment + self.engine.heartbeat
            self.check_for_suspension(burst)
        self._keep_house()

    def _keep_house(self) -> None:
        """Do what is due, also while a job runs: maintenance, and scheduled jobs."""
        moment = time.monotonic()
        if self.should_run_maintenance_tasks:
            self.run_maintenance_tasks()
        if moment >= self._due_at:
            self._due_at = moment + 1
            self.engine.enqueue_due(self.queues, self.connection)

    def clean_registries(self) -> None:
        """Look after the queues; every worker does, once per beat."""
        for queue in self.queues:
            self._housekeeper.clean(queue, self._exc_handlers)
        self.last_cleaned_at = now()  # type: ignore[assignment]  # RQ declares it by its first value, None

    def _note_abandoned(self, job: Job, *exc_info: Any) -> None:
        """Tell of an abandoned job without attempts left; RQ fails it right after this handler."""
        if exc_info[0] is AbandonedJobError and not job.should_retry:
            self.engine.failed.inc(self.engine.short(job.origin), label_of(job))
            self.engine.give_up(job, "AbandonedJobError", "The worker that ran it has gone.")

    # Heartbeats

    def maintain_heartbeats(self, job: Job, execution: Execution) -> None:
        """Beat for worker and job, and look after others meanwhile; a Redis that is away must not end the job."""
        try:
            super().maintain_heartbeats(job, execution)
            self._keep_house()
        except AWAY as error:
            logger.warning("No heartbeat for job %s: %s", job.id, type(error).__name__)

    # The child

    def setup_work_horse_signals(self) -> None:
        """Let the parent alone decide: service managers send SIGTERM to every process of a service.

        A handler rather than SIG_IGN, which programs that the job starts would inherit.
        """
        signal.signal(signal.SIGINT, _stay)
        signal.signal(signal.SIGTERM, _stay)

    def main_work_horse(self, job: Job, queue: Queue) -> None:
        """Run one job in the forked child and leave."""
        die_with_parent(signal.SIGKILL, self._own_pid)  # an orphan would run beside the second attempt
        # The result is worth waiting for; the parent keeps the heartbeat meanwhile.
        self.connection.connection_pool.connection_kwargs["retry"] = Retry(
            ExponentialWithJitterBackoff(base=0.2, cap=5), 10
        )
        super().main_work_horse(job, queue)

    def prepare_job_execution(self, job: Job, remove_from_intermediate_queue: bool = True) -> None:
        """Mark the job as started; with several queues RQ would leave it in the intermediate one."""
        super().prepare_job_execution(job, True)

    def perform_job(self, job: Job, queue: Queue, execution: Execution) -> bool:
        """Perform the job, then close what the application opened in this process: reports are sent."""
        try:
            return bool(super().perform_job(job, queue, execution))
        finally:
            if self.is_horse:
                self.engine.app.extensions["prod"].lifecycle.close()

    # How it ended

    def handle_exception(self, job: Job, *exc_info: Any) -> None:
        """Log a failed attempt, without the arguments that RQ would add to the record."""
        self._error = exc_info[0].__name__
        with in_request_of(job):
            left = job.retries_left or 0
            outlook = f"{left} attempts left" if left else "for the last time"
            words = ("Job %s (%s) failed, %s", label_of(job), job.id, outlook)
            logger.warning(*words, exc_info=exc_info, extra=facts(job))

    def handle_job_failure(
        self,
        job: Job,
        queue: Queue,
        started_job_registry: Any = None,
        exc_string: str = "",
        execution: Execution | None = None,
    ) -> None:
        """Retry or fail the job; after the last attempt tell of it, here or for a child that was killed."""
        final = not job.should_retry and self._stopped_job_id != job.id
        super().handle_job_failure(job, queue, started_job_registry, exc_string, execution)
        if final:
            self.engine.give_up(job, self._error or "WorkHorseKilled", exc_string)
        self._error = ""

    def _count(self, job: Job) -> None:
        """Count the job in this process: its child is gone, and each child would leave a file of metrics."""
        try:
            status = job.get_status()
        except InvalidJobOperation:
            status = JobStatus.FINISHED  # its result is not kept
        queue = self.engine.short(job.origin)
        if status == JobStatus.FINISHED:
            self.engine.finished.inc(queue, label_of(job))
        elif status == JobStatus.FAILED:
            self.engine.failed.inc(queue, label_of(job))


def worker_name(engine: Engine) -> str:
    """Return the beginning of a worker's name: who, and where."""
    service = engine.redis.key("").strip(":").replace(":", ".")
    return f"{service}.{socket.gethostname()}"


def _stay(_signum: int, _frame: FrameType | None) -> None:
    """Do nothing, but let the program that the job starts have the signal."""
