"""What differs between gunicorn's worker classes: odd combinations, gevent's idle connections, gthread's lock."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

_LINGER = 1.0
"""Seconds that a stopping worker leaves idle connections open, for a request that is on its way already."""

_TOO_EARLY = (
    "preload_app loads the application before gevent has patched the standard library, so its locks and sockets "
    "would stop all requests of a worker. Leave out preload_app, or begin your configuration file with "
    "`from gevent import monkey; monkey.patch_all()`."
)


def problems(cfg: Any) -> Iterator[str]:
    """Yield what cannot be right, one sentence for each."""
    if _is_gevent(cfg.worker_class) and cfg.preload_app and not _patched():
        yield _TOO_EARLY


def warnings(cfg: Any) -> Iterator[str]:
    """Yield what works, though not as it is written."""
    asked = cfg.settings["worker_class"].get()
    if asked == "sync" and cfg.threads > 1:
        yield (
            f"worker_class sync with {cfg.threads} threads is gthread ({cfg.worker_class.__name__}) to gunicorn: "
            "set WEB_WORKER_CLASS=gthread, or WEB_THREADS=1."
        )


def adapt(worker: Any) -> None:
    """In a new worker: let a gevent worker end before its idle connections do, and gthread at any moment."""
    if _is_gevent(type(worker)):
        _Idle(worker)
    make = getattr(worker, "get_thread_pool", None)
    if make is not None:
        worker.get_thread_pool = lambda: _interruptible(make())


def later(seconds: float, call: Callable[[], None]) -> None:
    """Call *call* after so long, in a thread or greenlet that does not hold up the end of the process.

    May be asked in a signal's handler: there gevent cannot start a thread, which waits for its first sign of life.
    """
    if _patched():
        import gevent

        gevent.spawn_later(seconds, call)
        return
    late = threading.Timer(seconds, call)
    late.name, late.daemon = "flask-prod-ending", True
    late.start()


def _interruptible(pool: Any) -> Any:
    """Let a signal's handler shut down *pool* while the code that it interrupts hands the pool a request.

    gunicorn does so at SIGQUIT and SIGINT. The pool's lock is then held by the same thread, which would wait for
    itself until it is killed, with nothing closed: most likely while the pool starts a thread, on a busy machine.
    """
    if hasattr(pool, "_shutdown_lock"):
        pool._shutdown_lock = threading.RLock()
    return pool


class _Idle:
    """The connections of a gevent worker that wait for a next request.

    gunicorn gives each the whole keepalive, and waits for it when it stops: half a minute for one idle browser.
    """

    def __init__(self, worker: Any) -> None:
        self._worker = worker
        self._waiting: dict[Any, Any] = {}
        self._exit = worker.handle_exit
        worker.handle_exit = self._on_term
        worker.timeout_ctx = self._timeout

    @contextmanager
    def _timeout(self) -> Iterator[None]:
        import gevent

        me = gevent.getcurrent()
        with gevent.Timeout(self._worker.cfg.keepalive, False) as timeout:
            self._waiting[me] = timeout
            try:
                yield
            finally:
                del self._waiting[me]

    def _on_term(self, number: int, frame: object) -> None:
        import gevent

        self._exit(number, frame)
        gevent.spawn_later(_LINGER, self._close)

    def _close(self) -> None:
        import gevent

        for greenlet, timeout in tuple(self._waiting.items()):
            gevent.kill(greenlet, timeout)


def _is_gevent(kind: type) -> bool:
    return any(base.__name__ == "GeventWorker" for base in kind.__mro__)


def _patched() -> bool:
    monkey = sys.modules.get("gevent.monkey")
    return monkey is not None and bool(monkey.is_module_patched("socket"))
