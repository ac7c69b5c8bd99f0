"""What the application counts itself by `prod.metrics`: panels made of the name, kind, labels and help of each."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence

from ..own import Own
from ..plan import Plan
from .panel import STAT, Board, Lens, Panel, Query, Row, lens_of, quantile, rate, words

_UNITS = {
    "seconds": "s",
    "bytes": "bytes",
    "ratio": "percentunit",
    "percent": "percent",
    "celsius": "celsius",
    "meters": "lengthm",
    "grams": "massg",
    "joules": "joule",
    "watts": "watt",
}
"""The last word of a name, as Prometheus asks for -> Grafana's unit."""

_MONEY = {
    "euros": "currencyEUR",
    "eur": "currencyEUR",
    "dollars": "currencyUSD",
    "usd": "currencyUSD",
    "pounds": "currencyGBP",
    "gbp": "currencyGBP",
    "yen": "currencyJPY",
    "jpy": "currencyJPY",
    "francs": "currencyCHF",
    "chf": "currencyCHF",
}
_EARNED = frozenset(
    {"order", "orders", "sale", "sales", "revenue", "purchase", "purchases", "invoice", "invoices"}
)
"""Words in the name of an amount of money which say that the sum of it is revenue."""


def board(plan: Plan) -> Board | None:
    """Return the dashboard of the application's own metrics; None where it has none."""
    if not plan.own_metrics:
        return None
    lens = lens_of(plan)
    rows = [Row("In the time shown", tuple(panel for one in plan.own_metrics for panel in _totals(one, lens)))]
    rows += [Row(label, tuple(_KINDS[one.kind](one, label, lens))) for one, label in _labelled(plan)]
    return Board(
        name="business",
        title="Business",
        description="What the application counts for its owner, made of the metrics that it declares.",
        span="now-24h",
        rows=tuple(row for row in rows if row.panels),
    )


def _labelled(plan: Plan) -> Iterator[tuple[Own, str]]:
    """Yield each metric with its name as people write; its whole name where two would be called alike."""
    labels = [_label(plan, one) for one in plan.own_metrics]
    for one, label in zip(plan.own_metrics, labels, strict=True):
        yield one, label if labels.count(label) == 1 else words(one.name)


def _label(plan: Plan, metric: Own) -> str:
    """Return the name as people write, without the service's own in front, `total`, and the unit."""
    parts = metric.name.removesuffix("_total").split("_")
    if len(parts) > 1 and parts[-1] in {**_UNITS, **_MONEY}:
        parts.pop()
    return words("_".join(parts[1:] if len(parts) > 1 and parts[0] in _names(plan) else parts))


def _names(plan: Plan) -> Sequence[str]:
    return plan.name.split("-")


def _unit(metric: Own) -> str:
    last = metric.name.removesuffix("_total").rpartition("_")[2]
    return {**_UNITS, **_MONEY}.get(last, "short")


def _earned(metric: Own) -> bool:
    """Tell whether the sum of a metric is what people call revenue."""
    return _unit(metric) in _MONEY.values() and bool(_EARNED.intersection(metric.name.split("_")))


def _in_range(series: str) -> Query:
    return Query(f"sum (increase({series}[$__range]))", now=True)


def _totals(metric: Own, lens: Lens) -> Iterator[Panel]:
    """Yield what a counter or a distribution adds up to; levels have nothing to add."""
    label, help_ = words(metric.name.removesuffix("_total")), metric.documentation
    series = {"counter": metric.total, "histogram": f"{metric.name}_sum", "summary": f"{metric.name}_sum"}
    if metric.kind not in series:
        return
    yield Panel(
        title=f"Revenue ({label})" if _earned(metric) else f"{label}, sum",
        description=f"{help_}. Added up over the time shown.",
        unit=_unit(metric),
        kind=STAT,
        width=6,
        height=5,
        queries=(_in_range(f"{series[metric.kind]}{{{lens.all}}}"),),
    )


def _counter(metric: Own, label: str, lens: Lens) -> Iterator[Panel]:
    by, legend = _by(metric)
    yield Panel(
        title=f"{label} per minute",
        description=f"{metric.documentation}.",
        unit=_unit(metric),
        width=12,
        stacked=True,
        queries=(Query(f"60 * {rate(metric.total, lens.all, *by)}", legend or label),),
    )
    yield Panel(
        title=f"{label} per hour",
        description=f"{metric.documentation}. The last hour, at each moment.",
        unit=_unit(metric),
        width=12,
        stacked=True,
        queries=(Query(_hourly(metric.total, lens, by), legend or label),),
    )


def _distribution(metric: Own, label: str, lens: Lens) -> Iterator[Panel]:
    by, legend = _by(metric)
    total, count = (f"{metric.name}_{part}" for part in ("sum", "count"))
    yield Panel(
        title=f"{'Revenue' if _earned(metric) else 'Sum'} per hour ({label.lower()})",
        description=f"{metric.documentation}. Added up over the last hour, at each moment.",
        unit=_unit(metric),
        stacked=True,
        queries=(Query(_hourly(total, lens, by), legend or label),),
    )
    yield Panel(
        title=f"{label} on average",
        description=f"{metric.documentation}. The mean of the last hour.",
        unit=_unit(metric),
        queries=(Query(f"{_hourly(total, lens, by)} / {_hourly(count, lens, by)}", legend or label),),
    )
    if metric.kind == "histogram":
        yield Panel(
            title=f"{label}: spread",
            description=f"{metric.documentation}. What half of them, and nine in ten, stay below.",
            unit=_unit(metric),
            queries=tuple(
                Query(quantile(share, metric.name, lens.all), name)
                for name, share in (("50 %", 0.5), ("90 %", 0.9))
            ),
        )


def _level(metric: Own, label: str, lens: Lens) -> Iterator[Panel]:
    """Yield a level: every instance tells the one it has seen last, so the latest change may be on any of them."""
    by, legend = _by(metric)
    labels = f" by ({', '.join(by)})" if by else ""
    yield Panel(
        title=f"{label} by the highest" if by else label,
        description=f"{metric.documentation}. The twenty highest; where instances differ, the higher one.",
        unit=_unit(metric),
        width=12,
        queries=(Query(f"topk(20, max{labels} ({metric.name}{{{lens.all}}}))", legend or label),),
    )
    yield Panel(
        title=f"{label} by the lowest" if by else f"{label}, lowest instance",
        description=f"{metric.documentation}. The twenty lowest; where instances differ, the lower one.",
        unit=_unit(metric),
        width=12,
        queries=(Query(f"bottomk(20, min{labels} ({metric.name}{{{lens.all}}}))", legend or label),),
    )


def _by(metric: Own) -> tuple[tuple[str, ...], str]:
    """Return the labels to keep apart, as Prometheus stores them, and what a series of them is called."""
    labels = tuple(f"exported_{label}" if label in ("job", "instance") else label for label in metric.labels)
    return labels, " ".join(f"{{{{{label}}}}}" for label in labels)


def _hourly(series: str, lens: Lens, by: Sequence[str]) -> str:
    labels = f" by ({', '.join(by)})" if by else ""
    return f"sum{labels} (increase({series}{{{lens.all}}}[1h]))"


_KINDS: Mapping[str, Callable[[Own, str, Lens], Iterator[Panel]]] = {
    "counter": _counter,
    "histogram": _distribution,
    "summary": _distribution,
    "gauge": _level,
}
