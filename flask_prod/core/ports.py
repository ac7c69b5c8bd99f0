"""How rooms use one another without imports: protocols, and what stands in when a room is left out."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
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

    @property
    def watchable(self) -> bool:
        """True when `watch` works: everywhere but on a cluster."""

    def key(self, *parts: str) -> str:
        """Return a key in this service's namespace: `shop:production:limit:...`."""

    def client(self, purpose: str = "request") -> Any:
        """Return the `redis.Redis` for a purpose: request (short time limits), jobs or blocking."""

    def attempt(self, call: Callable[[Any], ResultT], name: str = "call") -> ResultT:
        """Run *call* with the request client; Unavailable when the breaker is open or the server fails.

        *name* is that of the command, in metrics and traces.
        """

    def ask(self, *command: str | bytes | int | float) -> Any:
        """Send one command in one round trip; Unavailable on failure, also when the answer is an error."""

    def pipeline(self, commands: Iterable[Iterable[str | bytes | int | float]]) -> list[Any]:
        """Send several commands in one round trip; an error answer to one of them is an exception in the list."""

    def lock(self, name: str, seconds: float) -> str | None:
        """Take a lock for so long; return the owner's token, or None when somebody has it."""

    def unlock(self, name: str, token: str) -> bool:
        """Give a lock back; False when it had ended."""

    def prolong(self, name: str, token: str, seconds: float) -> bool:
        """Keep a lock for so long from now; False when it had ended."""

    def listen(
        self, channel: str, on_message: Callable[[bytes | None], None], on_lost: Callable[[], None]
    ) -> ListenerPort:
        """Hear what is published to a channel; *on_lost* is called whenever messages may have been missed."""

    def watch(
        self, prefix: str, on_change: Callable[[bytes | None], None], on_lost: Callable[[], None]
    ) -> ListenerPort:
        """Hear each key under *prefix* that changes, None for all of them; otherwise as `listen`.

        NotInstalled where it does not work: see `watchable`.
        """


class ListenerPort(Protocol):
    """A thread that hears messages; started after the fork, by a component's `start`."""

    @property
    def live(self) -> bool:
        """True while messages come: the server was heard less than 2 s ago."""

    def stop(self) -> None:
        """End the thread; calls nothing any more."""


class CounterPort(Protocol):
    """A number that only grows."""

    def inc(self, *labels: str) -> None:
        """Add one to the series with these label values."""

    def counting(self, *labels: str) -> Callable[[], None]:
        """Return what adds one to this series, for who does so on every request."""

    def show(self, *labels: str) -> None:
        """Show this series as zero before it is first counted: Prometheus takes no notice of a first one."""


class GaugePort(Protocol):
    """A number that goes up and down."""

    def set(self, value: float, *labels: str) -> None:
        """Set the series with these label values."""


class HistogramPort(Protocol):
    """A distribution of values, counted in buckets."""

    def observe(self, value: float, *labels: str) -> None:
        """Count *value* in the series with these label values."""


class Meter(Protocol):
    """Where rooms get their own metrics from: `kit.meter`; it never raises on the request path."""

    def counter(self, name: str, documentation: str, labels: Sequence[str] = ()) -> CounterPort:
        """Return the counter *name*, made on first use."""

    def gauge(self, name: str, documentation: str, labels: Sequence[str] = ()) -> GaugePort:
        """Return the gauge *name*; over several processes the highest value of a live one counts."""

    def histogram(
        self, name: str, documentation: str, labels: Sequence[str] = (), buckets: Sequence[float] = ()
    ) -> HistogramPort:
        """Return the histogram *name* with these upper bounds, the library's own if there are none."""

    def total(self, name: str) -> float:
        """Return the sum of all series of the counter *name*, over all processes of this service on this host."""


class NoMeter:
    """The meter of a kit without the metrics room: takes everything, keeps nothing."""

    def counter(self, name: str, documentation: str, labels: Sequence[str] = ()) -> CounterPort:
        """Return a counter that does not count."""
        return _Nothing()

    def gauge(self, name: str, documentation: str, labels: Sequence[str] = ()) -> GaugePort:
        """Return a gauge that does not measure."""
        return _Nothing()

    def histogram(
        self, name: str, documentation: str, labels: Sequence[str] = (), buckets: Sequence[float] = ()
    ) -> HistogramPort:
        """Return a histogram that counts nothing."""
        return _Nothing()

    def total(self, name: str) -> float:
        """Return 0: nothing was counted."""
        return 0.0


class _Nothing:
    def inc(self, *labels: str) -> None:
        return

    def counting(self, *labels: str) -> Callable[[], None]:
        return self.inc

    def show(self, *labels: str) -> None:
        return

    def set(self, value: float, *labels: str) -> None:
        return

    def observe(self, value: float, *labels: str) -> None:
        return


class SpanPort(Protocol):
    """A piece of work in a trace."""

    def set(self, name: str, value: str | int | float | bool) -> None:
        """Set an attribute, under a name of OpenTelemetry's semantic conventions where there is one."""

    def fail(self, error: BaseException) -> None:
        """Say that the work failed; an exception that leaves the span's block says so by itself."""


class Tracer(Protocol):
    """Where rooms tell what a request spends its time on: `kit.tracer`; it never raises.

    Outside of a sampled request `span` costs a look at the record and nothing else: build its attributes once.
    """

    def span(
        self, name: str, kind: str = "internal", attributes: Mapping[str, Any] | None = None
    ) -> AbstractContextManager[SpanPort]:
        """Measure a block as a child of what is being measured now; *kind* is internal, client or producer."""

    def carrier(self) -> dict[str, str]:
        """Return the headers by which other services and jobs go on with this trace (W3C traceparent)."""

    def continued(
        self, name: str, carrier: Mapping[str, str], attributes: Mapping[str, Any] | None = None
    ) -> AbstractContextManager[SpanPort]:
        """Measure a block that goes on with the trace of *carrier*: a job in its worker."""


class NoTracer:
    """The tracer of a kit without traces: measures nothing."""

    def span(
        self, name: str, kind: str = "internal", attributes: Mapping[str, Any] | None = None
    ) -> AbstractContextManager[SpanPort]:
        """Run the block."""
        return NO_SPAN

    def carrier(self) -> dict[str, str]:
        """Return no headers."""
        return {}

    def continued(
        self, name: str, carrier: Mapping[str, str], attributes: Mapping[str, Any] | None = None
    ) -> AbstractContextManager[SpanPort]:
        """Run the block."""
        return NO_SPAN


class _NoSpan:
    def set(self, name: str, value: str | int | float | bool) -> None:
        return

    def fail(self, error: BaseException) -> None:
        return


NO_SPAN: AbstractContextManager[SpanPort] = nullcontext(_NoSpan())
"""What stands for a span where nothing is measured; holds no state, so that all may share it."""
