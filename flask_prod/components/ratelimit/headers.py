"""What an answer says about limits: `RateLimit` and `RateLimit-Policy` (IETF draft 10), and the older names."""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

from flask_prod.core.component import HeaderList

from .engine import Standing, Verdict, remaining, wait
from .plan import Limits


class Shown(NamedTuple):
    """A limit of Flask-Limiter as the headers show it; `reset` and `window` are in seconds."""

    name: str
    points: int
    left: int
    reset: int
    window: int


def add_library_headers(headers: HeaderList, shown: Shown, now: int) -> None:
    """Add one limit of Flask-Limiter to what is said already; the X- headers show whichever has less left."""
    names = {name: index for index, (name, _) in enumerate(headers) if "ratelimit" in name.lower()}
    for name, item in (
        ("RateLimit-Policy", f'"{shown.name}";q={shown.points};w={shown.window}'),
        ("RateLimit", f'"{shown.name}";r={shown.left};t={shown.reset}'),
    ):
        if name in names:
            headers[names[name]] = (name, f"{headers[names[name]][1]}, {item}")
        else:
            headers.append((name, item))

    if "X-RateLimit-Remaining" in names and int(headers[names["X-RateLimit-Remaining"]][1]) <= shown.left:
        return
    headers[:] = [pair for pair in headers if not pair[0].startswith("X-RateLimit-")]
    headers += (
        ("X-RateLimit-Limit", str(shown.points)),
        ("X-RateLimit-Remaining", str(shown.left)),
        ("X-RateLimit-Reset", str(now + shown.reset)),
    )


def add_limit_headers(headers: HeaderList, limits: Limits, standing: Standing) -> None:
    """Add the state of every limit shown; the X- headers show the one with the least left."""
    numbers, points, least, reset = standing
    headers += (
        limits.header,
        ("RateLimit", limits.state % numbers),
        points,
        ("X-RateLimit-Remaining", f"{least}"),
        _reset(reset),
    )


@lru_cache(maxsize=256)
def _reset(moment: int) -> tuple[str, str]:
    return "X-RateLimit-Reset", str(moment)


def standing_of(verdict: Verdict, limits: Limits) -> Standing | None:
    """Return what headers say of a verdict; None when every limit is in shadow mode.

    The window slides, so nothing resets all at once: the seconds are those until the current window ends, or, with
    nothing left, until the next request would pass.
    """
    now = verdict.now
    least = 1 << 62
    soonest = 0
    points = ("", "")
    numbers: list[int] = []
    for policy, row, pair in zip(limits.shown, verdict.rows, limits.points):  # noqa: B905  # shadows come last
        start, current, previous, blocked = row
        left = remaining(policy, row, now) if previous or blocked else policy.points - current
        if left > 0:
            seconds = -((now - start - policy.window) // 1000)
        else:
            left, seconds = 0, -(-wait(policy, row, now) // 1000)
        numbers += (left, seconds)
        if left < least:
            least, soonest, points = left, seconds, pair
    return (tuple(numbers), points, least, now // 1000 + soonest) if numbers else None


def add_retry_after(headers: HeaderList, seconds: int) -> None:
    """Add Retry-After, unless the answer says it already."""
    if not any(name.lower() == "retry-after" for name, _ in headers):
        headers.append(("Retry-After", str(seconds)))
