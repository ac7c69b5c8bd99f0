"""A process beside the workers of `flask prod worker`, which answers for them on WORKER_PORT.

It is neither a worker, whose jobs may hold the interpreter for long, nor their supervisor, which forks and so has
one thread only. What it tells it reads from the memory that all of them share; it sees a frozen supervisor too.
"""

from __future__ import annotations

import logging
import os
import signal
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from typing import TYPE_CHECKING, NoReturn

from werkzeug.exceptions import NotFound

from flask_prod.components.health.views import Words, form_of
from flask_prod.components.jobs.delivery.processes import AWAY, STARTING, STOPPING, Board, Slot, die_with_parent
from flask_prod.core.component import Event
from flask_prod.core.run_dir import Leader

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

    from flask_prod.core.kit import KitState

logger = logging.getLogger(__name__)

_PAUSE = 1.0
"""Seconds before a lookout that has ended is replaced."""

_SECOND_LOOK = 0.02
"""Seconds between two looks of which both must find a worker stuck: its numbers are not written at once."""


class Lookout:
    """Tells how a crew fares: in one word to probes, in numbers to Prometheus.

    The crew is stuck when its supervisor, or a worker that runs no job, has given no sign of life for *after*
    seconds, 0 for never. How long a job may run is the supervisor's to watch. *health* is the path of the probes,
    empty for none; *page* answers everything else.
    """

    def __init__(self, board: Board, after: float, health: str, page: WSGIApplication | None) -> None:
        self._board = board
        self._after = after
        self._page = page or NotFound()
        self._words = Words()
        self._probes: Mapping[str, Callable[[], str]] = (
            {f"{health}/live": self.live, f"{health}/ready": self.ready} if health else {}
        )

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        """Answer a request."""
        probe = self._probes.get(environ["PATH_INFO"])
        if probe is None or environ["REQUEST_METHOD"] not in ("GET", "HEAD"):
            return self._page(environ, start_response)
        return self._words.say(probe(), form_of(environ))(environ, start_response)

    def live(self) -> str:
        """Return alive or stuck."""
        if not (self._after and self._silent()):
            return "alive"
        time.sleep(_SECOND_LOOK)
        return "stuck" if self._silent() else "alive"

    def ready(self) -> str:
        """Return ready, starting, draining, or unready: while the source of jobs is away, or when it is stuck."""
        _, stage = self._board.watch()
        if stage == STOPPING:
            return "draining"
        if stage == STARTING or not any(map(_takes_jobs, self._board.slots)):
            return "starting"
        return "unready" if stage == AWAY or self.live() == "stuck" else "ready"

    def _silent(self) -> bool:
        now = time.monotonic()
        beat, _ = self._board.watch()
        return now - beat > self._after or any(_silence(slot, now) > self._after for slot in self._board.slots)


def _takes_jobs(slot: Slot) -> bool:
    slot.look()
    return slot.seen > slot.born > 0


def _silence(slot: Slot, now: float) -> float:
    """Return the seconds since a worker's last sign of life; none is due from one that runs a job."""
    slot.look()
    return now - max(slot.born, slot.seen) if slot.born and not slot.began else 0.0


class Companion:
    """A process that the supervisor keeps beside its workers: forked, replaced, and ended by it."""

    def __init__(self, live: Callable[[Board], None], board: Board) -> None:
        self._live = live
        self._board = board
        self._pid = 0
        self._due = 0.0

    def keep(self) -> None:
        """Fork it, unless it is there or ended a moment ago."""
        if self._pid or time.monotonic() < self._due:
            return
        parent = os.getpid()
        pid = os.fork()
        if not pid:
            self._be(parent)
        self._pid = pid

    def ended(self, pid: int, how: str) -> None:
        """Take note of the end of a process, which may be this one."""
        if pid == self._pid:
            logger.warning("The lookout, process %s, ended (%s); another one takes its place", pid, how)
            self._pid, self._due = 0, time.monotonic() + _PAUSE

    def end(self) -> None:
        """End it; it keeps nothing that could be lost."""
        if self._pid:
            with suppress(ProcessLookupError):
                os.kill(self._pid, signal.SIGKILL)
            with suppress(ChildProcessError):
                os.waitpid(self._pid, 0)
            self._pid = 0

    def _be(self, parent: int) -> NoReturn:
        """Live, whatever happens; a stop is the supervisor's to tell, also where everybody hears of it."""
        try:
            signal.set_wakeup_fd(-1)
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            for number in (signal.SIGTERM, signal.SIGINT):
                signal.signal(number, signal.SIG_IGN)
            die_with_parent(signal.SIGKILL, parent)
            self._live(self._board)
        except BaseException:
            logger.exception("The lookout crashed")
        finally:
            os._exit(1)


def answering(state: KitState, address: tuple[str, int]) -> Callable[[Board], None]:
    """Return what a lookout does until it is killed: answer for the worker of one application at *address*."""
    from flask_prod.components.health.settings import HealthSettings
    from flask_prod.components.metrics.port import PERIOD, OwnPort

    health = state.settings.section(HealthSettings) if "health" in state.contributions else None
    stuck_after, path = (health.stuck_after, health.path) if health else (0.0, "")
    metrics = state.lifecycle.handle("metrics")

    def live(board: Board) -> None:
        lookout = Lookout(board, stuck_after, path, metrics.page if metrics else None)
        # Whoever else listens there is no process of this worker: two workers on one host need a port each.
        port = OwnPort(
            address, lookout, Leader(None, "worker-port"), lambda error: _tell(state, address[1], error)
        )
        while True:
            port.take()
            time.sleep(PERIOD)

    return live


def _tell(state: KitState, port: int, error: OSError) -> None:
    message = f"WORKER_PORT {port} cannot be listened on ({error.strerror or error}); it is tried on."
    event = Event("prod.worker.port_unavailable", message, severity="error")
    for contribution in state.contributions.values():
        if contribution.on_event is not None:
            contribution.on_event(event)
