"""How gunicorn runs a kit's application: its settings, and hooks at each step of a process's life.

Three ways to use it: the gunicorn.conf.py at the top of the repository, the option
`-c python:flask_prod.server.gunicorn_conf`, or two lines at the end of a file of your own, whose settings win and
whose hooks are called together with these:

    from flask_prod.server.gunicorn import compose
    globals().update(compose(globals()))
"""

from __future__ import annotations

import gc
import logging
import math
import os
import sys
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any, ClassVar, Protocol, TypeAlias

from msgspec import Meta

from flask_prod.core.errors import ConfigError
from flask_prod.core.lifecycle import alive
from flask_prod.core.settings import Section, Source, key_names, read_settings
from flask_prod.core.sources import find_sources
from flask_prod.core.values import Duration

from . import budget, connections, master, multiprocess, post
from .cpus import available_cpus
from .ending import Ending, close_all
from .wire import READY, WORN

logger = logging.getLogger(__name__)

MOST_WORKERS = 16
"""More workers than this are a decision (WEB_CONCURRENCY), not a default: each has its own pools and memory."""

Hook: TypeAlias = Callable[..., None]


class Worker(Protocol):
    """What the hooks ask of a gunicorn worker."""

    pid: int


class Config(Protocol):
    """What the hooks ask of gunicorn's settings."""

    workers: int
    graceful_timeout: int


class Server(Protocol):
    """What the hooks ask of gunicorn's master."""

    WORKERS: Mapping[int, object]
    cfg: Config


class ServerSettings(Section, frozen=True, kw_only=True):
    """How the web server listens and how much it does at once."""

    keys: ClassVar[Mapping[str, tuple[str, ...]]] = {
        "host": ("HOST",),
        "port": ("PORT",),
        "workers": ("WEB_CONCURRENCY",),
        "threads": ("WEB_THREADS",),
        "timeout": ("WEB_TIMEOUT",),
        "keepalive": ("WEB_KEEPALIVE",),
        "drain_seconds": ("DRAIN_SECONDS",),
        "shutdown_seconds": ("SHUTDOWN_SECONDS",),
    }

    host: str = "0.0.0.0"  # noqa: S104  # a server in a container must be reachable
    """The address to listen on."""

    port: Annotated[int, Meta(ge=1, le=65535)] = 8000
    """The port to listen on."""

    workers: Annotated[int, Meta(ge=1)] | None = None
    """Worker processes; one per CPU of the container, at least two and at most 16, if empty."""

    threads: Annotated[int, Meta(ge=1)] = 4
    """Requests that a worker serves at the same time; the database pool of a worker should be as large."""

    timeout: Duration = 30.0
    """Seconds without a heartbeat after which a worker is taken for stuck and replaced."""

    keepalive: Duration = 75.0
    """Seconds that an idle connection stays open: more than at load balancers (60 s), which must close first."""

    drain_seconds: Duration = 5.0
    """Seconds after SIGTERM in which requests are still taken, while readiness already says no."""

    shutdown_seconds: Duration = 20.0
    """Seconds that running requests get to finish when the service stops, after the drain."""


