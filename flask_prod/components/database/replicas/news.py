"""Tells of replicas that leave the rotation and come back, and how far behind each is."""

from __future__ import annotations

from collections.abc import Sequence
from time import monotonic

from flask_prod.core.component import Event, Installed

from .engine import FRESH, Replica

_SILENCE = 60.0
"""Seconds between two events of one kind about one replica: one that flaps must not flood the log."""


class News:
    """What is shown and told of the replicas of one application."""

    def __init__(self, replicas: Sequence[Replica], kit: Installed) -> None:
        self._replicas = replicas
        self._emit = kit.emit
        self._lag = kit.meter.gauge(
            "flask_prod_database_replica_lag_seconds", "How far each replica is behind the primary.", ("server",)
        )
        self._in = kit.meter.gauge(
            "flask_prod_database_replica_in_rotation", "1 while reads go to this replica.", ("server",)
        )
        self.forget()

    def forget(self) -> None:
        """Begin anew, in a process."""
        self._began = monotonic()
        self._state: dict[str, bool] = {}
        self._left_at: dict[str, float] = {}
        self._told: set[str] = set()

    def tell(self) -> None:
        """Show the state of each replica, and tell of what has changed."""
        now = monotonic()
        for one in self._replicas:
            is_in = one.is_in(now)
            self._in.set(float(is_in), one.name)
            if one.lag is not None:
                self._lag.set(one.lag, one.name)
            if not one.believed_until and now - self._began < FRESH:
                continue  # not looked at yet
            if self._state.get(one.name, True) != is_in:
                self._changed(one, is_in, now)
            self._state[one.name] = is_in

    def _changed(self, one: Replica, is_in: bool, now: float) -> None:
        if is_in:
            if one.name in self._told:
                self._told.discard(one.name)
                seconds = round(now - self._left_at[one.name], 1)
                message = f"{one.name} takes reads again after {seconds} s."
                self._emit(
                    Event(
                        "prod.database.replica_returned", message, "info", {"server": one.name, "seconds": seconds}
                    )
                )
            return
        if now - self._left_at.get(one.name, -_SILENCE) < _SILENCE:
            return
        self._left_at[one.name] = now
        self._told.add(one.name)
        why = one.why_out(now)
        message = f"{one.name} takes no reads: {why}. They go to the others, or to the primary."
        self._emit(Event("prod.database.replica_left", message, "warning", {"server": one.name, "why": why}))
