"""Breaches as others see them: a counter for each, a line for few."""

from __future__ import annotations

import time
from collections.abc import Callable

from flask_prod.core.component import Event
from flask_prod.core.ports import CounterPort
from flask_prod.core.record import RequestRecord

from .policy import Policy, describe

_SILENCE = 60.0
_MOST_LINES = 30
"""Lines in a minute, whoever comes: a flood from many addresses must not become a flood of lines."""


class Breaches:
    """Counts breaches by policy and tells of at most one per client and minute; *event* names what it tells."""

    def __init__(self, event: str, counter: CounterPort, emit: Callable[[Event], None]) -> None:
        self._event = event
        self._counter = counter
        self._emit = emit
        self._told: set[str] = set()
        self._until = 0.0

    def note(self, client: str, policy: Policy, record: RequestRecord | None) -> None:
        """Count a breach, and tell of it unless this client, or too many, were told of in this minute."""
        self._counter.inc(policy.name)
        now = time.monotonic()
        if now >= self._until:
            self._told = set()
            self._until = now + _SILENCE
        if client in self._told or len(self._told) >= _MOST_LINES:
            return
        self._told.add(client)
        more = " It is in shadow mode: nobody was refused." if policy.shadow else ""
        message = f"{client} exceeded the limit {policy.name}: {describe(policy)}.{more}"
        endpoint = record.endpoint if record is not None else None
        fields = {"client": client, "policy": policy.name, "endpoint": endpoint or ""}
        self._emit(Event(self._event, message, "warning", fields))
