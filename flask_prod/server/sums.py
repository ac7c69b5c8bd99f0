"""The sums behind the arithmetic of time limits and pools: one rule each, with its numbers and its remedy."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from flask_prod.components.database.pools.wanted import PRIMARY, REPLICA, wishes_of_values
from flask_prod.core.settings import Section, key_names
from flask_prod.core.values import Duration, Secret

CLOSING = 5.0
"""Seconds that a stop needs beside its own limits: for the last closing, and for the orchestrator's signals."""

RESERVED = 3
"""Connections that PostgreSQL keeps for superusers (superuser_reserved_connections)."""

POSTGRES_DEFAULT = 100
"""PostgreSQL's max_connections where nobody says what it is."""


class SurroundingsSettings(Section, frozen=True, kw_only=True):
    """What stands around the service, as far as its own limits must fit in: orchestrator and load balancer."""

    keys: ClassVar[Mapping[str, tuple[str, ...]]] = {
        "termination_grace": ("TERMINATION_GRACE",),
        "pre_stop": ("PRE_STOP",),
        "balancer_timeout": ("BALANCER_TIMEOUT",),
        "balancer_idle": ("BALANCER_IDLE",),
    }

    termination_grace: Duration = 30.0
    """How long the orchestrator waits between SIGTERM and SIGKILL: terminationGracePeriodSeconds of Kubernetes,
    stop_grace_period of Compose (10 s there unless it is set)."""

    pre_stop: Duration = 0.0
    """How long a preStop hook sleeps; Kubernetes counts it as part of the grace period."""

    balancer_timeout: Duration = 60.0
    """How long the load balancer waits for an answer: proxy_read_timeout of nginx."""

    balancer_idle: Duration = 60.0
    """How long the load balancer keeps an idle connection to this service."""


@dataclass(frozen=True, slots=True)
class Serving:
    """What the web server really does, whoever configured it."""

    kind: str = "gthread"
    workers: int = 2
    threads: int = 4
    timeout: float = 30.0
    grace: float = 20.0
    keepalive: float = 75.0


@dataclass(frozen=True, slots=True)
class Excess:
    """One sum that does not add up; `severity` is warning, or notice for what is right in many places."""

    id: str
    severity: str
    arithmetic: str
    remedy: str

    def __str__(self) -> str:
        return f"{self.id}: {self.arithmetic}. {self.remedy}"


class Budget:
    """The settings, with a name for each part of the sums."""

    def __init__(self, values: Mapping[str, Any], serving: Serving, max_connections: int | None) -> None:
        self.values = values
        self.serving = serving
        self.max_connections = max_connections

    def has(self, *keys: str) -> bool:
        """Say whether the application has all of these settings: rooms may be left out."""
        return all(key in self.values for key in keys)

    def number(self, key: str) -> float:
        """Return a setting as a number, the default of its surroundings where nobody read it."""
        value = self.values.get(key, _DEFAULTS.get(key, 0.0))
        return float(value or 0.0)

    def text(self, key: str) -> str:
        """Return a setting as text, also a secret one, which must not be shown."""
        value = self.values.get(key) or ""
        return value.reveal() if isinstance(value, Secret) else str(value)

    @property
    def drain(self) -> float:
        """DRAIN_SECONDS."""
        return self.number("DRAIN_SECONDS")

    @property
    def patience(self) -> tuple[str, float]:
        """How long somebody waits for an answer: only sync workers are ended by WEB_TIMEOUT."""
        if self.serving.kind == "sync":
            return "WEB_TIMEOUT", min(self.serving.timeout, self.number("BALANCER_TIMEOUT"))
        return "BALANCER_TIMEOUT", self.number("BALANCER_TIMEOUT")


_DEFAULTS = {key_names(SurroundingsSettings, name)[0]: getattr(SurroundingsSettings(), name)
             for name in SurroundingsSettings.__struct_fields__}  # fmt: skip


