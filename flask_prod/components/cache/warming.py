"""Functions that fill the cache before somebody has to wait: after the start, on a schedule, and on command."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Sequence
from contextvars import ContextVar
from dataclasses import dataclass
from time import monotonic, perf_counter
from typing import TYPE_CHECKING, Any

from flask import Flask

if TYPE_CHECKING:
    from .stores import Store

logger = logging.getLogger(__name__)

ahead: ContextVar[float] = ContextVar("flask_prod_cache_ahead", default=0.0)
"""Seconds by which results are taken to be older: what would end before the next warming is made anew."""

_AFTER_START = 60.0
"""Seconds after a start in which another process that starts does not do the same again."""

_THREAD = "flask-prod-cache-warming"
_GOODBYE = 2.0


@dataclass(frozen=True, slots=True)
class Warmth:
    """A function that fills the cache; `every` is in seconds, None for once after the start."""

    name: str
    function: Callable[[], object]
    every: float | None = None


class Warming:
    """What one process of one application does to keep its cache warm."""

    def __init__(self, app: Flask, store: Store, functions: Sequence[Warmth]) -> None:
        self._app = app
        self._store = store
        self.functions = functions
        self.after_fork()

    @staticmethod
    def register(
        functions: list[Warmth], function: Callable[[], object] | None, every: float | None, name: str
    ) -> Any:
        """Add a function; as a decorator, with and without parentheses."""

        def add(function: Callable[[], object]) -> Callable[[], object]:
            functions.append(Warmth(name or function.__name__, function, every))
            return function

        return add if function is None else add(function)

    def after_fork(self) -> None:
        """Begin anew."""
        self._due: dict[str, float] = {}
        self._thread: threading.Thread | None = None
        self._stopping = threading.Event()

    def tick(self) -> None:
        """Start a thread for what is due, unless one is still at it."""
        if self._stopping.is_set() or (self._thread is not None and self._thread.is_alive()):
            return
        now = monotonic()
        due = [one for one in self.functions if self._due.get(one.name, 0.0) <= now]
        if not due:
            return
        for one in due:
            self._due[one.name] = now + one.every if one.every else float("inf")
        self._thread = threading.Thread(target=self._run, args=(due,), name=_THREAD, daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Begin nothing new; waits two seconds at most for the function that runs just then."""
        self._stopping.set()
        if self._thread is not None and self._thread is not threading.current_thread():
            self._thread.join(_GOODBYE)

    def run(self, one: Warmth) -> float:
        """Run one function now and return how many seconds it took; raises what it raises."""
        began = perf_counter()
        token = ahead.set(one.every or 0.0)
        try:
            with self._app.app_context():
                one.function()
        finally:
            ahead.reset(token)
        return perf_counter() - began

    def _run(self, due: Sequence[Warmth]) -> None:
        for one in due:
            # Nobody gives this lock back: it says that somebody has begun, until shortly before the next time.
            seconds = one.every * 0.9 if one.every else _AFTER_START
            if self._stopping.is_set() or not self._store.claim(f"warm:{one.name}", seconds):
                continue
            try:
                self.run(one)
            except Exception:
                logger.exception("%s could not warm the cache", one.name)
