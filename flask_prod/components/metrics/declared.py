"""Metrics that are declared once and live in whichever application uses them.

What is declared is bound to no application, not even to the one in whose context that is done: modules are
imported whenever somebody first needs them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, cast

from flask import current_app
from prometheus_client import Counter, Gauge, Histogram, Summary
from prometheus_client.context_managers import ExceptionCounter, InprogressTracker, Timer
from prometheus_client.metrics import MetricWrapperBase

from flask_prod.core.errors import NotInstalled
from flask_prod.core.kit import EXTENSION, current_state

if TYPE_CHECKING:
    from .face import AppMetrics


class _Promise:
    """What a metric and a series of it have in common: methods that find the real one when they are called."""

    def _real(self) -> Any:
        """Return what the current application has."""
        raise NotImplementedError

    def _kind(self) -> type[MetricWrapperBase]:
        raise NotImplementedError

    def time(self) -> Timer:
        """Time a block or a function in seconds."""
        return Timer(cast(Any, self), "set" if self._kind() is Gauge else "observe")

    def track_inprogress(self) -> InprogressTracker:
        """Count a block or a function while it runs."""
        return InprogressTracker(cast(Any, self))

    def count_exceptions(self, exception: Any = Exception) -> ExceptionCounter:
        """Count what a block or a function raises."""
        return ExceptionCounter(cast(Any, self), exception)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        return getattr(self._real(), name)


class Declared(_Promise):
    """A metric that lives in whichever application uses it; has the methods of the library's own."""

    is_fact = False
    """True for one that says something of an application: said once, other values later are of another one."""

    def __init__(
        self,
        kind: type[MetricWrapperBase],
        name: str,
        documentation: str,
        labels: Sequence[str],
        options: Mapping[str, Any],
    ) -> None:
        self.kind = kind
        self.name = name
        self.documentation = documentation
        self.label_names = tuple(labels)
        self.options = options
        self.initial: dict[tuple[str, ...], float | None] = {}
        """Label values of series that every application shows from the start, and what they are then."""

    def labels(self, *values: object, **named: object) -> Any:
        """Return the series with these label values, of whichever application uses it."""
        key = self._key(values, named)
        metrics = perhaps_here()
        if metrics is not None:
            metrics.series(self).child(key)
        else:
            self.initial.setdefault(key)
        return DeclaredChild(self, key)

    def show(self, values: Sequence[object]) -> None:
        """Let every application show the series of these label values as zero before it is first used."""
        self.initial.setdefault(tuple(map(_text, values)))

    def _key(self, values: Sequence[object], named: Mapping[str, object]) -> tuple[str, ...]:
        given = tuple(named) if named else values
        if (values and named) or len(given) != len(self.label_names):
            raise ValueError(f"{self.name} has the labels {self.label_names}; {given} are not values for these.")
        if named and set(named) != set(self.label_names):
            raise ValueError(f"{self.name} has the labels {self.label_names}, not {given}.")
        return tuple(_text(value) for value in ([named[name] for name in self.label_names] if named else values))

    def _real(self) -> Any:
        return here().series(self).metric

    def _kind(self) -> type[MetricWrapperBase]:
        return self.kind


def _text(value: object) -> str:
    """Return a label's value as text that UTF-8 has: half a surrogate pair would end every scrape from then on."""
    text = str(value)
    return text if text.isascii() else text.encode("utf-8", "replace").decode()


class DeclaredChild(_Promise):
    """One series of a declared metric."""

    def __init__(self, declared: Declared, values: tuple[str, ...]) -> None:
        self._declared = declared
        self._values = values

    def _real(self) -> Any:
        return here().series(self._declared).child(self._values)

    def _kind(self) -> type[MetricWrapperBase]:
        return self._declared.kind


class Business:
    """Plain metrics of the application: declared once at module level, used in requests and jobs.

    `orders = prod.metrics.business.counter("shop_orders_total", "Orders placed", ["channel"])`, then
    `orders.labels("web").inc()`.
    """

    def __init__(self, declare: Callable[..., Declared]) -> None:
        self._declare = declare

    def counter(self, name: str, documentation: str, labels: Sequence[str] = ()) -> Counter:
        """Declare a number that only grows."""
        return cast(Counter, self._declare(Counter, name, documentation, labelnames=labels))

    def gauge(
        self, name: str, documentation: str, labels: Sequence[str] = (), *, mode: str = "mostrecent"
    ) -> Gauge:
        """Declare a level: over several processes the value set last counts.

        For one that goes up and down by `inc` and `dec`, *mode* is "livesum" (of living processes) or "sum".
        """
        return cast(Gauge, self._declare(Gauge, name, documentation, labelnames=labels, multiprocess_mode=mode))

    def histogram(
        self, name: str, documentation: str, labels: Sequence[str] = (), *, buckets: Sequence[float] | None = None
    ) -> Histogram:
        """Declare a distribution, counted in *buckets* by their upper bounds."""
        options = {"buckets": tuple(buckets)} if buckets else {}
        return cast(Histogram, self._declare(Histogram, name, documentation, labelnames=labels, **options))

    def summary(self, name: str, documentation: str, labels: Sequence[str] = ()) -> Summary:
        """Declare a sum and a count, enough for an average."""
        return cast(Summary, self._declare(Summary, name, documentation, labelnames=labels))


def here() -> AppMetrics:
    """Return the metrics of the current application; NotInstalled outside of one, or if it has none."""
    contribution = current_state().contributions.get("metrics")
    if contribution is None:
        raise NotInstalled("metrics is left out of the current application's kit.")
    metrics: AppMetrics = contribution.handle
    return metrics


def perhaps_here() -> AppMetrics | None:
    """Return the metrics of the current application, None where there is none or they are left out."""
    if not current_app or EXTENSION not in current_app.extensions:
        return None
    contribution = current_state().contributions.get("metrics")
    return None if contribution is None else contribution.handle
