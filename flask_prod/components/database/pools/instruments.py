"""The metrics of pools; made when the room is installed, before anybody knows whether SQLAlchemy is needed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

from flask_prod.core.ports import CounterPort, GaugePort, HistogramPort, Meter

_BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 1.5, 2.5)


@dataclass(frozen=True, slots=True)
class Instruments:
    """What is measured of pools, by `pool`: primary, replica-1, tenant, own."""

    connections: GaugePort
    waiting: GaugePort
    wait: HistogramPort
    timeouts: CounterPort
    changes: CounterPort

    @classmethod
    def of(cls, meter: Meter) -> Self:
        """Make them."""
        connections = meter.gauge(
            "flask_prod_database_pool_connections",
            "Connections of one process: in_use, open, max, and overflow, which are open beyond what stays.",
            ("pool", "state"),
        )
        waiting = meter.gauge(
            "flask_prod_database_pool_waiting", "Threads of one process that wait for a connection.", ("pool",)
        )
        wait = meter.histogram(
            "flask_prod_database_pool_wait_seconds",
            "How long those waited for a connection who had to, in seconds.", ("pool",), _BUCKETS,
        )  # fmt: skip
        timeouts = meter.counter(
            "flask_prod_database_pool_timeouts_total", "Waits for a connection that were in vain.", ("pool",)
        )
        changes = meter.counter(
            "flask_prod_database_connections_total", "Connections by change: opened, closed, invalidated.",
            ("pool", "change"),
        )  # fmt: skip
        return cls(connections, waiting, wait, timeouts, changes)