def compose(own: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Return what a configuration file should define: our settings where *own* has none, and both sides' hooks.

    Sets PROMETHEUS_MULTIPROC_DIR, which must happen before the application is imported. A setting that is wrong
    ends gunicorn with one sentence for each.
    """
    own = own or {}
    try:
        settings = read_server_settings()
    except ConfigError as error:
        sys.exit(str(error))
    values = defaults(settings)
    if multiprocess.prepare() is None:
        values["workers"] = 1
    composed = {name: value for name, value in values.items() if name not in own}
    composed.update({hook.__name__: _chained(hook, own.get(hook.__name__)) for hook in (*OPENING, *CLOSING)})
    return composed


def read_server_settings() -> ServerSettings:
    """Return the settings from environment, files and profile; ConfigError lists all that is wrong."""
    names = {name for field in ServerSettings.__struct_fields__ for name in key_names(ServerSettings, field)}
    # Only our own names: what else may be misspelt is reported by the application, which knows all sections.
    sources = [
        Source(source.name, {name: value for name, value in source.values.items() if name in names})
        for source in find_sources({}, Path.cwd())
    ]
    return read_settings([ServerSettings], sources).section(ServerSettings)


def defaults(settings: ServerSettings) -> dict[str, Any]:
    """Return gunicorn's settings by name."""
    host = f"[{settings.host}]" if ":" in settings.host else settings.host
    return {
        "bind": f"{host}:{settings.port}",
        "workers": settings.workers or worker_count(),
        "worker_class": "gthread",
        "threads": settings.threads,
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


# The hooks, in the order of a process's life. Clients and pools are renewed after every fork by core.lifecycle,
# with no help from here.


def on_starting(server: Server) -> None:
    """In the master, before the first worker: say how many there will be, clear away what an earlier life left."""
    os.environ["WEB_CONCURRENCY"] = str(server.cfg.workers)  # what a limit or a pool is shared by
    os.environ["WEB_THREADS"] = str(getattr(server.cfg, "threads", 1))  # what health's watchdog counts with
    folder = multiprocess.current()
    if folder is not None:
        multiprocess.sweep(folder)


def when_ready(server: Any) -> None:
    """In the master, before the first worker: teach it to drain, and to reload with care."""
    server.prod = master.install(server, read_server_settings().drain_seconds)
    if server.prod is None:
        server.log.warning("This gunicorn cannot be taught to drain, nor to try code before a reload.")


def on_reload(server: Any) -> None:
    """In the master, when settings were read again."""
    if server.prod is not None:
        server.prod.drain.seconds = read_server_settings().drain_seconds


def post_fork(server: Any, worker: Any) -> None:
    """In a new worker: take up what it shares with the master."""
    worker.prod = post.take(getattr(server, "prod", None), worker)


def post_worker_init(worker: Any) -> None:
    """In a worker that has loaded the application: start the kit's background work, and set its objects aside."""
    connections.watch(worker)
    budget.look(worker)
    _be_unready_when(worker.prod.draining)
    for lifecycle in alive():
        lifecycle.start()
    # The first full collection would otherwise walk through all that was loaded, in the middle of some request.
    gc.collect()
    gc.freeze()
    worker.prod_ending = Ending(worker.cfg.graceful_timeout)
    worker.prod_ending.watch()
    worker.prod.tell(READY)


def pre_request(worker: Any, req: Any) -> None:
    """Before each request: count it, and let its answer say `Connection: close` during the drain."""
    own: post.Post = worker.prod
    if own.draining():
        req.should_close = _always  # the only way: gunicorn drops a header that the application sets
    if worker.nr >= own.limit:
        own.limit = math.inf
        own.tell(WORN)


def worker_exit(server: object, worker: Any) -> None:
    """In a worker at its end: close connections, pools and threads, once."""
    if worker.pid == os.getpid():  # the master calls this too, for a worker that vanished
        found: Ending | None = getattr(worker, "prod_ending", None)  # none if it did not come up
        (found or Ending(worker.cfg.graceful_timeout)).finish()


def child_exit(server: object, worker: Worker) -> None:
    """In the master after a worker has ended, also by kill -9: forget its live gauges."""
    folder = multiprocess.current()
    if folder is not None:
        multiprocess.mark_dead(folder, worker.pid)


def on_exit(server: Server) -> None:
    """In the master at its end: forget workers that were killed, close what a preloaded application opened."""
    folder = multiprocess.current()
    if folder is not None:
        for pid in tuple(server.WORKERS):  # gunicorn does not call child_exit for those
            multiprocess.mark_dead(folder, pid)
    close_all(server.cfg.graceful_timeout, {})


OPENING = (on_starting, when_ready, on_reload, post_fork, post_worker_init, pre_request)
"""Called before the user's hook of the same name."""

CLOSING = (worker_exit, child_exit, on_exit)
"""Called after the user's, which may still need what they close."""


def _chained(ours: Hook, theirs: Hook | None) -> Hook:
    """Return one hook that calls both; ours is called even when theirs raises at the end of a process."""
    if theirs is None or theirs is ours:
        return ours
    if not callable(theirs):
        raise TypeError(f"{ours.__name__} in gunicorn's configuration must be a function, not {theirs!r}.")
    first, second = (ours, theirs) if ours in OPENING else (theirs, ours)

    def one(subject: object) -> None:
        try:
            first(subject)
        finally:
            second(subject)

    def two(server: object, worker: object) -> None:
        try:
            first(server, worker)
        finally:
            second(server, worker)

    # gunicorn counts the arguments of a hook before it takes it.
    return one if ours in (on_starting, when_ready, on_reload, post_worker_init, on_exit) else two


def _be_unready_when(draining: Callable[[], bool]) -> None:
    for lifecycle in alive():
        health = lifecycle.handle("health")
        if health is not None:
            health.drain_when(draining)


def _always() -> bool:
    return True
