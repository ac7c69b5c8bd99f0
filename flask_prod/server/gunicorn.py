"""How gunicorn runs a kit's application: its settings, and hooks at each step of a process's life.

Three ways to use it: the gunicorn.conf.py at the top of the repository, the option
`-c python:flask_prod.server.gunicorn_conf`, or two lines at the end of a file of your own, whose settings win and
whose hooks are called together with these:

    from flask_prod.server.gunicorn import compose
    globals().update(compose(globals()))
"""

from __future__ import annotations

import gc
import math
import os
import sys
from collections.abc import Callable, Mapping
from typing import Any, Protocol, TypeAlias

from flask_prod.core.errors import ConfigError
from flask_prod.core.lifecycle import alive

from . import budget, classes, connections, heartbeat, master, multiprocess, post, stacks, tls
from .ending import Ending, close_all
from .web_settings import ServerSettings, defaults, read_server_settings
from .wire import READY, WORN

__all__ = ["ServerSettings", "compose", "defaults", "read_server_settings"]

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


# The hooks, in the order of a process's life. Clients and pools are renewed after every fork by core.lifecycle,
# with no help from here.


def on_starting(server: Server) -> None:
    """In the master, before the first worker: say how many there will be, clear away what an earlier life left."""
    for problem in classes.problems(server.cfg):
        sys.exit(problem)
    os.environ["WEB_CONCURRENCY"] = str(server.cfg.workers)  # what a limit or a pool is shared by
    os.environ["WEB_THREADS"] = str(getattr(server.cfg, "threads", 1))  # what health's watchdog counts with
    folder = multiprocess.current()
    if folder is not None:
        multiprocess.sweep(folder)


def when_ready(server: Any) -> None:
    """In the master, before the first worker: teach it to drain, and to reload with care."""
    heartbeat.use_memory_if_needed(server.cfg)
    settings = read_server_settings()
    server.prod = master.install(server, settings.drain_seconds)
    if server.prod is None:
        server.log.warning("This gunicorn cannot be taught to drain, nor to try code before a reload.")
    for warning in (*tls.warnings(settings), *classes.warnings(server.cfg)):
        server.log.warning(warning)


def pre_fork(server: Any, worker: Any) -> None:
    """In the master, before each fork: make room for what the worker says when it is stuck."""
    stacks.prepare(worker)


def on_reload(server: Any) -> None:
    """In the master, when settings were read again."""
    if server.prod is not None:
        server.prod.drain.seconds = read_server_settings().drain_seconds


def post_fork(server: Any, worker: Any) -> None:
    """In a new worker: take up what it shares with the master."""
    worker.prod = post.take(getattr(server, "prod", None), worker)
    stacks.forget(server, worker)
    classes.adapt(worker)


def post_worker_init(worker: Any) -> None:
    """In a worker that has loaded the application: start the kit's background work, and set its objects aside."""
    connections.watch(worker)
    tls.show(worker, read_server_settings())
    budget.look(worker)
    _be_unready_when(worker.prod.draining)
    for lifecycle in alive():
        lifecycle.start()
    # The first full collection would otherwise walk through all that was loaded, in the middle of some request.
    gc.collect()
    gc.freeze()
    worker.prod_ending = Ending(worker.cfg.graceful_timeout)
    worker.prod_ending.watch()
    stacks.watch(worker)
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


def child_exit(server: Any, worker: Worker) -> None:
    """In the master after a worker has ended, also by kill -9: forget its live gauges."""
    folder = multiprocess.current()
    if folder is not None:
        multiprocess.mark_dead(folder, worker.pid)
    stacks.tell(server, worker)


def on_exit(server: Server) -> None:
    """In the master at its end: forget workers that were killed, close what a preloaded application opened."""
    folder = multiprocess.current()
    if folder is not None:
        for pid in tuple(server.WORKERS):  # gunicorn does not call child_exit for those
            multiprocess.mark_dead(folder, pid)
    close_all(server.cfg.graceful_timeout, {})


OPENING = (on_starting, when_ready, on_reload, pre_fork, post_fork, post_worker_init, pre_request)
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
