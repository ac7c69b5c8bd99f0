"""The settings of the health room."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Annotated, ClassVar

from msgspec import Meta

from flask_prod.core.settings import Section
from flask_prod.core.values import Duration, Secret

from . import external
from .names import is_name

Share = Annotated[float, Meta(ge=0, le=1)]


class HealthSettings(Section, frozen=True, kw_only=True):
    """Where the probes are, and how checks are run."""

    prefix: ClassVar[str] = "HEALTH_"

    path: str = "/health"
    """Where the probes are: this path, and `/live`, `/ready`, `/startup`, `/groups/NAME`, `/CHECK` below it."""

    timeout: Duration = 2.0
    """How long a check may take before it counts as failed, unless the check says otherwise."""

    interval: Duration = 5.0
    """Time between two runs of a check; on demand: how long a result is kept, however many probes come."""

    stale_after: Duration = 30.0
    """An older result is unknown: down for a critical check; on demand a probe waits for the new one."""

    token: Secret = Secret("")
    """Whoever sends it (or OPS_TOKEN) as `Authorization: Bearer` sees details; without one, nobody does."""

    background: bool | None = None
    """Whether checks run in the background and probes read memory; if empty, not in development and test."""

    failures: Annotated[int, Meta(ge=1, le=100)] = 3
    """A check that runs in the background is down after so many failures in a row."""

    successes: Annotated[int, Meta(ge=1, le=100)] = 2
    """A check that is down is up again after so many successes in a row."""

    checks: tuple[external.NamedUrl, ...] = ()
    """External services: `pay=https://host/ping, mail=smtp://host:25#critical&timeout=1s`; see docs/health.md."""

    ready: tuple[str, ...] = ()
    """Names of checks whose failure also takes the instance out of the load balancer."""

    groups: Mapping[str, str] = {}
    """Groups of checks with a path each, below `/groups/`: `edge=redis cache; core=database`."""

    storage: tuple[str, ...] = ()
    """Folders that the service must be able to write: the check `storage`, which is critical."""

    disk_free: Share | None = None
    """The check `disk` warns below this free share, 0 for never; if empty 0.05, never in development and test."""

    memory_used: Share | None = None
    """The check `memory` warns above this share of the container's limit, 0 for never; as above 0.9 if empty."""

    stuck_after: Duration = 120.0
    """Liveness fails when each thread of a worker has been busy with one request for so long; 0 for never."""

    def problems(self) -> Iterator[str]:
        """Yield what is wrong with the path, the times and the names."""
        if not self.path.startswith("/") or self.path.endswith("/"):
            yield f"HEALTH_PATH must start with a slash and not end in one, not {self.path!r}."
        if self.timeout <= 0:
            yield "HEALTH_TIMEOUT must be longer than zero."
        if self.stale_after < self.interval:
            yield "HEALTH_STALE_AFTER must not be shorter than HEALTH_INTERVAL."
        for name, members in self.groups.items():
            if not is_name(name) or not members.split():
                yield f"HEALTH_GROUPS: {name!r} must be written name=check check, the name like a part of a path."
        yield from external.problems(self.checks)
