"""What can be set about background jobs."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from ipaddress import ip_address
from typing import Annotated, ClassVar, Literal

from msgspec import Meta

from flask_prod.core.settings import Section
from flask_prod.core.values import DURATION, SIZE, Duration, Size

QUEUE_NAME = re.compile(r"[A-Za-z0-9_.-]{1,64}", re.ASCII)
"""No colon, which separates the namespace, and no comma, which separates queues in RQ's own records."""


class JobsSettings(Section, frozen=True, kw_only=True):
    """Which queues are served by how many workers, and how long jobs and their traces live."""

    prefix: ClassVar[str] = "JOBS_"
    keys: ClassVar[Mapping[str, tuple[str, ...]]] = {
        "worker_port": ("WORKER_PORT",),
        "worker_bind": ("WORKER_BIND",),
    }

    queues: tuple[str, ...] = ()
    """The queues a worker serves, the most urgent first, or with weights (high:3, default:1); empty means each
    queue that a job names, then default."""

    default_timeout: Annotated[float, Meta(ge=1, extra={"kind": DURATION})] = 180.0
    """How long a job may run that does not say so itself; whole seconds."""

    workers: Annotated[int, Meta(ge=1, le=64)] = 1
    """How many worker processes `flask prod worker` runs."""

    recovery: Annotated[float, Meta(ge=2, le=3600, extra={"kind": DURATION})] = 20.0
    """Within which time a job runs again whose worker or machine is gone; workers send a heartbeat in a fifth."""

    max_crashes: Annotated[int, Meta(ge=1, le=100)] = 3
    """How many processes a job may cost before it is dead; a crash costs no retry."""

    worker_port: Annotated[int, Meta(ge=0, le=65535)] = 0
    """Where `flask prod worker` answers its own probes and shows its own metrics; 0 for nowhere."""

    worker_bind: str = "0.0.0.0"  # noqa: S104  # probes and Prometheus call from elsewhere
    """The address that WORKER_PORT listens on."""

    memory_limit: Size = 0
    """A worker process that holds more ends after its job, and another takes its place; 0 for no limit."""

    max_jobs: Annotated[int, Meta(ge=0)] = 0
    """After so many jobs, give or take a tenth, a worker process is replaced; 0 for never."""

    max_age: Duration = 0.0
    """After so long, give or take a tenth, a worker process is replaced between two jobs; 0 for never."""

    payload_limit: Annotated[int, Meta(ge=256, le=64 * 1024**2, extra={"kind": SIZE})] = 64 * 1024
    """How many bytes the arguments of one job may take, encoded; a larger one is refused when it is dispatched."""

    warn_age: Duration = 600.0
    """The health check warns when a job has waited for longer; 0 for never."""

    warn_waiting: Annotated[int, Meta(ge=0)] = 0
    """The health check warns when more jobs wait on one queue; 0 for never."""

    warn_dead: Annotated[int, Meta(ge=0)] = 0
    """The health check warns when more jobs are dead; 0 for never."""

    result_ttl: Duration = 600.0
    """How long the result of a finished job is kept."""

    failure_ttl: Duration = 14 * 86400.0
    """How long a dead job is kept with its traceback."""

    backend: Literal["auto", "database", "memory", "eager"] = "auto"
    """Where jobs lie: auto is Redis, or the database where JOBS_OUTBOX is on and there is no REDIS_URL; memory
    runs them in a thread of this process, eager within the dispatch."""

    outbox: Literal["off", "fallback", "always"] = "off"
    """Whether jobs go to a table first: when Redis is away (fallback), or always, in the caller's transaction."""

    outbox_table: Annotated[str, Meta(pattern=r"^[A-Za-z_][A-Za-z0-9_]{0,47}$")] = "jobs_outbox"
    """The outbox's table; `flask prod jobs outbox create` makes it."""

    outbox_interval: Annotated[float, Meta(ge=0.05, le=60, extra={"kind": DURATION})] = 0.5
    """How often the relay looks into the outbox, and a worker without Redis for jobs."""

    outbox_keep: Annotated[float, Meta(ge=1, le=86400, extra={"kind": DURATION})] = 60.0
    """How long a relayed job stays in the outbox, to be sent once more to a Redis that was restarted meanwhile."""

    outbox_warn: Annotated[float, Meta(ge=1, extra={"kind": DURATION})] = 60.0
    """A job that waits in the outbox for longer makes the health check warn."""

    def problems(self) -> Iterator[str]:
        """Yield queue names that could not be told from one another in Redis, and an address that is none."""
        try:
            ip_address(self.worker_bind)
        except ValueError:
            yield f"WORKER_BIND must be an address to listen on, such as 127.0.0.1, not {self.worker_bind!r}."
        try:
            weights_of(self.queues)
        except ValueError as error:
            yield f"JOBS_QUEUES has {error}."


def weights_of(entries: Iterable[str]) -> dict[str, int]:
    """Return queues with their weights: all 0 when they are asked strictly in this order.

    ValueError for a name that is none, a weight that is not from 1 to 1000, and weights for some queues only.
    """
    weights: dict[str, int] = {}
    for entry in entries:
        name, colon, weight = entry.partition(":")
        if not QUEUE_NAME.fullmatch(name) or (colon and not weight.isdecimal()):
            raise ValueError(f"{entry!r}; a queue name has letters, digits, and the signs . _ - only")
        if colon and not 1 <= int(weight) <= 1000:
            raise ValueError(f"{entry!r}; a weight is a number from 1 to 1000")
        weights.setdefault(name, int(weight or 0))
    if any(weights.values()) and not all(weights.values()):
        raise ValueError("weights for some queues only; give each one a weight, or none")
    return weights