def _stop(budget: Budget) -> Iterator[Excess]:
    """A stop must end before the orchestrator kills."""
    parts = {
        "PRE_STOP": budget.number("PRE_STOP"),
        "DRAIN_SECONDS": budget.drain,
        "SHUTDOWN_SECONDS": budget.serving.grace,
    }
    grace = budget.number("TERMINATION_GRACE")
    total = sum(parts.values()) + CLOSING
    if total > grace:
        yield Excess(
            "B01",
            "warning",
            f"{_sum(parts)} + {CLOSING:g} s = {total:g} s, but TERMINATION_GRACE is {grace:g} s",
            f"The orchestrator kills what is left: give it {total:g} s (terminationGracePeriodSeconds, "
            "stop_grace_period) and say so by TERMINATION_GRACE, or shorten one of them.",
        )


def _notice(budget: Budget) -> Iterator[Excess]:
    """A balancer must hear of a stop before the stop refuses its connections."""
    waits = budget.drain + budget.number("PRE_STOP")
    alone = budget.text("ENVIRONMENT") in ("development", "test")  # with no balancer in front
    if budget.has("DRAIN_SECONDS") and waits == 0 and not alone:
        yield Excess(
            "B02",
            "warning",
            "DRAIN_SECONDS 0 s + PRE_STOP 0 s = 0 s between the signal and the first refused connection",
            "Balancers hear of a stop a second or more after it began: set DRAIN_SECONDS=5s, or PRE_STOP if a "
            "preStop hook sleeps.",
        )


def _redis(budget: Budget) -> Iterator[Excess]:
    """What a request may wait for Redis must be less than what it has."""
    if not budget.has("REDIS_CONNECT_TIMEOUT", "REDIS_READ_TIMEOUT", "REDIS_MAX_RETRIES"):
        return
    connect, read = budget.number("REDIS_CONNECT_TIMEOUT"), budget.number("REDIS_READ_TIMEOUT")
    tries = 1 + int(budget.number("REDIS_MAX_RETRIES"))
    name, patience = budget.patience
    total = (connect + read) * tries
    if total >= patience:
        yield Excess(
            "B03",
            "warning",
            f"(REDIS_CONNECT_TIMEOUT {connect:g} s + REDIS_READ_TIMEOUT {read:g} s) x {tries} tries = {total:g} s "
            f"for one command, but {name} is {patience:g} s",
            "A frozen Redis then costs requests their answer: 100ms each is the default, and jobs have limits of "
            "their own.",
        )


def _database(budget: Budget) -> Iterator[Excess]:
    """The slowest statement must end before whoever waits for it leaves."""
    if not budget.has("DATABASE_CONNECT_TIMEOUT", "DATABASE_STATEMENT_TIMEOUT"):
        return
    keys = ("DATABASE_POOL_TIMEOUT", "DATABASE_CONNECT_TIMEOUT", "DATABASE_STATEMENT_TIMEOUT")
    parts = {key: budget.number(key) for key in keys if budget.has(key)}
    name, patience = budget.patience
    total = sum(parts.values())
    if total >= patience:
        yield Excess(
            "B04",
            "warning",
            f"{_sum(parts)} = {total:g} s, but {name} is {patience:g} s",
            "A slow statement then ends with no answer instead of 504, and goes on in the database: lower "
            f"DATABASE_STATEMENT_TIMEOUT, or raise {name}.",
        )


def _memory_jobs(budget: Budget) -> Iterator[Excess]:
    """A job that cannot be put back must end before its process."""
    if budget.text("JOBS_BACKEND") != "memory" or not budget.has("JOBS_DEFAULT_TIMEOUT"):
        return
    limit, grace = budget.number("JOBS_DEFAULT_TIMEOUT"), budget.serving.grace
    if limit > grace:
        yield Excess(
            "B05",
            "warning",
            f"JOBS_DEFAULT_TIMEOUT {limit:g} s is more than SHUTDOWN_SECONDS {grace:g} s, and JOBS_BACKEND=memory "
            "puts nothing back",
            "A job that runs at a stop is lost: use Redis or JOBS_OUTBOX, whose workers put it back to its queue.",
        )


