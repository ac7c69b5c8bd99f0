"""The supervisor of worker processes: forks them, watches them, replaces them, and ends them in time.

It runs no job, so it is always there: it prolongs the leases of its children, deals at once with the job of a
child that died, ends a child whose job ignores its time limit, moves scheduled jobs when they are due, and reads
what people have asked for. As process 1 of a container it also buries processes that it did not start. When it is
killed itself, the kernel ends its children, and their jobs are found by their leases.
"""

from __future__ import annotations

import logging
import os
import select
import signal
import time
from collections.abc import Callable
from contextlib import suppress
from types import FrameType
from typing import TYPE_CHECKING

from flask_prod.components.jobs.delivery.processes import AWAY, SERVING, STOPPING, Board, Slot, die_with_parent
from flask_prod.components.jobs.delivery.source import Fate, Orders, Source, SourceAway
from flask_prod.components.jobs.delivery.worker import RECYCLED, attempt_token, new_worker_token

from .berths import Berth, tell
from .child import how
from .lookout import Companion

if TYPE_CHECKING:
    from collections.abc import Sequence

logger = logging.getLogger(__name__)

_LOOK = 0.25
"""Seconds between two looks at the children's clocks."""

_TICK = 1.0
"""Seconds between two looks at the source."""

_MARGIN = 5.0
"""Seconds of the stop that are kept for putting jobs back."""

_OBSTINATE = 3.0
"""Seconds by which a job may exceed its time limit, for its own clearing up, before its process is killed."""

_TRIAL = 60.0
"""Seconds within which an application must load before a restart."""

_PAUSES = (0.5, 1.0, 2.0, 5.0, 10.0)
"""Seconds before a child that ended without having taken a job is replaced, longer each time."""

_STOPS = (signal.SIGTERM, signal.SIGINT)

Work = Callable[[Board, Slot, str, str], int]
"""What a child does: gets the board, its slot, its token and its name, and returns its exit code."""


