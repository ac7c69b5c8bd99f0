"""Requests that need no thought: those of one endpoint, method and client are counted in the same places."""

from __future__ import annotations

from typing import TypeAlias

from flask_prod.core.record import RequestRecord

from .account import Account
from .counters import Counters
from .engine import Slot
from .plan import Limits

Track: TypeAlias = tuple[Limits, tuple[Slot, ...]]
"""The limits of a request, and how this process counts them by itself."""

_MOST = 4096


class Tracks(dict[tuple[str | None, str, str], Track]):
    """What counts the requests of an endpoint, a method and a client; emptied when it is full."""

    def __init__(self, counters: Counters) -> None:
        super().__init__()
        self._counters = counters

    def learn(self, record: RequestRecord, limits: Limits, who: str | None) -> None:
        """Remember how such requests are counted, unless that takes thought."""
        if who is None or not limits.policies or limits.mixed:
            return
        slots = self._counters.slots_of(limits, who)
        if slots:
            if len(self) >= _MOST:
                self.clear()
            self[record.endpoint, record.method, record.client] = limits, slots

    def count(self, record: RequestRecord, track: Track) -> bool:
        """Count a request; False, and nothing counted, when it needs thought after all."""
        limits, slots = track
        standing = self._counters.local.take(slots)
        record.limits = None if standing is None else Account(limits, standing, None, 0, None, True)
        return standing is not None
