"""How many requests fail per minute, and when that begins and ends to be an alert."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

_WINDOW = 60.0


class Rate:
    """Failures within the last minute, from a number that only grows."""

    def __init__(self) -> None:
        self._seen: deque[tuple[float, float]] = deque()

    def feed(self, now: float, total: float) -> float:
        """Take the number as it is *now* (seconds), and return by how much it grew within the last minute."""
        seen = self._seen
        if seen and (total < seen[-1][1] or seen[-1][0] < now - _WINDOW):
            seen.clear()  # it began anew, or nobody has looked for so long
        seen.append((now, total))
        while len(seen) > 1 and seen[1][0] <= now - _WINDOW:
            seen.popleft()
        return total - seen[0][1]


@dataclass(slots=True)
class Episode:
    """A time in which too much goes wrong; times are seconds since 1970, as several processes share them."""

    began: float = 0.0
    told: float = 0.0
    calm_since: float = 0.0

    @property
    def open(self) -> bool:
        """True from the alert to the recovery."""
        return self.began > 0


@dataclass(frozen=True, slots=True)
class Limits:
    """When an episode begins and ends, and when it is told of again; seconds, `reminder` 0 for never."""

    rate: float
    calm: float
    reminder: float


def judge(episode: Episode, rate: float, now: float, limits: Limits) -> str:
    """Take the rate of *now* into *episode* and return what to tell: "begun", "lasting", "ended" or nothing."""
    if not episode.open:
        if rate < limits.rate:
            return ""
        episode.began = episode.told = now
        episode.calm_since = 0.0
        return "begun"
    if rate >= limits.rate / 2:
        episode.calm_since = 0.0
        if limits.reminder and now - episode.told >= limits.reminder:
            episode.told = now
            return "lasting"
        return ""
    if not episode.calm_since:
        episode.calm_since = now
    if now - episode.calm_since >= limits.calm:
        episode.began = episode.told = episode.calm_since = 0.0
        return "ended"
    return ""