class Crew:
    """Several worker processes below this one."""

    def __init__(self, source: Source, queues: Sequence[str], work: Work, name: str, count: int = 1) -> None:
        self._source = source
        self._queues = queues
        self._work = work
        self._name = name
        self._board = Board(count)
        self._children = [Berth(slot) for slot in self._board.slots]
        self._orders = Orders()
        self._beat = 5.0
        self._burst = False
        self._stops = 0
        self._stopped_at = 0.0
        self._kill_at = 0.0
        self._next_tick = self._next_beat = 0.0
        self._away = False
        self._gone: list[str] = []
        self._restart: str | None = None
        self.restarting = False
        self.trial: Callable[[], int] | None = None
        """Starts a process that tries whether this command would come up again; returns its id."""
        self._trial, self._trial_ends = 0, 0.0
        self.aside: Callable[[], None] = lambda: None
        """Called about once a second until the stop: what one process of all does, such as schedules."""
        self.lookout: Companion | None = None

    def keep_beside(self, live: Callable[[Board], None]) -> None:
        """Keep a process beside the workers that runs *live* with what all of them write down of themselves."""
        self.lookout = Companion(live, self._board)

    def run(self, beat: float, grace: float, burst: bool = False) -> int:
        """Keep the workers running until told to stop, or until the queues are empty (burst); return its code."""
        self._beat, self._burst = beat, burst
        self._grace = max(grace - _MARGIN, grace / 2, 1.1)
        self._listen()
        self._tick()
        while not self._over():
            self._board.beat(self._stage())
            if self.lookout is not None:
                self.lookout.keep()
            self._hire()
            self._rest()
            self._bury()
            self._limit()
            if time.monotonic() >= self._next_tick:
                self._tick()
        self._say_goodbye()
        return 0

    def _stage(self) -> int:
        return STOPPING if self._stops or self.restarting else AWAY if self._away else SERVING

    # Signals

    def _listen(self) -> None:
        self._ear, mouth = os.pipe()
        for end in (self._ear, mouth):
            os.set_blocking(end, False)
        signal.set_wakeup_fd(mouth, warn_on_full_buffer=False)
        for number in _STOPS:
            signal.signal(number, self._on_stop)
        signal.signal(signal.SIGCHLD, lambda *_: None)  # it only wakes this process up
        self._mouth = mouth

    def _on_stop(self, _number: int, _frame: FrameType | None) -> None:
        moment = time.monotonic()
        self._stops += 1
        if self._stops == 1:
            self._stopped_at, self._kill_at = moment, moment + self._grace
        elif moment - self._stopped_at > 1:
            # Within the first second it is the same stop: a terminal and a supervisor both pass one on.
            self._kill_at = moment

    def _rest(self) -> None:
        moment = time.monotonic()
        until = min(self._next_tick, moment + _LOOK)
        with suppress(InterruptedError):
            if select.select([self._ear], [], [], max(0.0, until - moment))[0]:
                os.read(self._ear, 4096)

    # Children

    def _over(self) -> bool:
        if self._stops or self.restarting:
            return not any(child.pid for child in self._children)
        return all(child.done for child in self._children)

    def _hire(self) -> None:
        """Fork a child for each place that nobody has; while stopping, tell those that are left."""
        if self._stops or self.restarting:
            for child in self._children:
                if child.pid and not child.told:
                    child.told = True
                    self._kill(child, signal.SIGTERM)
            return
        moment = time.monotonic()
        for child in self._children:
            if not child.pid and not child.done and moment >= child.due:
                self._fork(child)

    def _fork(self, child: Berth) -> None:
        child.slot.clear()
        child.token = new_worker_token()
        child.fate, child.why, child.told, child.overdue = "crash", "", False, (0, 0.0)
        child.born = time.time()
        parent = os.getpid()
        # No signal may arrive between the birth of a child and its name in the list.
        signal.pthread_sigmask(signal.SIG_BLOCK, _STOPS)
        pid = os.fork()
        if not pid:
            os._exit(self._live(child, parent))
        child.pid = pid
        child.name = f"{self._name}.{pid}.{child.token[:4]}"
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _STOPS)
        self._next_beat = 0.0  # it is to be seen at once

    def _live(self, child: Berth, parent: int) -> int:
        """Be a worker; whatever happens, do not return into the parent's code."""
        try:
            signal.set_wakeup_fd(-1)
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            for number in _STOPS:
                signal.signal(number, lambda *_: os._exit(0))
            signal.pthread_sigmask(signal.SIG_UNBLOCK, _STOPS)
            # An orphan would run beside the next attempt.
            die_with_parent(signal.SIGKILL, parent)
            return self._work(
                self._board, child.slot, child.token, f"{self._name}.{os.getpid()}.{child.token[:4]}"
            )
        except BaseException:
            logger.exception("Worker %s crashed", os.getpid())
            return 1

    def _bury(self) -> None:
        """Take note of all processes that have ended, also of those that only process 1 knows."""
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if not pid:
                return
            code = os.waitstatus_to_exitcode(status)
            if pid == self._trial:
                self._judge(code)
            if self.lookout is not None:
                self.lookout.ended(pid, how(code))
            for child in self._children:
                if child.pid == pid:
                    self._ended(child, code)

    def _ended(self, child: Berth, code: int) -> None:
        """Give back what a dead child held, and plan its successor."""
        child.slot.look()
        self._gone.append(child.name)
        pid, child.pid = child.pid, 0
        if code not in (0, RECYCLED):
            logger.warning("Worker %s ended (%s)", pid, how(code))
            self._give_back(child, child.why or f"Its worker process ended: {how(code)}.")
        child.slot.leave()
        child.failures = 0 if child.slot.jobs else child.failures + 1
        child.due = 0.0 if child.slot.jobs else time.monotonic() + _PAUSES[min(child.failures, len(_PAUSES)) - 1]
        child.done = self._burst and code == 0
        if code == RECYCLED:
            child.due = 0.0

    def _give_back(self, child: Berth, why: str) -> None:
        try:
            found = self._source.lost(child.token, child.fate, why)
        except SourceAway as error:
            logger.warning("The job of worker %s is found by its lease: %s", child.name, error)
            return
        tell(found, why)

    def _limit(self) -> None:
        """Kill children whose job ignores its time limit, or for which the time to stop is over."""
        moment = time.monotonic()
        if self._trial and moment >= self._trial_ends:
            self._trial_ends = moment + _TRIAL
            with suppress(ProcessLookupError):
                os.kill(self._trial, signal.SIGKILL)
        if self._kill_at and moment >= self._kill_at:
            for child in self._children:
                if child.pid and child.fate == "crash":
                    self._end(child, "released", "It was interrupted by the end of its worker.")
            return
        for child in self._children:
            slot = child.slot
            if not child.pid:
                continue
            slot.look()
            late = slot.limit > 0 and slot.began > 0 and moment > slot.began + slot.limit + _OBSTINATE
            seen = (slot.attempt, slot.began)
            if late and child.overdue == seen and child.fate == "crash":
                self._end(child, "crash", f"It did not end within its time limit of {slot.limit:g} s.")
            child.overdue = seen if late else (0, 0.0)

    def _end(self, child: Berth, fate: Fate, why: str) -> None:
        child.fate, child.why = fate, why
        self._kill(child, signal.SIGKILL)

    def _kill(self, child: Berth, number: signal.Signals) -> None:
        with suppress(ProcessLookupError):
            os.kill(child.pid, number)

    # The source

    def _tick(self) -> None:
        """Do what is due at the source; one that is away is asked again a second later."""
        moment = time.monotonic()
        self._next_tick = moment + _TICK
        if not (self._stops or self.restarting or self._burst):
            self.aside()
        try:
            if moment >= self._next_beat:
                self._next_beat = moment + self._beat
                self._present()
            self._obey(self._prolong())
            tell(self._source.look_after(), "its worker has gone")
        except SourceAway as error:
            self._next_beat = 0.0
            if not self._away:
                logger.warning("The source of jobs is away (%s)", error)
            self._away = True
            return
        self._away = False

    def _prolong(self) -> list[tuple[str, str]]:
        """Prolong the leases of what the children run; return ids and tokens."""
        tokens = []
        for child in self._children:
            if child.pid:
                child.slot.look()
                attempt = child.slot.attempt
                # The last one may still be about to be written down.
                tokens += [attempt_token(child.token, one) for one in (attempt, attempt - 1) if one > 0]
        return self._source.beat(tokens)

    def _present(self) -> None:
        gone, self._gone = self._gone, []
        living = [child.presence(self._orders.suspended) for child in self._children if child.pid]
        try:
            self._source.present(living, gone)
        except SourceAway:
            self._gone += gone
            raise

    def _obey(self, running: list[tuple[str, str]]) -> None:
        """Read what people have asked for, and pass it on."""
        orders = self._orders = self._source.orders()
        every = (1 << len(self._queues)) - 1
        paused = sum(1 << place for place, name in enumerate(self._queues) if name in orders.paused)
        closed = every if orders.suspended else paused
        if closed != self._board.closed:
            self._board.closed = closed
        asked, self._restart = self._restart not in (None, orders.restart), orders.restart
        if asked and not self._stops and not self._trial:
            self._try()
        for job_id, token in running:
            if job_id in orders.stops:
                for child in self._children:
                    if child.pid and token.startswith(child.token):
                        self._end(child, "stopped", "It was stopped by request.")

    def _try(self) -> None:
        """Begin a restart by trying whether what would be started comes up; heartbeats go on meanwhile."""
        if self.trial is None:
            self._judge(0)
            return
        self._trial, self._trial_ends = self.trial(), time.monotonic() + _TRIAL

    def _judge(self, code: int) -> None:
        self._trial = 0
        if code:
            logger.error("No restart: the application does not load any more (%s); the old one goes on", how(code))
            return
        logger.info("A restart was asked for: the children end their jobs")
        self.restarting = True
        self._kill_at = time.monotonic() + self._grace

    def _say_goodbye(self) -> None:
        with suppress(SourceAway):
            self._present()
        signal.set_wakeup_fd(-1)
        for end in (self._ear, self._mouth):
            os.close(end)
