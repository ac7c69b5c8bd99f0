"""What `flask prod deploy init` can render: name, place and what it needs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Target:
    """One kind of deployment files; the templates are those of templates/NAME."""

    name: str
    sentence: str
    """What people read in `flask prod deploy init --help`."""

    home: str = ""
    """The folder below the project's root where the files must be; empty for `deploy/NAME`."""

    places: Mapping[str, str] = field(default_factory=dict)
    """Template -> path below the project's root, for files that must lie elsewhere."""

    maker: str = ""
    """`module:function` that takes the plan and returns path -> text, for what code makes."""


RUNBOOKS = "docs/runbooks"
"""Where the pages lie that alerts link to: below the project's root, where people look for documents."""

PAGES = ("README", "instances", "requests", "database", "redis", "jobs")

_ALL = (
    Target("docker", "one image for web, worker and migrations", places={"dockerignore": ".dockerignore"}),
    Target("compose", "the whole stack on one machine: proxy, database, Redis and monitoring included"),
    Target(
        "kubernetes",
        "kustomize base, overlays and optional components",
        maker="flask_prod.deploy.components:files",
    ),
    Target("helm", "a chart of the same"),
    Target("nginx", "a reverse proxy with TLS whose time limits agree with the service"),
    Target("systemd", "units for a machine without containers, and logrotate"),
    Target("servers", "postgresql.conf and redis.conf, computed from memory and cores"),
    Target(
        "monitoring",
        "Prometheus, Alertmanager and Grafana: scrape, rules, alerts with tests and runbooks, dashboards",
        places={f"runbooks/{page}.md": f"{RUNBOOKS}/{page}.md" for page in PAGES},
        maker="flask_prod.deploy.monitoring:files",
    ),
    Target("scripts", "checks before and after a deployment, rollback, backup, disaster drill"),
    Target("github", "workflows: test, build, sign, staging, canary, watch, roll back", home=".github/workflows"),
    Target("ecs", "task definitions and services for Amazon ECS"),
)
TARGETS: Mapping[str, Target] = {target.name: target for target in _ALL}
