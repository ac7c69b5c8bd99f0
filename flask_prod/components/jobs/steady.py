"""An RQ worker that outlives its Redis: what fails while it is away is done again when it is back."""

from __future__ import annotations

import logging
import time
from contextlib import suppress
from typing import Any

import redis
from redis.backoff import ExponentialBackoff
from redis.retry import Retry
from rq import worker_registration
from rq.job import Job
from rq.worker import Worker

from .engine import Engine

logger = logging.getLogger(__name__)

AWAY = (redis.ConnectionError, redis.TimeoutError)
"""How redis-py says that the server cannot be reached."""

_READ_LIMIT = 5.0
"""Seconds until a Redis that does not answer counts as away; more than a worker ever waits for a job."""


class SteadyWorker(Worker):
    """Gives up soon on each command, and waits for Redis in one place, where it can also be stopped."""

    engine: Engine

    def _set_connection(self, connection: redis.Redis) -> redis.Redis:
        """Give up soon in the worker itself, which has its own way to wait for Redis and to stop meanwhile."""
        connection.connection_pool.connection_kwargs.update(
            socket_timeout=_READ_LIMIT, retry=Retry(ExponentialBackoff(cap=0.5, base=0.1), 2)
        )
        return connection

    def get_heartbeat_ttl(self, job: Job, working_time: float = 0.0) -> int:
        """Return the seconds after which a silent job counts as abandoned."""
        return 3 * self.engine.heartbeat

    # RQ's loop ends a worker when one of these fails; ours notices at the next look for a job, and waits there.

    def check_for_suspension(self, burst: bool) -> None:
        """Rest while `rq suspend` holds."""
        with suppress(*AWAY):
            super().check_for_suspension(burst)

    def run_maintenance_tasks(self) -> None:
        """Look after what others left."""
        with suppress(*AWAY):
            super().run_maintenance_tasks()  # type: ignore[no-untyped-call]

    def set_state(self, state: str, pipeline: Any = None) -> None:
        """Tell RQ's tools what this worker does."""
        with suppress(*AWAY):
            super().set_state(state, pipeline)

    def heartbeat(self, timeout: int | None = None, pipeline: Any = None) -> None:
        """Say that this worker lives, for three beats."""
        with suppress(*AWAY):
            super().heartbeat(3 * self.engine.heartbeat, pipeline)

    def wait_for_redis(self, error: Exception) -> None:
        """Wait until Redis answers or a stop is asked for, then register anew: Redis may have forgotten."""
        logger.warning("Redis is away (%s); the worker waits for it", type(error).__name__)
        while not self._stop_requested:
            time.sleep(0.5)
            try:
                with self.connection.pipeline() as pipeline:
                    pipeline.hset(self.key, mapping=self.serialize())
                    worker_registration.register(self, pipeline)
                    self.heartbeat(pipeline=pipeline)
                    pipeline.execute()
            except (redis.RedisError, OSError):
                continue
            logger.warning("Redis is back")
            return
