"""What living workers do for dead ones: retry or fail their jobs, put back what they took and never began."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from typing import Any

import redis
from rq import worker_registration
from rq.queue import Queue
from rq.registry import clean_registries
from rq.scripts import release_lock

from .scripts import RESCUE

logger = logging.getLogger(__name__)

_LOCK_SECONDS = 30
"""How long a housekeeper may take; RQ's own lock lasts fifteen minutes when its holder dies."""


class Housekeeper:
    """Looks after queues for one worker; `patience` is how many seconds a worker may be silent."""

    def __init__(self, connection: redis.Redis, owner: str, patience: float) -> None:
        self._connection = connection
        self._owner = owner
        self._patience = patience
        self._seen: dict[tuple[str, str], float] = {}

    def clean(self, queue: Queue, handlers: Sequence[Callable[..., Any]]) -> None:
        """Clean one queue unless another worker is at it; what is wrong with the queue's data is logged."""
        lock = f"{queue.key}:flask-prod-housekeeper"
        if not self._connection.set(lock, self._owner, nx=True, ex=_LOCK_SECONDS):
            return
        try:
            clean_registries(queue, list(handlers))
            worker_registration.clean_worker_registry(queue)
            self._rescue(queue)
        except (redis.ConnectionError, redis.TimeoutError):
            raise
        except Exception:
            logger.exception("Looking after %s failed", queue.name)
        finally:
            release_lock(self._connection, lock, self._owner)

    def _rescue(self, queue: Queue) -> None:
        """Put back what lies between taken and started for longer than a worker may be silent.

        Since when is remembered here and not in Redis: there, RQ would take a job that was seen once for one that
        is stuck when it passes again.
        """
        moment = time.monotonic()
        started = set(queue.started_job_registry.get_job_ids(cleanup=False))
        between = [job_id for job_id in queue.intermediate_queue.get_job_ids() if job_id not in started]
        mine = {(queue.name, job_id): self._seen.get((queue.name, job_id), moment) for job_id in between}
        others = {key: since for key, since in self._seen.items() if key[0] != queue.name}
        self._seen = {**others, **mine}
        for (_, job_id), since in mine.items():
            if moment - since >= self._patience:
                keys = (queue.intermediate_queue_key, queue.key, queue.job_class.key_for(job_id))
                if RESCUE.run(self._connection, keys, (job_id,)):
                    logger.warning("Job %s was taken and never begun; it is queued again", job_id)