def _keepalive(budget: Budget) -> Iterator[Excess]:
    """An idle connection must be closed by the balancer first: we would close it under its next request."""
    serving, idle = budget.serving, budget.number("BALANCER_IDLE")
    if serving.kind != "sync" and 0 < serving.keepalive <= idle:
        yield Excess(
            "B06",
            "warning",
            f"WEB_KEEPALIVE {serving.keepalive:g} s is not more than BALANCER_IDLE {idle:g} s",
            "Now and then a request meets a connection that closes, and gets 502: set "
            f"WEB_KEEPALIVE={idle + 15:g}s, or the balancer's own limit below it and BALANCER_IDLE to that.",
        )


def _staleness(budget: Budget) -> Iterator[Excess]:
    """A result must not be too old before the next one can be there."""
    if not budget.has("HEALTH_INTERVAL", "HEALTH_TIMEOUT", "HEALTH_STALE_AFTER"):
        return
    interval, limit = budget.number("HEALTH_INTERVAL"), budget.number("HEALTH_TIMEOUT")
    stale, needed = budget.number("HEALTH_STALE_AFTER"), interval + limit
    if stale < needed:
        yield Excess(
            "B07",
            "warning",
            f"HEALTH_INTERVAL {interval:g} s + HEALTH_TIMEOUT {limit:g} s = {needed:g} s, but HEALTH_STALE_AFTER "
            f"is {stale:g} s",
            "One slow check makes a good result too old to count: raise HEALTH_STALE_AFTER.",
        )


def _pools(budget: Budget) -> Iterator[Excess]:
    """Each thread of a worker may need a connection at the same time."""
    threads = budget.serving.threads if budget.serving.kind == "gthread" else 1
    for number, key in (("B08", "DATABASE_MAX_OPEN_CONNS"), ("B09", "REDIS_POOL_SIZE")):
        size = int(budget.number(key))
        if budget.has(key) and size < threads:
            yield Excess(
                number,
                "warning",
                f"{key} {size} is less than the {threads} threads of a worker (WEB_THREADS)",
                f"Under load {threads - size} of them wait for a connection: set {key} to {threads} or more.",
            )


def _server_connections(budget: Budget) -> Iterator[Excess]:
    """All processes together must not want more connections than a database server gives."""
    asked = budget.max_connections is not None
    if not (asked or budget.text("DATABASE_URL").startswith("postgres")):
        return
    jobs = int(budget.number("JOBS_WORKERS")) if budget.has("JOBS_WORKERS") else 0
    known = (PRIMARY, REPLICA)  # a replica of PostgreSQL must allow as many as its primary
    for wish in wishes_of_values(budget.values, budget.serving.workers, jobs):
        said = asked and wish.server in known
        allowed = (budget.max_connections if said and budget.max_connections else POSTGRES_DEFAULT) - RESERVED
        if wish.total > allowed:
            server = "the server allows" if said else "PostgreSQL allows unless told otherwise"
            yield Excess(
                "B10",
                "warning" if said else "notice",
                f"{wish} for each instance on {wish.server}, but {server} {allowed}",
                "The last ones to come are refused: lower DATABASE_MAX_OPEN_CONNS (of tenants: "
                "DATABASE_TENANT_POOLS) or the number of workers, raise max_connections, or put PgBouncer in "
                "between.",
            )


RULES: tuple[Callable[[Budget], Iterator[Excess]], ...] = (
    _stop, _notice, _redis, _database, _memory_jobs, _keepalive, _staleness, _pools, _server_connections,
)  # fmt: skip


def _sum(parts: Mapping[str, float]) -> str:
    return " + ".join(f"{name} {seconds:g} s" for name, seconds in parts.items())
