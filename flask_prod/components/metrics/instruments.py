"""One application's metrics: the registry they live in, and their series, bounded in number."""

from __future__ import annotations

import sys
import time
from bisect import bisect_left
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Summary
from prometheus_client.metrics import MetricWrapperBase
from prometheus_client.utils import floatToGoString

from .cli import APPLICATION, Row
from .store import FileStore, FileValue

OVERFLOW = "__overflow__"
"""The label value of everything beyond METRICS_MAX_SERIES."""

_LOOK_AGAIN = 1.0
"""Seconds after which a process looks again how many series the others have made."""


class _Stored(MetricWrapperBase):
    """A metric whose values lie in a FileStore; children inherit it through `_kwargs`, the library's own way."""

    def __init__(self, *args: Any, store: FileStore, **options: Any) -> None:
        self._store = store
        super().__init__(*args, **options)
        self._kwargs["store"] = store

    def _keep(self, suffix: str, more: Sequence[tuple[str, str]] = (), kind: str = "") -> FileValue:
        labels = [*zip(self._labelnames, self._labelvalues, strict=False), *more]
        names = (self._name, self._name + suffix)
        self._created = time.time()
        return self._store.value(kind or str(self._type), names, labels, self._documentation)


class StoredCounter(_Stored, Counter):
    """A counter over several processes."""

    def _metric_init(self) -> None:
        self._value = self._keep("_total")


class StoredGauge(_Stored, Gauge):
    """A gauge over several processes; its mode says how their values become one."""

    def _metric_init(self) -> None:
        self._value = self._keep("", kind=f"gauge_{self._multiprocess_mode}")


class StoredSummary(_Stored, Summary):
    """A summary over several processes."""

    def _metric_init(self) -> None:
        self._count = self._keep("_count")
        self._sum = self._keep("_sum")


class StoredHistogram(_Stored, Histogram):
    """A histogram over several processes."""

    def _metric_init(self) -> None:
        self._sum = self._keep("_sum")
        bounds = (floatToGoString(bound) for bound in self._upper_bounds)
        self._buckets = [self._keep("_bucket", [("le", bound)]) for bound in bounds]


_STORED: Mapping[type[MetricWrapperBase], type[_Stored]] = {
    Counter: StoredCounter,
    Gauge: StoredGauge,
    Summary: StoredSummary,
    Histogram: StoredHistogram,
}


class Series:
    """A metric and its children by label values; beyond the limit all share one child."""

    __slots__ = (
        "_children",
        "_instruments",
        "_known",
        "_looked",
        "_overflow",
        "kind",
        "metric",
        "names",
        "origin",
    )

    def __init__(
        self, kind: type[MetricWrapperBase], metric: Any, names: Sequence[str], instruments: Instruments
    ) -> None:
        self.kind = kind
        self.metric = metric
        self.names = tuple(names)
        self.origin = APPLICATION
        self._instruments = instruments
        self._children: dict[tuple[str, ...], Any] = {}
        self._known: set[frozenset[tuple[str, str]]] = set()
        self._looked = 0.0
        self._overflow: Any = None

    def child(self, values: tuple[str, ...]) -> Any:
        """Return the child for *values*, the metric itself if it has no labels."""
        child = self._children.get(values)
        return child if child is not None else self._add(values)

    def _add(self, values: tuple[str, ...]) -> Any:
        if not self.names:
            return self.metric
        if not self._has_room(frozenset(zip(self.names, values, strict=False))):
            return self._overflowing()
        child = self.metric.labels(*values)
        self._children[values] = child
        return child

    def _has_room(self, labels: frozenset[tuple[str, str]]) -> bool:
        """Tell whether there may be a series more, counting those of the other processes and of predecessors."""
        limit = self._instruments.limit
        if len(self._children) >= limit:
            return False
        now = time.monotonic()
        if self._instruments.store.shared and now - self._looked > _LOOK_AGAIN:
            self._looked = now
            self._known = self._instruments.store.series(self.metric._name)
        if labels in self._known:
            return True
        if max(len(self._known), len(self._children)) >= limit:
            return False
        self._known.add(labels)
        return True

    def _overflowing(self) -> Any:
        if self._overflow is None:
            self._overflow = self.metric.labels(*(OVERFLOW for _ in self.names))
            self._instruments.tell_overflow(self.metric._name)
        return self._overflow


