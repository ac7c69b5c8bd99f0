"""Fork, start, drain, close: which component is asked, and in which order.

Installation order goes down (start, after fork), its reverse comes back up (close): what is opened first is
needed longest. What tells of all others (metrics, traces, error reports, logs) is closed after them.
"""

from __future__ import annotations

import logging
import os
import threading
import time
import weakref
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

from .closing import LAST, Closed, Closing, closing_seconds, in_order
from .component import Contribution, Event
from .ticker import Ticker

logger = logging.getLogger(__name__)

CLOSING = closing_seconds(20.0)
"""Seconds that closing may take where nobody says otherwise."""

NOTHING: Mapping[str, float] = MappingProxyType({})

# One registration per process, since os.register_at_fork cannot be undone: applications come and go with it.
_alive: weakref.WeakSet[Lifecycle] = weakref.WeakSet()


class Lifecycle:
    """The life of one application in one process."""

    def __init__(self, contributions: Mapping[str, Contribution[Any]]) -> None:
        self._contributions = contributions
        self._lock = threading.Lock()
        self._started = False
        self._closer: int | None = None
        self._over = threading.Event()
        self._ticker: Ticker | None = None
        self.started_at = time.time()
        _alive.add(self)

    @property
    def closed(self) -> bool:
        """True once `close` has been called in this process."""
        return self._closer is not None

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
        self._started = False
        self._closer, self._over = None, threading.Event()
        self._ticker = None
        self.started_at = time.time()
        self._ask("after_fork", self._contributions)

    def close(self, seconds: float = CLOSING, spent: Mapping[str, float] = NOTHING) -> dict[str, float]:
        """Close all components once, within *seconds*; return seconds by name.

        Whoever comes second waits for the first. *spent* is what the process did before, such as ending its
        requests, for the line that a process which has served writes of its end.
        """
        with self._lock:
            first = self._closer is None
            if first:
                self._closer = threading.get_ident()
        if not first:
            if self._closer != threading.get_ident():
                self._over.wait(seconds)
            return {}
        try:
            return self._close(seconds, spent)
        finally:
            self._over.set()

    def _close(self, seconds: float, spent: Mapping[str, float]) -> dict[str, float]:
        closing = Closing(seconds)
        hooks = in_order((name, c.close) for name, c in self._contributions.items() if c.close is not None)
        if self._ticker is not None:
            closing.close([("ticker", self._ticker.stop)])
        closing.close(hook for hook in hooks if hook[0] != LAST[-1])
        self._tell(closing.closed, spent)
        closing.close_here(hook for hook in hooks if hook[0] == LAST[-1])  # it waits for nobody
        return closing.closed.seconds

    def _tell(self, closed: Closed, spent: Mapping[str, float]) -> None:
        """Write one line of how a serving process ended, or of what was left behind."""
        if not (self._started or closed.abandoned):
            return
        durations = {**spent, **closed.seconds}
        total, behind = sum(durations.values()), ", ".join(closed.abandoned)
        fields: dict[str, object] = {"ms": {name: round(s * 1000, 1) for name, s in durations.items()}}
        fields["total_ms"] = round(total * 1000, 1)
        if behind:
            fields["abandoned"] = closed.abandoned
        message = f"Closed in {total:.2f} s" + (f"; left behind: {behind}" if behind else "")
        event = Event("prod.process.closed", message, "warning" if behind else "info", fields)
        logs = self._contributions.get(LAST[-1])
        if logs is not None and logs.on_event is not None:
            logs.on_event(event)
        else:
            logger.log(logging.WARNING if behind else logging.INFO, "%s", message)

    def _ask(self, what: str, contributions: Mapping[str, Contribution[Any]]) -> None:
        """Call one hook of every component; one that raises is logged and stops nobody else."""
        for name, contribution in contributions.items():
            hook: Callable[[], None] | None = getattr(contribution, what)
            if hook is None:
                continue
            try:
                hook()
            except Exception:
                logger.exception("%s of %s failed", what, name)


def alive() -> tuple[Lifecycle, ...]:
    """Return the lifecycles of all applications of this process: what a server starts and closes."""
    return tuple(_alive)


def _after_fork_in_child() -> None:
    for lifecycle in alive():
        lifecycle.after_fork()


os.register_at_fork(after_in_child=_after_fork_in_child)
