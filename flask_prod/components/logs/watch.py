"""Obeying an order about levels in one process, and taking it back when its time is over."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime

from flask_prod.core.component import Event
from flask_prod.core.run_dir import Leader

from .engine import AppLog
from .levels import NOTHING, Board, Change, Order, later

ORDERED, ENDED = "prod.log.level_changed", "prod.log.level_restored"

_NEWS = 60.0
"""An order older than so many seconds was told of before: by the process that this one replaces."""


class LevelWatch:
    """Looks for orders and obeys them; one process per host, the leader, tells of it and asks Redis."""

    def __init__(self, log: AppLog, board: Board, leader: Leader, level_changed: Callable[[], None]) -> None:
        self._log = log
        self._board = board
        self._leader = leader
        self._level_changed = level_changed
        self._lock = threading.Lock()
        self._stamp = (0, 0)
        self._order = NOTHING
        self._obeyed: dict[str, Change] = {}
        self._before: dict[str, int] = {}

    def after_fork(self) -> None:
        """Begin anew in a child, which may be a job's: there is no thread in it that looks again."""
        self._lock = threading.Lock()
        self._leader.resign()
        self.look()

    def look(self) -> None:
        """Look whether there is another order, or whether the time of one is over; one system call if not."""
        stamp = self._board.stamp()
        if stamp != self._stamp:
            self._stamp = stamp
            self._take(later((self._order, self._board.read())))
        elif self._obeyed:
            self._take(self._order)

    def look_elsewhere(self) -> None:
        """Ask Redis for an order from another host, if this process leads, and pass it on to this host."""
        if not self._leader.leads():
            return
        found = self._board.read_shared()
        if found is not None and found.at > self._order.at:
            self._take(found)
            self._board.write(found)

    def close(self) -> None:
        """Give every logger its level back."""
        self._take(NOTHING, tell=False)
        self._leader.resign()

    def _take(self, order: Order, tell: bool = True) -> None:
        with self._lock:
            now = time.time()
            wanted = {change.logger: change for change in order.valid(now).changes}
            self._order = order
            if wanted == self._obeyed:
                return
            news = tell and self._leader.leads()
            if news:
                self._tell_ordered(wanted, now)
            gone = self._obeyed.keys() - wanted.keys()
            self._obey(wanted)
            if news:
                self._tell_ended(gone)

    def _obey(self, wanted: Mapping[str, Change]) -> None:
        for name in self._obeyed.keys() - wanted.keys():
            self._restore(name)
        for name, change in wanted.items():
            if name and self._obeyed.get(name) != change:
                logger = logging.getLogger(name)
                self._before.setdefault(name, logger.level)
                logger.setLevel(change.number)
        self._obeyed = dict(wanted)
        self._log.choose({name: (change.number, change.until) for name, change in wanted.items()})
        self._level_changed()

    def _restore(self, name: str) -> None:
        if name and name in self._before:
            logging.getLogger(name).setLevel(self._before.pop(name))

    def _tell_ordered(self, wanted: Mapping[str, Change], now: float) -> None:
        for name, change in wanted.items():
            if self._obeyed.get(name) == change or now - change.at > _NEWS:
                continue
            until = datetime.fromtimestamp(change.until, UTC)
            message = f"{change.by} set {change.what} to {change.level} until {until:%Y-%m-%d %H:%M:%S} UTC."
            fields = {"by": change.by, "logger": name, "level": change.level, "until": until.isoformat()}
            self._log.announce(Event(ORDERED, message, "warning", fields))

    def _tell_ended(self, gone: set[str]) -> None:
        for name in sorted(gone):
            what = f"logger {name}" if name else "all loggers"
            message = f"The level of {what} is as configured again."
            self._log.announce(Event(ENDED, message, "warning", {"logger": name}))
