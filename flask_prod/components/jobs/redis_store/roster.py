"""Worker processes as RQ's own tools know them: `rq info`, dashboards, `rq.worker.Worker.all()`."""

from __future__ import annotations

import math
import platform
import socket
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from rq.utils import now, utcformat
from rq.version import VERSION
from rq.worker import Worker
from rq.worker_registration import REDIS_WORKER_KEYS, WORKERS_BY_QUEUE_KEY

from ..delivery.source import Presence

if TYPE_CHECKING:
    from redis import Redis

    from ..engine import Engine


class Roster:
    """Writes the workers of one supervisor to RQ's registry."""

    def __init__(self, engine: Engine, queues: Sequence[str]) -> None:
        self._life = math.ceil(3 * engine.heartbeat)
        self._queues = queues
        self._host = socket.gethostname()

    def write(self, client: Redis, living: Sequence[Presence], gone: Sequence[str]) -> None:
        """Note who lives, for three heartbeats, and strike out who has ended."""
        registries = [REDIS_WORKER_KEYS, *(WORKERS_BY_QUEUE_KEY % queue for queue in self._queues)]
        with client.pipeline(transaction=False) as pipe:
            for one in living:
                key = Worker.redis_worker_namespace_prefix + one.name
                pipe.hset(key, mapping=self._record(one))
                pipe.expire(key, self._life)
                for registry in registries:
                    pipe.sadd(registry, key)
            for name in gone:
                key = Worker.redis_worker_namespace_prefix + name
                pipe.delete(key)
                for registry in registries:
                    pipe.srem(registry, key)
            pipe.execute()

    def _record(self, one: Presence) -> dict[Any, Any]:
        return {
            "birth": utcformat(datetime.fromtimestamp(one.born, UTC)),
            "last_heartbeat": utcformat(now()),
            "queues": ",".join(self._queues),
            "pid": one.pid,
            "hostname": self._host,
            "ip_address": "",
            "version": VERSION,
            "python_version": platform.python_version(),
            "state": one.state,
            "successful_job_count": one.jobs - one.failed,
            "failed_job_count": one.failed,
            "total_working_time": one.busy,
        }
