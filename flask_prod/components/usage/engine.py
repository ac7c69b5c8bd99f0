"""Counting ended requests by route and caller, in memory, until they are handed on.

There is no lock: counts are taken from a batch only when it has been out of use for one flush, long after the
last thread that still held one of its cells has let go of it.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from time import time
from typing import TypeAlias

from flask_prod.core.errors import Unavailable
from flask_prod.core.record import RequestRecord
from flask_prod.core.values import Secret

ANONYMOUS = "anonymous"
OTHER = "(other)"
"""The caller of everything beyond USAGE_MAX_CALLERS."""

UNMATCHED = "unmatched"
ROUTE, CLIENT = "route", "client"
"""Kinds of name: a route with its caller, or a network address."""

CALLER = "flask_prod.usage"
"""Where the name that the application gave to a caller lies in the WSGI environment."""

HOUR = 3600
_MOST_WAITING = 64
"""Batches kept while they cannot be stored: ten minutes of them, then the oldest is given up."""
_MOST_FINGERPRINTS = 10_000
_LONGEST = 200

Name: TypeAlias = tuple[str, str, str]
"""Kind, route, caller."""

Cell: TypeAlias = list[float]
"""Requests, errors (5xx and what broke off), refusals (429), bytes sent, seconds."""


@dataclass
class Batch:
    """What one process counted within a few seconds of one hour; by its id it is stored once only."""

    hour: int
    cells: dict[Name, Cell] = field(default_factory=dict)
    id: str = field(default_factory=lambda: os.urandom(12).hex())


Store: TypeAlias = Callable[[Batch], None]
"""Adds a batch to its hour, once however often it is called with it; Unavailable when it cannot now."""


class Tally:
    """Counts the requests of one process.

    `lose` is told how many requests were given up, when batches had to wait for too long.
    """

    def __init__(
        self, limit: int, key_header: str, clients: bool, store: Store, lose: Callable[[float], None]
    ) -> None:
        self._limit = limit
        self._header = "HTTP_" + key_header.upper().replace("-", "_") if key_header else ""
        self._clients = clients
        self._store = store
        self._lose = lose
        self._fingerprints: dict[str, str] = {}
        self.after_fork()

    def after_fork(self) -> None:
        """Leave what was counted before to the parent."""
        self._now = Batch(_hour())
        self._before = Batch(self._now.hour)
        self._waiting: deque[Batch] = deque()

    def observe(self, record: RequestRecord) -> None:
        """Count a request that has ended; probes and scrapes are not counted."""
        if record.operational:
            return
        environ = record.environ
        cells = self._now.cells
        caller = environ.get(CALLER) or record.user_id
        if not caller:
            caller = self._key_of(record) if self._header in environ else ANONYMOUS
        name = (ROUTE, record.route or UNMATCHED, caller)
        _add(cells.get(name) or self._cell(cells, name), record)
        if self._clients:
            name = (CLIENT, "", record.client)
            _add(cells.get(name) or self._cell(cells, name), record)

    def flush(self) -> None:
        """Hand on what was counted before the last flush; what cannot be stored waits, up to a bound."""
        before, self._before, self._now = self._before, self._now, Batch(_hour())
        self._hand_on(before)

    def close(self) -> None:
        """Hand on everything; once."""
        for _ in range(2):
            self.flush()

    def _hand_on(self, batch: Batch) -> None:
        if batch.cells:
            self._waiting.append(batch)
        try:
            while self._waiting:
                self._store(self._waiting[0])
                self._waiting.popleft()
        except Unavailable:
            while len(self._waiting) > _MOST_WAITING:
                lost = self._waiting.popleft()
                self._lose(sum(cell[0] for (kind, *_), cell in lost.cells.items() if kind == ROUTE))

    def _cell(self, cells: dict[Name, Cell], name: Name) -> Cell:
        if len(cells) >= self._limit and name not in cells:
            name = (name[0], name[1], OTHER)
        return cells.setdefault(name, [0, 0, 0, 0, 0.0])

    def _key_of(self, record: RequestRecord) -> str:
        """Name the caller by its key's fingerprint; a key that was refused is nobody's."""
        key = record.environ[self._header]
        if not key or record.status in (401, 403):
            return ANONYMOUS
        known = self._fingerprints.get(key)
        if known is None:
            if len(self._fingerprints) >= _MOST_FINGERPRINTS:
                self._fingerprints.clear()
            known = self._fingerprints[key] = f"key:{Secret(key).fingerprint}"
        return known


def _add(cell: Cell, record: RequestRecord) -> None:
    # No call between reading and writing a number, so no other thread comes in between.
    cell[0] += 1
    if record.status >= 500 or record.outcome == "crashed":
        cell[1] += 1
    elif record.status == 429:
        cell[2] += 1
    cell[3] += record.bytes_sent
    cell[4] += record.duration


def _hour() -> int:
    return int(time()) // HOUR


def clean(name: str) -> str:
    """Return *name* in one short line of printable characters: a user id may be anything."""
    return "".join(c if c.isprintable() else "?" for c in name[:_LONGEST])


def fold(cells: Mapping[Name, Cell], kind: str, by: str) -> dict[str, Cell]:
    """Add up cells of *kind* by route or by caller."""
    at = 1 if by == "route" else 2
    sums: dict[str, Cell] = {}
    for name, cell in cells.items():
        if name[0] == kind:
            known = sums.setdefault(name[at], [0, 0, 0, 0, 0.0])
            known[:] = (mine + more for mine, more in zip(known, cell, strict=True))
    return sums
