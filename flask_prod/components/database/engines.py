"""All engines of one application: each is equipped alike, left alone after a fork, and closed at the end."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import Any, TypeAlias
from weakref import WeakKeyDictionary

from sqlalchemy import URL, Engine

from .engine import build_engine
from .foreign import take_over
from .settings import DatabaseSettings

PRIMARY = "primary"
TENANT = "tenant"
OWN = "own"

Equip: TypeAlias = Callable[[Engine, str], None]
"""Gives a new engine of this role something: metrics of its pool, measurement of its queries."""

Find: TypeAlias = Callable[[], dict[str | None, Engine]]


class Engines:
    """Opens engines by the settings of the room, and adopts those that somebody else made.

    A role is a word for metrics and pages: `primary`, `replica-1`, `tenant`. Each of *equip* is called once for
    each engine. *find* returns the engines of Flask-SQLAlchemy and its Lite, which may be made at any time.
    """

    def __init__(
        self, settings: DatabaseSettings, name: str, equip: Sequence[Equip] = (), find: Find = dict
    ) -> None:
        self._settings = settings
        self._find = find
        self._name = name
        self._equip = tuple(equip)
        self._lock = threading.Lock()
        # Weak: whoever drops an engine has closed it, and as long as somebody still uses it a fork must know it.
        self._held: WeakKeyDictionary[Engine, str] = WeakKeyDictionary()
        self._inherited: list[object] = []

    def open(self, url: URL, role: str, **options: Any) -> Engine:
        """Return a new engine that has not connected yet; *options* of `create_engine` win over the settings."""
        return self._hold(build_engine(url, self._settings, self._name, **options), role)

    def adopt(self, engine: Engine, role: str = OWN) -> Engine:
        """Take care of an engine that somebody else made; does nothing for one that is known."""
        with self._lock:
            known = engine in self._held
        if not known:
            take_over(engine, self._settings, self._name)
            self._hold(engine, role)
        return engine

    def settle(self) -> None:
        """Adopt what is found by now."""
        for engine in self._find().values():
            self.adopt(engine)

    def forget(self, engine: Engine) -> None:
        """Close an engine's idle connections and know it no more; those in use are closed when they come back."""
        with self._lock:
            self._held.pop(engine, None)
        engine.dispose()

    def held(self) -> list[tuple[str, Engine]]:
        """Return role and engine of all."""
        with self._lock:
            return [(role, engine) for engine, role in self._held.items()]

    def after_fork(self) -> None:
        """Leave the parent's connections alone: two processes on one socket read each other's rows."""
        self._lock = threading.Lock()
        for engine in {*(engine for _, engine in self.held()), *self._find().values()}:
            # Kept for the life of the child: what Python collects is closed, and closing tells the server goodbye.
            self._inherited.append(engine.pool)
            engine.dispose(close=False)

    def close(self) -> None:
        """Close every idle connection."""
        for engine in {*(engine for _, engine in self.held()), *self._find().values()}:
            engine.dispose()

    def _hold(self, engine: Engine, role: str) -> Engine:
        for equip in self._equip:
            equip(engine, role)
        with self._lock:
            self._held[engine] = role
        return engine
