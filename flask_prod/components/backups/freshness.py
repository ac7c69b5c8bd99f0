"""The check `backups`: whether there is one, and not too old."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from flask_prod.core.component import Finding

ASK_AGAIN = 60.0
"""Seconds between two looks at a store that had nothing new enough."""


class Freshness:
    """Looks at the store only when the newest backup it knows of is too old: only a newer one can come."""

    def __init__(self, newest: Callable[[], float | None], max_age: float) -> None:
        self._newest = newest
        self._max_age = max_age
        self._lock = threading.Lock()
        self._known: float | None = None
        self._asked = float("-inf")

    def probe(self) -> Finding | None:
        """Return a warning when the last backup is too old; raises when the store cannot be read."""
        with self._lock:
            if not self._fresh() and time.monotonic() - self._asked >= ASK_AGAIN:
                self._known = self._newest()
                self._asked = time.monotonic()
        if self._known is None:
            return Finding("warn", "there is no backup yet: run `flask prod db backup`")
        age = round(time.time() - self._known)
        data = {"age_seconds": age}
        if self._fresh():
            return Finding(data=data)
        return Finding("warn", f"the last backup is {age / 3600:.0f} hours old: see `flask prod db backups`", data)

    def _fresh(self) -> bool:
        return self._known is not None and time.time() - self._known <= self._max_age
