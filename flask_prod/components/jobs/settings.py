"""What can be set about background jobs."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Annotated, ClassVar

from msgspec import Meta

from flask_prod.core.settings import Section
from flask_prod.core.values import DURATION, Duration

QUEUE_NAME = re.compile(r"[A-Za-z0-9_.-]{1,64}", re.ASCII)
"""No colon, which separates the namespace, and no comma, which separates queues in RQ's own records."""


class JobsSettings(Section, frozen=True, kw_only=True):
    """Which queues are served by how many workers, and how long jobs and their traces live."""

    prefix: ClassVar[str] = "JOBS_"

    queues: tuple[str, ...] = ()
    """The queues a worker serves, the most urgent first; empty means each queue that a job names, then default."""

    default_timeout: Annotated[float, Meta(ge=1, extra={"kind": DURATION})] = 180.0
    """How long a job may run that does not say so itself; whole seconds."""

    workers: Annotated[int, Meta(ge=1, le=64)] = 1
    """How many worker processes `flask prod worker` runs."""

    heartbeat: Annotated[float, Meta(ge=1, le=300, extra={"kind": DURATION})] = 5.0
    """How often a worker says that it lives; after three missed beats its job counts as abandoned."""

    result_ttl: Duration = 600.0
    """How long the result of a finished job is kept."""

    failure_ttl: Duration = 14 * 86400.0
    """How long a dead job is kept with its traceback."""

    def problems(self) -> Iterator[str]:
        """Yield queue names that could not be told from one another in Redis."""
        for name in self.queues:
            if not QUEUE_NAME.fullmatch(name):
                yield f"JOBS_QUEUES has {name!r}; a queue name has letters, digits, and the signs . _ - only."
