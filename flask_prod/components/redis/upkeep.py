"""What is done in the background, every few seconds: count connections, follow the primary, look at the server."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from time import monotonic
from typing import Any

from flask_prod.core.component import Event
from flask_prod.core.ports import Meter
from flask_prod.core.run_dir import Leader

from .clients import finder_of
from .cluster import ClusterClient
from .failures import BROKEN
from .pools import CountingPool
from .review import Review

EVERY = 5.0
"""Seconds between two rounds: as fresh as a scrape wants it."""

_REVIEW_EVERY = 300.0
"""Seconds between two looks at how the server is set up: nobody changes that often."""

_AGAIN = 30.0
"""Seconds until the next look when one failed."""

_JOBS = ("jobs", "blocking")
"""Purposes that exist where this process uses jobs."""


class Upkeep:
    """Does one round at a time, in the thread that components share; never on the request path."""

    def __init__(self, meter: Meter, emit: Callable[[Event], None]) -> None:
        self.review = Review()
        self._pools = PoolGauges(meter)
        self._emit = emit
        self._review_at = 0.0
        self.leader = Leader(None, "redis-review")
        """Of the processes of a host one tells what all of them see."""

    def run(self, clients: Mapping[str, Any], client: Callable[[str], Any], away: bool) -> None:
        """Do what is due; *client* builds one for a purpose, *away* is true while the server is left alone."""
        self._pools.show(clients)
        if away:
            return
        for one in clients.values():
            _follow(one)
        if monotonic() >= self._review_at and not isinstance(clients.get("request"), ClusterClient):
            self._look(client("locks"), any(purpose in clients for purpose in _JOBS))

    def _look(self, client: Any, has_jobs: bool) -> None:
        before = self.review.warnings
        try:
            self.review.look(client, has_jobs)
        except BROKEN:
            self._review_at = monotonic() + _AGAIN  # away for a moment, or a user who may not look at RQ's keys
            return
        self._review_at = monotonic() + _REVIEW_EVERY
        for warning in self.review.warnings:
            if warning not in before and self.leader.leads():
                self._emit(Event("prod.redis.jobs_at_risk", warning, "warning", dict(self.review.data)))


class PoolGauges:
    """The connections of one process in metrics, by purpose."""

    def __init__(self, meter: Meter) -> None:
        self._connections = meter.gauge(
            "flask_prod_redis_connections", "Connections by purpose: used, idle, and the most there may be.",
            ("purpose", "state"),
        )  # fmt: skip
        self._waits = meter.counter(
            "flask_prod_redis_pool_waits_total", "Calls that found all connections in use.", ("purpose",)
        )
        self._timeouts = meter.counter(
            "flask_prod_redis_pool_timeouts_total", "Calls that waited for a connection in vain.", ("purpose",)
        )
        self._seen: dict[str, tuple[int, int]] = {}

    def show(self, clients: Mapping[str, Any]) -> None:
        """Set and count by what the pools say now."""
        for purpose, client in clients.items():
            pool = getattr(client, "connection_pool", None)
            if isinstance(pool, CountingPool):
                self._show(purpose, pool)

    def _show(self, purpose: str, pool: CountingPool) -> None:
        self._timeouts.show(purpose)
        used, idle = pool.used_and_idle()
        for state, value in (("used", used), ("idle", idle), ("max", pool.max_connections)):
            self._connections.set(float(value), purpose, state)
        waits, timeouts = self._seen.get(purpose, (0, 0))
        self._seen[purpose] = (pool.waits, pool.timeouts)
        for _ in range(pool.waits - waits):
            self._waits.inc(purpose)
        for _ in range(pool.timeouts - timeouts):
            self._timeouts.inc(purpose)


def _follow(client: Any) -> None:
    """Leave a server that is not the primary any more, although it answers."""
    finder = finder_of(client)
    if finder is None or not finder.has_moved():
        return
    if hasattr(client, "forget_roles"):
        client.forget_roles()
    else:
        client.connection_pool.drop_idle()
