"""Where an application's jobs lie: in Redis, perhaps behind an outbox, in a database, or in memory."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from flask_prod.core.component import Check, Finding, Installed
from flask_prod.core.errors import ConfigError, MissingExtra, NotInstalled

from .settings import JobsSettings

if TYPE_CHECKING:
    from flask_prod.core.ports import GaugePort, RedisPort

    from .delivery.source import Source
    from .dispatch.accept import Keeper
    from .engine import Engine
    from .outbox.relay import Relay
    from .outbox.table import Outbox

Kind = Literal["redis", "database", "memory", "eager"]


@dataclass
class Backend:
    """Where the jobs of one application lie, and what that needs of a serving process."""

    kind: Kind
    settings: JobsSettings
    kit: Installed
    relay: Relay | None = None
    memory: Any = None

    @property
    def outboxed(self) -> bool:
        """True when there is a table."""
        return self.kind == "database" or (self.kind == "redis" and self.settings.outbox != "off")

    @property
    def usable(self) -> bool:
        """True when a dispatch has somewhere to go."""
        return self.kind != "redis" or (bool(self.kit.handle("redis").configured) and not self.clustered)

    @property
    def clustered(self) -> bool:
        """True when jobs would have to lie in a Redis cluster, whose nodes cannot run RQ's scripts."""
        return self.kind == "redis" and is_cluster(self.kit.handle("redis"))

    def redis(self) -> RedisPort:
        """Return the Redis of the application, or what stands in for it where jobs do without."""
        redis: RedisPort = self.kit.handle("redis")
        if redis.configured and (self.kind == "redis" or not is_cluster(redis)):
            return redis
        from .memory import NoServer

        return NoServer(redis)

    def outbox(self) -> Outbox:
        """Return the table; imports SQLAlchemy."""
        try:
            from .outbox.table import Outbox, outbox_table
        except ImportError as error:
            raise MissingExtra("jobs", "sqlalchemy", "database") from error
        return Outbox(outbox_table(self.settings.outbox_table), self.kit.handle("database"))

    def keeper(self, engine: Engine, inner: Keeper) -> Keeper:
        """Return what keeps the jobs of *engine*; *inner* is Redis's own."""
        if self.kind in ("memory", "eager"):
            from .memory import EagerKeeper, MemoryKeeper

            self.memory = EagerKeeper(engine) if self.kind == "eager" else MemoryKeeper(engine)
            return self.memory  # type: ignore[no-any-return]
        if not self.outboxed:
            return inner
        outbox = self.outbox()
        if self.kind == "database":
            from .outbox.source import DatabaseKeeper

            return DatabaseKeeper(outbox, self.settings.outbox)
        from .outbox.keeper import OutboxKeeper
        from .outbox.relay import Relay

        self.relay = Relay(engine, outbox, inner, self.gauges())
        keeper = OutboxKeeper(outbox, inner, self.settings.outbox)
        keeper.wake = self.relay.wake
        return keeper

    def gauges(self) -> tuple[GaugePort, GaugePort]:
        """Return the metrics of the table: its depth, and the age of the oldest job in it."""
        meter = self.kit.meter
        return (
            meter.gauge("flask_prod_jobs_outbox_depth", "Jobs that wait in the outbox."),
            meter.gauge("flask_prod_jobs_outbox_age_seconds", "Seconds that the oldest of them has waited."),
        )

    def source(self, engine: Engine, worker: str, queues: Sequence[str]) -> Source:
        """Return where a worker process takes its jobs from."""
        if self.kind == "redis":
            from .redis_store.source import RedisSource

            return RedisSource(engine, worker, queues)
        if self.kind == "database":
            from .outbox.source import DatabaseSource

            return DatabaseSource(engine, self.outbox(), worker, queues)
        raise NotInstalled(
            f"JOBS_BACKEND={self.kind} runs jobs in the process that dispatches them; it needs no worker."
        )

    def start(self) -> None:
        """Start the relay, or the thread that runs jobs."""
        if self.relay is not None:
            self.relay.start()

    def after_fork(self) -> None:
        """Begin anew in a child."""
        for part in (self.relay, self.memory):
            if part is not None:
                part.after_fork()

    def close(self) -> None:
        """End the threads."""
        for part in (self.relay, self.memory):
            if part is not None:
                part.close()

    def checks(self) -> tuple[Check, ...]:
        """Return the health check of the outbox, where there is one."""
        if not self.outboxed:
            return ()

        def probe() -> Finding:
            from .outbox.relay import look

            return look(self.outbox(), self.settings.outbox_warn)

        return (Check("outbox", probe, critical=False),)


CLUSTERED = (
    "Jobs cannot lie in a Redis cluster: RQ's scripts touch keys of several nodes. Give REDIS_URL one server or a "
    "Sentinel deployment, set JOBS_BACKEND=database and DATABASE_URL, or leave jobs out of this kit."
)
"""What is said when jobs are registered and REDIS_URL is a cluster."""


def is_cluster(redis: RedisPort) -> bool:
    """Return whether the application's Redis is a cluster."""
    return redis.configured and not redis.watchable


def choose_backend(settings: JobsSettings, kit: Installed, named: bool) -> Backend:
    """Return the back end that the settings ask for; ConfigError says why they cannot have it.

    *named* says that jobs are registered already: an application without jobs may have any Redis.
    """
    redis: RedisPort = kit.handle("redis")
    kind: Kind = "redis"
    if settings.backend != "auto":
        kind = settings.backend
    elif settings.outbox != "off" and not redis.configured:
        kind = "database"
    backend = Backend(kind, settings, kit)
    problems = [CLUSTERED] if named and backend.clustered else []
    if "," in kit.service.namespace:
        problems.append("SERVICE_NAME must have no comma: RQ separates the queues of a worker by it.")
    if backend.outboxed and kit.handle("database") is None:
        key = "JOBS_BACKEND=database" if settings.outbox == "off" else f"JOBS_OUTBOX={settings.outbox}"
        problems.append(f"{key} needs the database room: add it to this kit, and set DATABASE_URL.")
    if kind in ("memory", "eager"):
        problems += _unfit_for_memory(settings, kit)
    if problems:
        raise ConfigError(problems)
    return backend


def _unfit_for_memory(settings: JobsSettings, kit: Installed) -> list[str]:
    problems = []
    name = f"JOBS_BACKEND={settings.backend}"
    if settings.outbox != "off":
        problems.append(f"{name} has no outbox: leave out JOBS_OUTBOX.")
    if kit.service.environment == "production":
        problems.append(
            f"{name} is for tests and development: with several workers, jobs would be lost with their process; "
            "use Redis, or JOBS_OUTBOX without a REDIS_URL."
        )
    return problems
