"""How long a failed job waits before it is tried again."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import TYPE_CHECKING, TypeAlias

from flask_prod.core.values import parse_duration

if TYPE_CHECKING:
    from rq.job import Job

Backoff: TypeAlias = str | float | Sequence[str | float]
"""`exponential`, `linear`, one delay ("30s", 30), or a list of delays whose last one repeats."""

BASE = 5.0
"""Seconds before the first retry; exponential doubles it, linear adds it."""

LONGEST = 3600.0
"""No retry waits longer than an hour unless its delay is given."""

JITTER = 0.2
"""Delays are spread by a fifth either way, so that jobs that failed together do not come back together."""


def check_backoff(backoff: Backoff) -> None:
    """Raise ValueError for a backoff that `delays` would not understand."""
    delays(1, backoff)


def delays(retry: int, backoff: Backoff) -> list[int]:
    """Return the whole seconds to wait before each of *retry* further attempts."""
    if backoff == "exponential":
        return [_spread(BASE * 2 ** min(attempt, 20)) for attempt in range(retry)]
    if backoff == "linear":
        return [_spread(BASE * (attempt + 1)) for attempt in range(retry)]

    given = [backoff] if isinstance(backoff, str | int | float) else list(backoff)
    try:
        seconds = [round(parse_duration(delay)) for delay in given]
    except ValueError:
        raise ValueError(
            f"backoff is exponential, linear, a delay such as 30s, or a list, not {backoff!r}"
        ) from None
    if not seconds or min(seconds) < 0:
        raise ValueError("backoff needs at least one delay, and none below zero")
    return [seconds[min(attempt, len(seconds) - 1)] for attempt in range(retry)]


def _spread(seconds: float) -> int:
    return round(min(seconds, LONGEST) * random.uniform(1 - JITTER, 1 + JITTER))  # noqa: S311  # no secret


def next_attempt(job: Job, error: BaseException) -> float | None:
    """Return the seconds until a job that failed with *error* is tried again; None when it is dead.

    The worker asks once per failed attempt; taking one of the job's retries away is the source's part.
    """
    return float(job.get_retry_interval()) if job.should_retry else None
