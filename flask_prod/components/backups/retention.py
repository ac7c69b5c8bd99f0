"""Which backups stay: the last ones, and one of each of so many days, weeks, months."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from datetime import datetime

_BUCKETS: Mapping[str, Callable[[datetime], object]] = {
    "last": lambda when: when,
    "hourly": lambda when: (when.date(), when.hour),
    "daily": lambda when: when.date(),
    "weekly": lambda when: when.isocalendar()[:2],
    "monthly": lambda when: (when.year, when.month),
    "yearly": lambda when: when.year,
}

PERIODS = tuple(_BUCKETS)


def kept(times: Iterable[datetime], keep: Mapping[str, int]) -> set[datetime]:
    """Return the times that stay; the newest always does, and all do where *keep* is empty."""
    newest_first = sorted(times, reverse=True)
    if not keep:
        return set(newest_first)
    staying = set(newest_first[:1])
    for period, count in keep.items():
        buckets: dict[object, datetime] = {}
        for when in newest_first:
            buckets.setdefault(_BUCKETS[period](when), when)
        staying.update(list(buckets.values())[:count])
    return staying
