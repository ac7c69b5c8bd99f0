"""What deployment files say about one application; reading.py fills it in. Secrets are known by name only."""

from __future__ import annotations

import importlib.util
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from flask_prod.components.database.pools.views import PATH as POOLS
from flask_prod.components.database.pools.wanted import wishes_of_values
from flask_prod.core.errors import ConfigError
from flask_prod.core.settings import ServiceSettings
from flask_prod.server.sums import CLOSING, SurroundingsSettings
from flask_prod.server.web_settings import ServerSettings

from .calendar import calendar_of
from .fargate import size_of
from .own import Own
from .project import Project
from .servers import DatabaseSizes, RedisSizes
from .settings import DeploySettings
from .targets import RUNBOOKS

_ALWAYS = ("SECRET_KEY", "HEALTH_TOKEN", "METRICS_TOKEN")
_BY_ROOM = {
    "database": ("DATABASE_URL",),
    "redis": ("REDIS_URL",),
    "error_tracking": ("SENTRY_DSN",),
    "backups": ("BACKUP_URL", "BACKUP_KEY"),
}


@dataclass(frozen=True)
class Plan:
    """One application, and everything that its deployment files say about it.

    `values` are all settings of the environment by key, `rooms` the rooms it has, `entry` what gunicorn is given,
    `flask_app` what FLASK_APP must say, `prepare` the command that brings the database up to date, empty for none.
    """

    environment: str
    entry: str
    flask_app: str
    root: Path
    service: ServiceSettings
    server: ServerSettings
    around: SurroundingsSettings
    deploy: DeploySettings
    values: Mapping[str, Any]
    said: Mapping[str, str]
    """The settings that profile files of the project say, as typed: they come with the image."""

    rooms: frozenset[str]
    prepare: str
    static: str = ""
    """The path in front of static files, with a slash at its end; empty where there are none."""

    home: Path | None = None
    """The folder of the application itself: `app.root_path`."""

    folder: str = "deploy"
    """Where the files lie, below the project's root."""

    own_metrics: tuple[Own, ...] = ()
    """The metrics that the application declares itself."""

    problems: Sequence[str] = ()
    """What is wrong with the settings; defaults stand in for those."""

    @property
    def name(self) -> str:
        """The service's name as a label of DNS, which is what every platform accepts."""
        return re.sub(r"[^a-z0-9]+", "-", self.service.service_name.lower()).strip("-")[:40] or "app"

    @property
    def image(self) -> str:
        """The image without a tag."""
        return self.deploy.image or f"registry.example.com/{self.name}"

    @property
    def registry(self) -> str:
        """The host of the registry; Docker's own where the image names none."""
        first, slash, _ = self.image.partition("/")
        return first if slash and {".", ":"} & set(first) else "docker.io"

    @property
    def test_command(self) -> str:
        """The command that runs the project's tests: `make test` where there is such a target, else pytest."""
        makefile = self.root / "Makefile"
        made = makefile.is_file() and re.search(r"^test\b.*:", makefile.read_text(errors="replace"), re.MULTILINE)
        wanted = "." if self.project.is_package else "--requirement requirements.txt"
        return "make test" if made else f"pip install {wanted} pytest && python -m pytest"

    @property
    def host(self) -> str:
        """The public host name."""
        plain = next((host for host in self.service.allowed_hosts if not host.startswith("*")), "")
        return self.deploy.host or plain or f"{self.name}.example.com"

    @property
    def runbooks(self) -> str:
        """The address in front of the runbooks' pages: DEPLOY_RUNBOOKS, else where the repository shows them."""
        return self.deploy.runbooks.rstrip("/") or f"{self.project.shown_at}{RUNBOOKS}"

    @property
    def has_runbooks(self) -> bool:
        """Whether the runbooks are those of the project: alerts lead to no other place."""
        return self.runbooks.endswith(RUNBOOKS)

    @property
    def namespace(self) -> str:
        """The namespace of the cluster."""
        return self.deploy.namespace or self.name

    @property
    def port(self) -> int:
        """Where the web server listens in its container."""
        return self.service.port

    @property
    def threads(self) -> int:
        """Requests that one worker process serves at a time."""
        return self.server.threads

    @property
    def drain(self) -> int:
        """DRAIN_SECONDS, rounded up."""
        return math.ceil(self.service.drain_seconds)

    @property
    def grace(self) -> int:
        """Seconds that the orchestrator must give between SIGTERM and SIGKILL: sum B01 of docs/shutdown.md."""
        return math.ceil(self.service.drain_seconds + self.service.shutdown_seconds + CLOSING)

    @property
    def backup_calendar(self) -> tuple[str, ...]:
        """DEPLOY_BACKUP_SCHEDULE as systemd writes it; ConfigError when it cannot."""
        try:
            return calendar_of(self.deploy.backup_schedule)
        except ValueError as error:
            raise ConfigError([f"DEPLOY_BACKUP_SCHEDULE: {error}"]) from error

    @property
    def own_gunicorn_conf(self) -> bool:
        """Whether the project has a gunicorn.conf.py, which gunicorn finds by itself."""
        return (self.root / "gunicorn.conf.py").is_file()

    @property
    def web(self) -> Sequence[str]:
        """The words of the web server's command."""
        conf = [] if self.own_gunicorn_conf else ["-c", "python:flask_prod.server.gunicorn_conf"]
        return ["gunicorn", *conf, self.entry]

    @property
    def project(self) -> Project:
        """What an image is built of."""
        return Project(self.root, self.entry, self.flask_app, self.home or self.root)

    @property
    def fargate(self) -> tuple[int, int]:
        """The size of a task of ECS: units of CPU and megabytes."""
        return size_of(self.deploy.cpu, self.deploy.memory)

    @property
    def uses_jobs(self) -> bool:
        """Whether there is a worker to run."""
        return "jobs" in self.rooms

    @property
    def worker_port(self) -> int:
        """Where `flask prod worker` answers its probes: WORKER_PORT, else the port after the web server's."""
        return int(self.values.get("WORKER_PORT") or 0) or self.port + 1

    @property
    def health(self) -> str:
        """The path in front of /live, /ready and /startup."""
        return str(self.values.get("HEALTH_PATH", "/health"))

    @property
    def metrics(self) -> str:
        """The path of the metrics page."""
        return str(self.values.get("METRICS_PATH", "/metrics"))

    @cached_property
    def secrets(self) -> tuple[str, ...]:
        """The names of all secrets that the service gets from files."""
        of_rooms = (name for room, names in _BY_ROOM.items() if room in self.rooms for name in names)
        return tuple(dict.fromkeys((*_ALWAYS, *of_rooms, *self.deploy.secrets)))

    @property
    def connections(self) -> int:
        """Connections to the database that all instances together may want (sum B10), with a tenth to spare."""
        web = self.deploy.most_replicas * self.deploy.concurrency
        jobs = self.deploy.most_worker_replicas * int(self.values.get("JOBS_WORKERS", 0))
        wanted = sum(wish.total for wish in wishes_of_values(self.values, web, jobs)[:1])
        return math.ceil(wanted * 1.1) + 10

    @property
    def hosts(self) -> tuple[str, ...]:
        """All host names that the service answers to, the public one first."""
        return tuple(dict.fromkeys((self.host, *self.service.allowed_hosts)))

    @property
    def inside(self) -> tuple[str, ...]:
        """The pages for operations beside health: whoever comes from outside shall not even find them."""
        pools = (POOLS,) if "database" in self.rooms else ()
        return (self.metrics, *pools) if "metrics" in self.rooms else pools

    @property
    def database(self) -> str:
        """The name of the database, and of the role that owns it: no quotes needed in SQL."""
        return self.name.replace("-", "_")

    @cached_property
    def database_sizes(self) -> DatabaseSizes:
        """What the database server gets; ConfigError where its memory is too little for the connections."""
        sizes = DatabaseSizes(self.deploy.database_memory, self.deploy.database_cpu, self.connections)
        if problems := list(sizes.problems()):
            raise ConfigError(problems)
        return sizes

    @property
    def redis_sizes(self) -> RedisSizes:
        """What the Redis server gets."""
        return RedisSizes(self.deploy.redis_memory, self.deploy.redis_cpu)

    @property
    def redis_rules(self) -> str:
        """What the service may do on the Redis server, as rules of an ACL: its own keys, and nothing dangerous.

        INFO and CONFIG GET tell how durable the server is, which jobs and the outbox must know; `~` alone is the
        key without a name, by which the scripts of jobs say that there is none. What would end a pattern, or mean
        more than itself, is any one character there: a service may be called `Quote Server`.
        """
        keys = "~" + re.sub(r"[^\w.:-]", "?", f"{self.service.service_name}:{self.environment}:") + "*"
        asked = "+info +config|get" if self.uses_jobs else ""
        return f"{keys}{' ~rq:* ~' if self.uses_jobs else ''} &* +@all -@dangerous -@admin {asked}".strip()

    @property
    def traces(self) -> bool:
        """Whether spans can be sent: the room needs its extra, and the image has what this environment has."""
        return "tracing" in self.rooms and importlib.util.find_spec("opentelemetry.sdk") is not None
