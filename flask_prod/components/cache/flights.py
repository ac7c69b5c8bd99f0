"""One computation per key and process: who comes while it runs waits for its result."""

from __future__ import annotations

import threading
from collections.abc import Callable
from time import monotonic
from typing import Any

from .absent import MISSING

_REFUSED_FOR = 2.0
"""Seconds in which nobody waits for a key whose result could not be stored: each needs one of its own."""

_MOST_REFUSED = 1000


class Flight:
    """A computation on its way; `kept` is what was stored once it has landed, None if nothing was."""

    __slots__ = ("kept", "landed", "owner")

    def __init__(self) -> None:
        self.owner = threading.get_ident()
        self.landed = threading.Event()
        self.kept: Any = None


class Flights:
    """The computations of one application in this process."""

    def __init__(self, wait: float) -> None:
        self._wait = wait
        self.reset()

    def reset(self) -> None:
        """Begin anew: in a forked child, the threads that compute are not there."""
        self._lock = threading.Lock()
        self._flights: dict[str, Flight] = {}
        self._refused: dict[str, float] = {}

    def run(
        self,
        key: str,
        compute: Callable[[], tuple[Any, Any]],
        read: Callable[[Any], Any],
        alone: Callable[[], tuple[Any, Any]] | None = None,
    ) -> tuple[Any, bool]:
        """Return the result for *key*, and whether another thread's computation gave it.

        *compute* returns its result and what was stored of it, None if it may not be shared; *read* makes a result
        of that, for each who waited one of his own, or says MISSING. *alone* computes for who cannot share.
        """
        flight, leading = self._join(key)
        if flight is None:
            return (alone or compute)()[0], False
        if not leading:
            if flight.landed.wait(self._wait) and flight.kept is not None:
                found = read(flight.kept)
                if found is not MISSING:
                    return found, True
            return (alone or compute)()[0], False
        try:
            result, flight.kept = compute()
            if flight.kept is None:
                self._refuse(key)
            return result, False
        finally:
            self._land(key, flight)

    def forget(self, key: str) -> None:
        """Let nobody else wait for *key*, under whatever ticket: what is being computed is out of date."""
        if self._flights:
            with self._lock:
                for name in [name for name in self._flights if name.partition("\0")[0] == key]:
                    del self._flights[name]

    def only(self, key: str, compute: Callable[[], tuple[Any, Any]]) -> Any:
        """Compute unless somebody does so already; then say MISSING at once."""
        flight, leading = self._join(key)
        if flight is None or not leading:
            return MISSING
        try:
            result, flight.kept = compute()
            return result
        finally:
            self._land(key, flight)

    def _join(self, key: str) -> tuple[Flight | None, bool]:
        with self._lock:
            flight = self._flights.get(key)
            if flight is not None:
                # A function that calls itself with the same arguments must not wait for itself.
                return (None, False) if flight.owner == threading.get_ident() else (flight, False)
            if self._refused and self._refused.get(key, 0.0) > monotonic():
                return None, False
            flight = self._flights[key] = Flight()
            return flight, True

    def _land(self, key: str, flight: Flight) -> None:
        with self._lock:
            if self._flights.get(key) is flight:
                del self._flights[key]
        flight.landed.set()

    def _refuse(self, key: str) -> None:
        with self._lock:
            if len(self._refused) >= _MOST_REFUSED:
                self._refused.clear()
            self._refused[key] = monotonic() + _REFUSED_FOR
