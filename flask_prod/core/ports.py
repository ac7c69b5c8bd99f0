"""How rooms use one another without imports: protocols, and what stands in when a room is left out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol, TypeVar

ResultT = TypeVar("ResultT")


class RedisPort(Protocol):
    """What the redis room gives to others; `kit.handle("redis")` is one, or None when it is left out."""

    @property
    def configured(self) -> bool:
        """True when there is a REDIS_URL."""

    @property
    def degraded(self) -> bool:
        """True while the circuit breaker keeps requests away from the server."""

    def key(self, *parts: str) -> str:
        """Return a key in this service's namespace: `shop:production:limit:...`."""

    def client(self, purpose: str = "request") -> Any:
        """Return the `redis.Redis` for a purpose: request (short time limits), jobs or blocking."""

    def attempt(self, call: Callable[[Any], ResultT]) -> ResultT:
        """Run *call* with the request client; Unavailable when the breaker is open or the server fails."""


class CounterPort(Protocol):
    """A number that only grows."""

    def inc(self, *labels: str) -> None:
        """Add one to the series with these label values."""


class GaugePort(Protocol):
    """A number that goes up and down."""

    def set(self, value: float, *labels: str) -> None:
        """Set the series with these label values."""


class Meter(Protocol):
    """Where rooms get their own metrics from: `kit.meter`; it never raises on the request path."""

    def counter(self, name: str, documentation: str, labels: Sequence[str] = ()) -> CounterPort:
        """Return the counter *name*, made on first use."""

    def gauge(self, name: str, documentation: str, labels: Sequence[str] = ()) -> GaugePort:
        """Return the gauge *name*; over several processes the highest value of a live one counts."""


class NoMeter:
    """The meter of a kit without the metrics room: takes everything, keeps nothing."""

    def counter(self, name: str, documentation: str, labels: Sequence[str] = ()) -> CounterPort:
        """Return a counter that does not count."""
        return _Nothing()

    def gauge(self, name: str, documentation: str, labels: Sequence[str] = ()) -> GaugePort:
        """Return a gauge that does not measure."""
        return _Nothing()


class _Nothing:
    def inc(self, *labels: str) -> None:
        return

    def set(self, value: float, *labels: str) -> None:
        return
