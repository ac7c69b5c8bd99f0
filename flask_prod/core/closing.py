"""Closing one thing after the other within one deadline: what hangs is left behind and named."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from time import monotonic, perf_counter
from typing import TypeAlias

logger = logging.getLogger(__name__)

Hook: TypeAlias = tuple[str, Callable[[], object]]

LAST = ("metrics", "tracing", "alerts", "error_tracking", "logs")
"""What tells of the others is closed after them, and the log last of all."""

_MOST = 2.5
"""Seconds for closing all components: enough for a slow collector, and no burden for a deploy."""

_LEAST = 0.05
"""Seconds that a component has at least, when those before it have used up theirs."""


def closing_seconds(shutdown: float) -> float:
    """Return how much of SHUTDOWN_SECONDS is kept for closing: a quarter, 2.5 s at most."""
    return min(_MOST, shutdown / 4)


@dataclass(slots=True)
class Closed:
    """How closing went: seconds by name in the order of closing, and the names of those left behind."""

    seconds: dict[str, float] = field(default_factory=dict)
    abandoned: list[str] = field(default_factory=list)


class Closing:
    """One deadline over several components: each may use half of what is left of it."""

    def __init__(self, seconds: float) -> None:
        self.closed = Closed()
        self._ends = monotonic() + seconds

    def close(self, hooks: Iterable[Hook]) -> None:
        """Call the hooks in order; one that raises is logged, one that does not return is left behind."""
        for name, hook in hooks:
            began = perf_counter()
            if not _within(max(_LEAST, (self._ends - monotonic()) / 2), name, hook):
                self.closed.abandoned.append(name)
            self.closed.seconds[name] = perf_counter() - began

    def close_here(self, hooks: Iterable[Hook]) -> None:
        """Call the hooks in this thread, without a limit: only a main thread can give a signal back."""
        for name, hook in hooks:
            began = perf_counter()
            _call(name, hook)
            self.closed.seconds[name] = perf_counter() - began


def in_order(hooks: Iterable[Hook]) -> list[Hook]:
    """Return *hooks*, given in the order of installation, in the order of closing."""
    back = list(hooks)[::-1]
    return sorted(back, key=lambda hook: LAST.index(hook[0]) if hook[0] in LAST else -1)


def _within(seconds: float, name: str, hook: Callable[[], object]) -> bool:
    """Run *hook* in a thread that may be left behind; False when it did not end in time."""
    thread = threading.Thread(target=_call, args=(name, hook), name=f"flask-prod-close-{name}", daemon=True)
    try:
        thread.start()
    except RuntimeError:  # no thread can be had any more: the interpreter or the container is at its end
        _call(name, hook)
        return True
    thread.join(seconds)
    return not thread.is_alive()


def _call(name: str, hook: Callable[[], object]) -> None:
    try:
        hook()
    except Exception:
        logger.exception("close of %s failed", name)