class Instruments:
    """The metrics of one application; where there is a directory, their values add up over its processes.

    `tell_overflow` is called once for each metric that reaches the limit.
    """

    def __init__(self, store: FileStore, limit: int, tell_overflow: Callable[[str], None]) -> None:
        self.registry = CollectorRegistry(auto_describe=True)
        self.store = store
        self.limit = limit
        self.tell_overflow = tell_overflow
        self._series: dict[str, Series] = {}

    def series(
        self,
        kind: type[MetricWrapperBase],
        name: str,
        documentation: str,
        labels: Sequence[str] = (),
        options: Mapping[str, Any] | None = None,
    ) -> Series:
        """Return the metric *name*, made on first use; ValueError when it exists as something else."""
        found = self._series.get(name)
        if found is None:
            made = self._make(kind, name, documentation, labels, options)
            found = self._series[name] = Series(kind, made, labels, self)
        if found.kind is not kind or found.names != tuple(labels):
            raise ValueError(f"There is another metric called {name}: a {found.kind.__name__} of {found.names}.")
        return found

    def own(self) -> None:
        """Call all that is there the metrics of this room."""
        for series in self._series.values():
            series.origin = "metrics"

    def rows(self) -> Iterator[Row]:
        """Yield what there is to know of every metric."""
        for name, series in self._series.items():
            kind, text = series.kind.__name__.lower(), series.metric._documentation
            yield Row(series.origin, name, kind, series.names, text.removesuffix("."))

    def total(self, name: str) -> float:
        """Return the sum over all series of the counter *name*, which goes without `_total`."""
        if self.store.shared:
            return self.store.total(name)
        found = self._series.get(f"{name}_total") or self._series.get(name)
        metrics = found.metric.collect() if found is not None and found.kind is Counter else ()
        return float(sum(s.value for metric in metrics for s in metric.samples if s.name.endswith("_total")))

    def _make(
        self,
        kind: type[MetricWrapperBase],
        name: str,
        documentation: str,
        labels: Sequence[str],
        options: Mapping[str, Any] | None,
    ) -> MetricWrapperBase:
        settings = {"labelnames": tuple(labels), "registry": self.registry, **(options or {})}
        return _STORED[kind](name, documentation, store=self.store, **settings)


class CounterSeries:
    """The counter that another room gets from its meter."""

    __slots__ = ("_series",)

    def __init__(self, series: Series) -> None:
        self._series = series

    def inc(self, *labels: str) -> None:
        """Add one to the series with these label values."""
        self._series.child(labels)._value.inc(1.0)

    def counting(self, *labels: str) -> Callable[[], None]:
        """Return what adds one to the series with these label values."""
        return partial(self._series.child(labels)._value.inc, 1.0)

    def show(self, *labels: str) -> None:
        """Make the series with these label values, unless it is there."""
        self._series.child(labels)


class GaugeSeries:
    """The gauge that another room gets from its meter."""

    __slots__ = ("_series",)

    def __init__(self, series: Series) -> None:
        self._series = series

    def set(self, value: float, *labels: str) -> None:
        """Set the series with these label values."""
        self._series.child(labels).set(value)


class HistogramSeries:
    """The histogram that another room gets from its meter."""

    __slots__ = ("_series",)

    def __init__(self, series: Series) -> None:
        self._series = series

    def observe(self, value: float, *labels: str) -> None:
        """Count *value* in the series with these label values."""
        child = self._series.child(labels)
        child._sum.inc(value)
        child._buckets[bisect_left(child._upper_bounds, value)].inc(1.0)


class InstrumentMeter:
    """The meter of the other rooms; several processes report the highest value of a live one."""

    def __init__(self, instruments: Instruments) -> None:
        self._instruments = instruments

    def _series(
        self,
        kind: type[MetricWrapperBase],
        name: str,
        documentation: str,
        labels: Sequence[str],
        options: Mapping[str, Any] | None = None,
    ) -> Series:
        series = self._instruments.series(kind, name, documentation, labels, options)
        series.origin = _room(sys._getframe(2).f_globals["__name__"])
        return series

    def counter(self, name: str, documentation: str, labels: Sequence[str] = ()) -> CounterSeries:
        """Return the counter *name*, made on first use; without labels it shows as zero at once."""
        return CounterSeries(self._series(Counter, name, documentation, labels))

    def gauge(self, name: str, documentation: str, labels: Sequence[str] = ()) -> GaugeSeries:
        """Return the gauge *name*, made on first use."""
        options = {"multiprocess_mode": "livemax"}
        return GaugeSeries(self._series(Gauge, name, documentation, labels, options))

    def histogram(
        self, name: str, documentation: str, labels: Sequence[str] = (), buckets: Sequence[float] = ()
    ) -> HistogramSeries:
        """Return the histogram *name*, made on first use, with these upper bounds or the library's own."""
        options = {"buckets": tuple(buckets)} if buckets else {}
        return HistogramSeries(self._series(Histogram, name, documentation, labels, options))

    def total(self, name: str) -> float:
        """Return the sum of all series of the counter *name* over all processes; 0 when there is none."""
        return self._instruments.total(name.removesuffix("_total"))


def _room(module: str) -> str:
    """Return the name of the room that *module* belongs to; a third party's first name otherwise."""
    words = module.split(".")
    return words[2] if words[:2] == ["flask_prod", "components"] else words[0]
