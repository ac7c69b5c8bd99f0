"""What gunicorn's master learns from the kit: to drain, to reload with care, to renew workers one at a time.

gunicorn looks its handlers up by name, so an attribute on the one master is enough: nothing is subclassed, and
every other signal works as documented. Workers are *leaving* once others are to take their place; they are told
to end as soon as all of those serve. So a reload costs nobody a wait for an import, and one that fails is undone.
"""

from __future__ import annotations

import os
import random
import signal
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any

from gunicorn.errors import HaltServer

from . import stacks
from .drain import Drain
from .trial import Trial
from .wire import READY, WORN, Wire

_PARTS = (
    "handle_term", "handle_hup", "handle_chld", "manage_workers", "spawn_worker", "kill_worker", "reap_workers",
    "reload", "WORKERS", "SIG_QUEUE", "START_CTX", "num_workers", "log", "cfg", "app",
)  # fmt: skip
"""What is asked of gunicorn's master; not all of it is documented, so its absence must not do harm."""

_TRIAL = 60.0
"""Seconds within which an application must load before a reload."""

_PAUSES = (0.5, 1.0, 2.0, 5.0, 10.0, 30.0)
"""Seconds before another try when a worker did not come up while others serve, longer each time."""

_OURS = "PROMETHEUS_MULTIPROC_DIR"


class _Reloaded(BaseException):
    """Leaves gunicorn's reload where it would end the old workers, and wait for them with its ears closed."""


