"""Notices a worker whose threads are all stuck, from within and from beside; costs requests nothing.

What the threads are doing is read from their stacks every few seconds. A stream that is being sent is no stuck
request: only views that have not answered yet count. Without knowing how many threads serve (WEB_THREADS, which
the gunicorn hooks set) nobody can say that all are stuck; then only signs of life are compared.
"""

from __future__ import annotations

import os
import sys
import threading
import traceback
from collections.abc import Callable, Iterator
from time import monotonic
from types import CodeType, FrameType

from flask_prod.core.component import Event
from flask_prod.core.pipeline import Pipeline

from .board import Board

EVERY = 2.0
"""Seconds between two looks, and between two signs of life."""

_SERVING: CodeType = Pipeline.serve.__code__
_MOST_FRAMES = 1000
_LONGEST = 8000
"""Characters of all stacks together: as much as one log line shows."""


class Watchdog:
    """Looks at the threads of this worker, and at the signs of life of the others of its host."""

    def __init__(self, board: Board, emit: Callable[[Event], None], after: float) -> None:
        self._board = board
        self._emit = emit
        self._after = after
        self.after_fork()

    def after_fork(self) -> None:
        """Begin anew in a forked child."""
        self.threads = _threads()
        self._seen: dict[str, float] = {}
        self._stuck = False
        self._silent: frozenset[int] = frozenset()
        self._look_at = 0.0
        self.stuck: tuple[int, ...] = ()
        """The workers of this host that serve nobody any more: what liveness reads."""

    def look(self) -> None:
        """Look, if it is time to; HEALTH_STUCK_AFTER=0 never does."""
        now = monotonic()
        if not self._after or now < self._look_at:
            return
        self._look_at = now + min(EVERY, self._after / 4)
        self._look_within(now)
        self._board.beat(self._stuck)
        self._look_beside()

    def _look_within(self, now: float) -> None:
        frames = sys._current_frames()
        serving = {request: thread for thread, request in _requests(frames)}
        self._seen = {request: self._seen.get(request, now) for request in serving}
        old = sum(now - since >= self._after for since in self._seen.values())
        stuck = self.threads > 0 and old >= self.threads
        if stuck and not self._stuck:
            message = f"Worker {os.getpid()} is stuck: all threads in the same requests for {self._after:g} s."
            fields = {"pid": os.getpid(), "threads": self.threads, "stacks": stacks(frames, set(serving.values()))}
            self._emit(Event("prod.health.stuck", message, "critical", fields))
        elif self._stuck and not stuck:
            self._emit(
                Event("prod.health.unstuck", f"Worker {os.getpid()} serves again.", "info", {"pid": os.getpid()})
            )
        self._stuck = stuck

    def _look_beside(self) -> None:
        stuck, silent = set(), set()
        for beat, age in self._board.others():
            if beat.stuck:
                stuck.add(beat.pid)
            elif age > self._after:
                silent.add(beat.pid)
        for pid in silent - self._silent:
            message = f"Worker {pid} lives, but has given no sign for {self._after:g} s."
            self._emit(Event("prod.health.stuck", message, "critical", {"pid": pid}))
        self._silent = frozenset(silent)
        self.stuck = tuple(sorted(stuck | silent | ({os.getpid()} if self._stuck else set())))


def _threads() -> int:
    given = os.environ.get("WEB_THREADS", "")
    return int(given) if given.isdigit() else 0


def _requests(frames: dict[int, FrameType]) -> Iterator[tuple[int, str]]:
    """Yield thread and request id of every request that waits for its view."""
    for thread, top in frames.items():
        frame: FrameType | None = top
        found = None
        for _ in range(_MOST_FRAMES):
            if frame is None:
                break
            if frame.f_code is _SERVING:
                found = frame  # the outermost: a view may call itself by a test client
            frame = frame.f_back
        if found is not None:
            yield thread, str(found.f_locals.get("request_id", ""))


def stacks(frames: dict[int, FrameType], serving: set[int]) -> str:
    """Return what the threads that serve are doing, the innermost calls first; the same stack once."""
    names = {thread.ident: thread.name for thread in threading.enumerate()}
    room = _LONGEST // max(1, len(serving))
    found: dict[str, list[str]] = {}
    for thread in sorted(serving):
        lines = reversed(traceback.StackSummary.extract(traceback.walk_stack(frames[thread]), limit=25))
        text = "\n".join(f"  {line.filename}:{line.lineno} {line.name}" for line in reversed(list(lines)))
        found.setdefault(text[:room], []).append(names.get(thread) or str(thread))
    return "\n".join(f"{', '.join(threads)}:\n{text}" for text, threads in found.items())
