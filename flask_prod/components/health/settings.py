"""The settings of the health room."""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar

from flask_prod.core.settings import Section
from flask_prod.core.values import Duration, Secret


class HealthSettings(Section, frozen=True, kw_only=True):
    """Where the probes are, and how checks are run."""

    prefix: ClassVar[str] = "HEALTH_"

    path: str = "/health"
    """Where the probes are: this path and `/live`, `/ready` and one path per check below it."""

    timeout: Duration = 2.0
    """How long a check may take before it counts as failed, unless the check says otherwise."""

    interval: Duration = 5.0
    """How long a result is kept: however many probes come, a dependency is asked once in this time."""

    stale_after: Duration = 30.0
    """A probe that finds an older result waits for the new one; a younger one is shown while its check runs."""

    token: Secret = Secret("")
    """Whoever sends it as `Authorization: Bearer` sees details; without one, nobody sees them over HTTP."""

    def problems(self) -> Iterator[str]:
        """Yield what is wrong with the path and the times."""
        if not self.path.startswith("/") or self.path.endswith("/"):
            yield f"HEALTH_PATH must start with a slash and not end in one, not {self.path!r}."
        if self.timeout <= 0:
            yield "HEALTH_TIMEOUT must be longer than zero."
        if self.stale_after < self.interval:
            yield "HEALTH_STALE_AFTER must not be shorter than HEALTH_INTERVAL."
