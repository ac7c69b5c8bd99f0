"""What the environment says about serving, and what gunicorn is told of it."""

from __future__ import annotations

import math
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from msgspec import Meta

from flask_prod.core.settings import Section, Source, key_names, read_settings
from flask_prod.core.sources import find_sources
from flask_prod.core.values import Duration

from . import multiprocess, tls
from .cpus import available_cpus

MOST_WORKERS = 16
"""More workers than this are a decision (WEB_CONCURRENCY), not a default: each has its own pools and memory."""


class ServerSettings(Section, frozen=True, kw_only=True):
    """How the web server listens and how much it does at once."""

    keys: ClassVar[Mapping[str, tuple[str, ...]]] = {
        "host": ("HOST",),
        "port": ("PORT",),
        "workers": ("WEB_CONCURRENCY",),
        "threads": ("WEB_THREADS",),
        "worker_class": ("WEB_WORKER_CLASS",),
        "max_requests": ("WEB_MAX_REQUESTS",),
        "backlog": ("WEB_BACKLOG",),
        "timeout": ("WEB_TIMEOUT",),
        "keepalive": ("WEB_KEEPALIVE",),
        "drain_seconds": ("DRAIN_SECONDS",),
        "shutdown_seconds": ("SHUTDOWN_SECONDS",),
        "tls_enabled": ("TLS_ENABLED",),
        "tls_cert_file": ("TLS_CERT_FILE",),
        "tls_key_file": ("TLS_KEY_FILE",),
        "tls_min_version": ("TLS_MIN_VERSION",),
    }

    host: str = "0.0.0.0"  # noqa: S104  # a server in a container must be reachable
    """The address to listen on."""

    port: Annotated[int, Meta(ge=1, le=65535)] = 8000
    """The port to listen on."""

    workers: Annotated[int, Meta(ge=1)] | None = None
    """Worker processes; one per CPU of the container, at least two and at most 16, if empty."""

    threads: Annotated[int, Meta(ge=1)] = 4
    """Requests that a worker serves at the same time; the database pool of a worker should be as large."""

    worker_class: Literal["gthread", "sync", "gevent"] = "gthread"
    """How a worker serves several requests at once: by threads, not at all, or by greenlets."""

    max_requests: Annotated[int, Meta(ge=0)] = 0
    """Requests after which a worker is replaced, one worker at a time; 0 keeps workers for good."""

    backlog: Annotated[int, Meta(ge=1, le=65535)] = 2048
    """Connections that may wait to be accepted; the kernel's somaxconn is the bound of it."""

    timeout: Duration = 30.0
    """Seconds without a heartbeat after which a worker is taken for stuck and replaced."""

    keepalive: Duration = 75.0
    """Seconds that an idle connection stays open: more than at load balancers (60 s), which must close first."""

    drain_seconds: Duration = 5.0
    """Seconds after SIGTERM in which requests are still taken, while readiness already says no."""

    shutdown_seconds: Duration = 20.0
    """Seconds that running requests get to finish when the service stops, after the drain."""

    tls_enabled: bool = False
    """Serve https: needs TLS_CERT_FILE and TLS_KEY_FILE."""

    tls_cert_file: str = ""
    """The certificate with its chain, in PEM; read again at a reload."""

    tls_key_file: str = ""
    """The key of the certificate, in PEM, without a password."""

    tls_min_version: Literal["1.2", "1.3"] = "1.2"
    """The oldest version of TLS that is spoken."""

    def problems(self) -> Iterator[str]:
        """Yield what is wrong with certificate and key."""
        if self.tls_enabled:
            yield from tls.problems(self.tls_cert_file, self.tls_key_file)


def read_server_settings() -> ServerSettings:
    """Return the settings from environment, files and profile; ConfigError lists all that is wrong."""
    names = {name for field in ServerSettings.__struct_fields__ for name in key_names(ServerSettings, field)}
    # Only our own names: what else may be misspelt is reported by the application, which knows all sections.
    sources = [
        Source(source.name, {name: value for name, value in source.values.items() if name in names})
        for source in find_sources({}, Path.cwd(), remote=None)
    ]
    return read_settings([ServerSettings], sources).section(ServerSettings)


def defaults(settings: ServerSettings) -> dict[str, Any]:
    """Return gunicorn's settings by name."""
    host = f"[{settings.host}]" if ":" in settings.host else settings.host
    return {
        "bind": f"{host}:{settings.port}",
        "workers": settings.workers or worker_count(),
        "worker_class": settings.worker_class,
        # With more than one thread gunicorn would quietly run a sync worker as gthread.
        "threads": 1 if settings.worker_class == "sync" else settings.threads,
        "max_requests": settings.max_requests,
        "backlog": settings.backlog,
        "timeout": math.ceil(settings.timeout),
        "graceful_timeout": math.ceil(settings.shutdown_seconds),
        "keepalive": math.ceil(settings.keepalive),
        "worker_tmp_dir": heartbeat_folder(),
        "logger_class": "flask_prod.server.gunicorn_log.ServiceLogger",
        # It writes a socket below the home directory, which a read-only container does not have.
        "control_socket_disable": True,
        # Client address and scheme are the kit's to tell, by TRUSTED_PROXIES: two opinions make redirect loops.
        "forwarded_allow_ips": "",
        "secure_scheme_headers": {},
        "forwarder_headers": "",
        **tls.values(settings),
    }


def worker_count() -> int:
    """Return one worker per CPU that this container may use, from two (one may be restarting) to 16."""
    return min(MOST_WORKERS, max(2, math.ceil(available_cpus())))


def heartbeat_folder() -> str | None:
    """Return memory for the workers' heartbeat files: on a busy disk a heartbeat can come too late."""
    try:
        with tempfile.TemporaryFile(dir=multiprocess.SHARED_MEMORY):
            return str(multiprocess.SHARED_MEMORY)
    except OSError:
        return None
