"""What an answer says about limits: `RateLimit` and `RateLimit-Policy` (IETF draft 10), and the older names."""

from __future__ import annotations

from typing import NamedTuple

from flask_prod.core.component import HeaderList

from .engine import Verdict, remaining, wait


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


def add_limit_headers(headers: HeaderList, verdict: Verdict, policy_header: str) -> None:
    """Add the state of every limit; the X- headers show the one with the least left, its reset as a Unix time.

    The window slides, so nothing resets all at once: `t` is when the current window ends, or, with nothing left,
    when the next request would pass.
    """
    now = verdict.now
    least = 1 << 62
    shown = (0, 0)
    items = []
    for policy, row in zip(verdict.policies, verdict.rows, strict=True):
        left = remaining(policy, row, now)
        after = row.start + policy.window - now if left else wait(policy, row, now)
        seconds = -(-after // 1000)
        items.append(f'"{policy.name}";r={left};t={seconds}')
        if left < least:
            least = left
            shown = (policy.points, seconds)
    headers += (
        ("RateLimit-Policy", policy_header),
        ("RateLimit", ", ".join(items)),
        ("X-RateLimit-Limit", str(shown[0])),
        ("X-RateLimit-Remaining", str(least)),
        ("X-RateLimit-Reset", str(now // 1000 + shown[1])),
    )


def add_retry_after(headers: HeaderList, seconds: int) -> None:
    """Add Retry-After, unless the answer says it already."""
    if not any(name.lower() == "retry-after" for name, _ in headers):
        headers.append(("Retry-After", str(seconds)))