class Master:
    """Minds the workers of one gunicorn."""

    def __init__(self, server: Any, drain_seconds: float) -> None:
        self.drain = Drain(server, drain_seconds)
        self.wire = Wire()
        self._server = server
        self._stock_manage: Callable[[], None] = server.manage_workers
        self._stock_chld: Callable[[], None] = server.handle_chld
        self._stock_kill: Callable[[int, int], None] = server.kill_worker
        self._stock_reap: Callable[[], None] = server.reap_workers
        self._pid = os.getpid()
        self._ready: set[int] = set()
        self._leaving: set[int] = set()
        self._told: set[int] = set()
        self._worn: list[int] = []
        self._trial: Trial | None = None
        self._again = False
        self._reloading = False
        self._failures = 0
        self._due = 0.0

    # What gunicorn calls

    def on_hup(self) -> None:
        """Try the code on disk, in the background; `manage` goes on when it is known to load."""
        if self.drain.flag():
            self._server.log.info("No reload: the service is about to stop")
        elif self._trial is not None:
            self._again = True
        else:
            self._try()

    def on_chld(self) -> None:
        """Bury dead workers; one that did not come up ends the service only when no other serves."""
        before = dict(self._server.WORKERS)
        try:
            self._stock_chld()
        except HaltServer as error:
            self._bury(before)
            if not self._serving():
                self._server.reap_workers = self._reap_all
                raise
            self._give_up(error)
            self._server.SIG_QUEUE.put_nowait(signal.SIGCHLD)  # gunicorn did not look at those behind it
        gone = before.keys() - self._server.WORKERS.keys()
        for known in (self._ready, self._leaving, self._told):
            known -= gone

    def manage(self) -> None:
        """Start workers that are missing, end those that are too many or have successors that serve."""
        if self._reloading:
            raise _Reloaded
        self._hear()
        self._decide()
        workers = self._server.WORKERS
        staying = [pid for pid in workers if pid not in self._leaving]
        missing = self._server.num_workers - len(staying)
        if missing > 0:
            self._hire(missing)
        elif missing < 0:
            self._leaving.update(sorted(staying, key=lambda pid: workers[pid].age)[:-missing])
        if all(pid in self._ready for pid in staying) and missing <= 0:
            self._dismiss()
            self._relieve()
        if not self._leaving and missing == 0:
            self._stock_manage()  # has nothing to do but its statistics

    def kill(self, pid: int, number: int) -> None:
        """Send a signal to a worker; one that is aborted says before what it was doing."""
        if number == signal.SIGABRT:
            self._hear()
            if pid in self._ready:
                stacks.ask(pid)
        self._stock_kill(pid, number)

    # A reload

    def _try(self) -> None:
        self._again = False
        command = check_command(self._server)
        if command is None:
            self._reload()
            return
        env = {name: value for name, value in os.environ.items() if name != _OURS}
        self._server.log.info("A reload was asked for: trying whether the code on disk loads")
        self._trial = Trial(command, env, _TRIAL)

    def _decide(self) -> None:
        verdict = self._trial.verdict() if self._trial is not None else None
        if verdict is None:
            return
        self._trial = None
        if verdict.good:
            self._reload()
        elif self._again:
            self._try()
        else:
            self._refused(verdict.reason)

    def _reload(self) -> None:
        """Let gunicorn reload; its new workers come up beside the old ones."""
        server = self._server
        if server.cfg.preload_app:
            server.log.warning(
                "SIGHUP renews workers and settings, not the code, which preload_app loaded once: use SIGUSR2"
            )
        old = set(server.WORKERS)
        self._reloading = True
        try:
            server.reload()
        except _Reloaded:
            self._leaving |= old
        except SystemExit:
            if os.getpid() != self._pid:
                raise
            self._refused("gunicorn's settings cannot be read")
        finally:
            self._reloading = False

    def _refused(self, reason: str) -> None:
        self._server.log.error(
            "Reload refused, the old workers go on: %s", reason, extra={"event": "prod.reload.refused"}
        )

    def _give_up(self, error: HaltServer) -> None:
        """Undo a reload whose workers do not come up; else try again after a pause."""
        returning = (self._leaving - self._told) & set(self._server.WORKERS)
        if returning:
            self._leaving = {pid for pid in self._server.WORKERS if pid not in returning}
            self._dismiss()
        self._due = time.monotonic() + _PAUSES[min(self._failures, len(_PAUSES) - 1)]
        self._failures += 1
        self._server.log.error(
            "A new worker did not come up (%s): %d others go on",
            str(error.reason).rstrip("."), len(self._serving()), extra={"event": "prod.worker.unborn"},
        )  # fmt: skip

    # Workers

    def _hear(self) -> None:
        for what, pid in self.wire.heard():
            if what == READY:
                self._ready.add(pid)
                self._failures = 0
            elif what == WORN:
                self._worn.append(pid)

    def _serving(self) -> set[int]:
        self._hear()
        return {pid for pid in self._server.WORKERS if pid in self._ready and pid not in self._told}

    def _hire(self, missing: int) -> None:
        if time.monotonic() < self._due:
            return
        for _ in range(missing):
            self._server.spawn_worker()
            if missing > 1:
                time.sleep(0.1 * random.random())  # noqa: S311  # as gunicorn does: not all at the same moment

    def _dismiss(self) -> None:
        """Tell those who leave, each once, by SIGTERM: they finish what they serve."""
        for pid in sorted(self._leaving - self._told):
            self._told.add(pid)
            self._server.kill_worker(pid, signal.SIGTERM)

    def _relieve(self) -> None:
        """Let one worker at a time go that has served its number of requests."""
        if self._leaving or self.drain.flag():
            return
        while self._worn:
            pid = self._worn.pop(0)
            if pid in self._server.WORKERS:
                self._server.log.info("Worker %s has served its number of requests; another takes its place", pid)
                self._leaving.add(pid)
                return

    def _bury(self, before: Mapping[int, Any]) -> None:
        """Do what gunicorn does for every dead worker except one that did not come up."""
        for pid in before.keys() - self._server.WORKERS.keys():
            worker = before[pid]
            with suppress(ValueError):  # closed: gunicorn has done it
                worker.tmp.fileno()
                worker.tmp.close()
                self._server.cfg.child_exit(self._server, worker)

    def _reap_all(self) -> None:
        """Bury all, while the service ends since one did not come up: gunicorn would trip over the next such."""
        for _ in range(len(self._server.WORKERS) + 1):
            with suppress(HaltServer):
                self._stock_reap()
                return

    def limit_of(self, worker: Any) -> float:
        """Return after how many requests *worker* is to be replaced, `inf` for never.

        The workers of one start are spread evenly over their first life, so that they do not wear out together.
        """
        most, count = float(worker.cfg.max_requests), int(self._server.num_workers)
        if not most:
            return float("inf")
        if worker.cfg.max_requests_jitter:
            most += random.randrange(worker.cfg.max_requests_jitter)  # noqa: S311
        together = self._reloading or not self._ready
        return most * (1 + int(worker.age - 1) % count) / count if together else most


def install(server: Any, drain_seconds: float) -> Master | None:
    """Teach *server*, gunicorn's master; None where this gunicorn is not as we know it."""
    if not all(hasattr(server, part) for part in _PARTS):
        return None
    master = Master(server, drain_seconds)
    server.handle_term = master.drain.on_term
    server.handle_hup = master.on_hup
    server.handle_chld = server.handle_cld = master.on_chld
    server.manage_workers = master.manage
    server.kill_worker = master.kill
    if server.START_CTX["args"][1].endswith("__main__.py"):
        # At SIGUSR2 gunicorn would run that file, next to modules of its own that hide the standard library's.
        server.START_CTX["args"] = [sys.executable, *sys.orig_argv[1:]]
    return master


def check_command(server: Any) -> list[str] | None:
    """Return what tries the application; None for a program of the user's own, which may not know how."""
    if type(server.app).__module__ != "gunicorn.app.wsgiapp":
        return None
    return [sys.executable, *sys.orig_argv[1:], "--check-config"]
