"""Fork, start, drain, close: which component is asked, and in which order.

Installation order goes down (start, after fork), its reverse comes back up (close): what is opened first is
needed longest.
"""

from __future__ import annotations

import logging
import os
import threading
import time
import weakref
from collections.abc import Callable, Mapping
from typing import Any

from .component import Contribution
from .ticker import Ticker

logger = logging.getLogger(__name__)

# One registration per process, since os.register_at_fork cannot be undone: applications come and go with it.
_alive: weakref.WeakSet[Lifecycle] = weakref.WeakSet()


class Lifecycle:
    """The life of one application in one process."""

    def __init__(self, contributions: Mapping[str, Contribution[Any]]) -> None:
        self._contributions = contributions
        self._lock = threading.Lock()
        self._started = False
        self._closed = False
        self._ticker: Ticker | None = None
        self.started_at = time.time()
        _alive.add(self)

    @property
    def closed(self) -> bool:
        """True once `close` has been called in this process."""
        return self._closed

    def handle(self, name: str) -> Any:
        """Return what component *name* gives to others, None when it is left out."""
        contribution = self._contributions.get(name)
        return None if contribution is None else contribution.handle

    def start(self) -> None:
        """Start background work, once per process; servers call it after the fork, else the first request does."""
        with self._lock:
            if self._started:
                return
            self._started = True
        self._ask("start", self._contributions)
        self._ticker = Ticker([work for c in self._contributions.values() for work in c.periodic])

    def after_fork(self) -> None:
        """Renew what a forked child must not share with its parent; it starts anew."""
        self._lock = threading.Lock()
        self._started = self._closed = False
        self._ticker = None
        self.started_at = time.time()
        self._ask("after_fork", self._contributions)

    def close(self) -> dict[str, float]:
        """Close all components in reverse order, once; return seconds by name."""
        with self._lock:
            if self._closed:
                return {}
            self._closed = True
        if self._ticker is not None:
            self._ticker.stop()
        return self._ask("close", dict(reversed(tuple(self._contributions.items()))))

    def _ask(self, what: str, contributions: Mapping[str, Contribution[Any]]) -> dict[str, float]:
        """Call one hook of every component; one that raises is logged and stops nobody else."""
        seconds = {}
        for name, contribution in contributions.items():
            hook: Callable[[], None] | None = getattr(contribution, what)
            if hook is None:
                continue
            began = time.perf_counter()
            try:
                hook()
            except Exception:
                logger.exception("%s of %s failed", what, name)
            seconds[name] = time.perf_counter() - began
        return seconds


def alive() -> tuple[Lifecycle, ...]:
    """Return the lifecycles of all applications of this process: what a server starts and closes."""
    return tuple(_alive)


def _after_fork_in_child() -> None:
    for lifecycle in alive():
        lifecycle.after_fork()


os.register_at_fork(after_in_child=_after_fork_in_child)
