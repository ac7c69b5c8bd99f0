"""What deployment files must know and no application can tell."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Annotated, Literal

from msgspec import Meta

from flask_prod.core.settings import Section
from flask_prod.core.values import Duration, Size

_NAME = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")
"""A label of DNS, RFC 1123: what Kubernetes accepts as the name of a namespace."""


class DeploySettings(Section, frozen=True, kw_only=True):
    """Where and how large the service runs, for `flask prod deploy init`; the service reads none of these."""

    prefix = "DEPLOY_"

    image: str = ""
    """The image without its tag, as the registry names it; `registry.example.com/NAME` if empty."""

    host: str = ""
    """The name that people type; the first of ALLOWED_HOSTS if empty, else `NAME.example.com`."""

    platform: Literal["kubernetes", "ecs"] = "kubernetes"
    """Where the release workflow deploys to."""

    namespace: str = ""
    """The Kubernetes namespace; the service's name if empty."""

    python: str = "3.13"
    """The version of Python in the image."""

    extras: tuple[str, ...] = ()
    """Extras of the project's own pyproject.toml that the image needs; with requirements.txt they mean nothing."""

    secrets: tuple[str, ...] = ()
    """Names of secrets of your own (JWT_SECRET_KEY) that the service gets beside those of the kit."""

    replicas: Annotated[int, Meta(ge=1)] = 2
    """Instances of the web server at the least; each has the workers of WEB_CONCURRENCY."""

    most_replicas: Annotated[int, Meta(ge=1)] = 6
    """Instances of the web server at the most: what the database's connections must be enough for."""

    worker_replicas: Annotated[int, Meta(ge=1)] = 1
    """Instances of `flask prod worker` at the least."""

    most_worker_replicas: Annotated[int, Meta(ge=1)] = 3
    """Instances of `flask prod worker` at the most, where their number follows the queues."""

    concurrency: Annotated[int, Meta(ge=1)] = 2
    """Worker processes of one web instance, as WEB_CONCURRENCY of its container."""

    cpu: Annotated[float, Meta(gt=0)] = 1.0
    """CPUs that one instance may use."""

    memory: Size = 512 * 1024**2
    """Memory that one instance may use; a worker of the sample shop takes about 100 MB."""

    database_memory: Size = 2 * 1024**3
    """Memory of the database server: its buffers are computed from it."""

    database_cpu: Annotated[int, Meta(ge=1)] = 2
    """CPUs of the database server: its parallel workers are computed from them."""

    redis_memory: Size = 512 * 1024**2
    """Memory of the Redis server; three quarters of it hold data, the rest is for copies while it saves."""

    redis_cpu: Annotated[int, Meta(ge=1)] = 1
    """CPUs of the Redis server: commands run on one, and from four on others read and write for it."""

    backup_schedule: str = "15 2 * * *"
    """When a backup is made, in cron's form and UTC."""

    slo: Annotated[float, Meta(gt=0.5, lt=1)] = 0.999
    """The part of requests that must succeed over 30 days: what the burn-rate alerts watch."""

    runbooks: str = ""
    """The address in front of the runbooks' pages, which each alert links to; if empty docs/runbooks, where they
    are written, at the `Repository` that `[project.urls]` names on GitHub or GitLab."""

    pager: Literal["pagerduty", "slack", "webhook"] = "pagerduty"
    """Where critical alerts go, by a secret file of Alertmanager."""

    tickets: Literal["pagerduty", "slack", "webhook"] = "slack"
    """Where warnings go, likewise."""

    balancer_interval: Duration = 1.0
    """How often the load balancer asks for readiness: less than DRAIN_SECONDS."""

    def problems(self) -> Iterator[str]:
        """Yield what fits no cluster."""
        if self.namespace and not _NAME.fullmatch(self.namespace):
            yield f"DEPLOY_NAMESPACE must be lower-case letters, digits and dashes, not {self.namespace!r}."
        if self.most_replicas < self.replicas:
            yield f"DEPLOY_MOST_REPLICAS is {self.most_replicas}, less than DEPLOY_REPLICAS, {self.replicas}."
        if self.most_worker_replicas < self.worker_replicas:
            yield (
                f"DEPLOY_MOST_WORKER_REPLICAS is {self.most_worker_replicas}, less than DEPLOY_WORKER_REPLICAS, "
                f"{self.worker_replicas}."
            )
