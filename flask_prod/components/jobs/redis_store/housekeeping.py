"""What living workers do for all: forget what has expired, and heal what RQ's own programs left half done."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

import redis
from rq import worker_registration
from rq.group import Group
from rq.queue import Queue
from rq.rate_limit import RateLimitRegistry
from rq.registry import FailedJobRegistry, FinishedJobRegistry, ReadyJobRegistry
from rq.scripts import release_lock

from .scripts import RESCUE

if TYPE_CHECKING:
    from ..engine import Engine

logger = logging.getLogger(__name__)

_LOCK_SECONDS = 30
"""How long a housekeeper may take; RQ's own lock lasts fifteen minutes when its holder dies."""


class Housekeeper:
    """Looks after the queues of one application; of several, one at a time does."""

    def __init__(self, engine: Engine, connection: redis.Redis, owner: str) -> None:
        self._engine = engine
        self._connection = connection
        self._owner = owner
        self._patience = 3 * engine.heartbeat
        self._seen: dict[tuple[str, str], float] = {}

    def clean(self, names: Sequence[str]) -> None:
        """Clean these queues unless another worker is at it; what is wrong with the data is logged."""
        lock = self._engine.redis.key("jobs", "housekeeper")
        if not self._connection.set(lock, self._owner, nx=True, ex=_LOCK_SECONDS):
            return
        try:
            for name in names:
                self._clean(self._engine.queue(name, self._connection))
            for registry in RateLimitRegistry.all(self._connection):
                registry.cleanup()
            Group.clean_registries(connection=self._connection)
        except (redis.ConnectionError, redis.TimeoutError):
            raise
        except Exception:
            logger.exception("Looking after the queues failed")
        finally:
            release_lock(self._connection, lock, self._owner)

    def _clean(self, queue: Queue) -> None:
        # Not StartedJobRegistry: RQ would retry or fail what lost its lease, and tell nobody.
        for kind in (FinishedJobRegistry, FailedJobRegistry, ReadyJobRegistry):
            kind(
                queue.name, connection=self._connection, job_class=queue.job_class, serializer=queue.serializer
            ).cleanup()
        worker_registration.clean_worker_registry(queue)
        self._rescue(queue)

    def _rescue(self, queue: Queue) -> None:
        """Put back what a plain `rq worker` took and has not begun for longer than a worker may be silent.

        Since when is remembered here and not in Redis: there, RQ would take a job that was seen once for one that
        is stuck when it passes again.
        """
        moment = time.monotonic()
        between = queue.intermediate_queue.get_job_ids()
        mine = {(queue.name, job_id): self._seen.get((queue.name, job_id), moment) for job_id in between}
        others = {key: since for key, since in self._seen.items() if key[0] != queue.name}
        self._seen = {**others, **mine}
        for (_, job_id), since in mine.items():
            if moment - since >= self._patience:
                keys = (queue.intermediate_queue_key, queue.key, queue.job_class.key_for(job_id))
                if RESCUE.run(self._connection, keys, (job_id,)):
                    logger.warning("Job %s was taken and never begun; it is queued again", job_id)
