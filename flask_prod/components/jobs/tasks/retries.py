"""Whether a failed job is tried again, and after how long.

Delays have full jitter: each is drawn from below a ceiling that grows, so that jobs that failed together, when a
service they all need was away, come back spread over the whole time instead of together.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

from flask_prod.core.values import parse_duration

if TYPE_CHECKING:
    from rq.job import Job

    from .task import AnyTask

Backoff: TypeAlias = str | float | Sequence[str | float]
"""`exponential`, `linear`, one delay ("30s", 30), or a list of delays whose last one repeats."""

Errors: TypeAlias = tuple[type[BaseException], ...]

BASE = 5.0
"""Seconds that the ceiling of the first retry is at; exponential doubles it, linear adds it."""

LONGEST = 3600.0
"""No retry waits longer than an hour unless its delay is given."""

SHORTEST = 1.0
"""Seconds that each retry waits at least: one at once would fail for the same reason."""


@dataclass(frozen=True, slots=True)
class Rules:
    """Which exceptions are worth another attempt: those of `retry_on` that are none of `never`."""

    retry_on: Errors = (BaseException,)
    never: Errors = ()

    def again(self, error: BaseException | type[BaseException]) -> bool:
        """Tell whether a job that failed by *error* may be tried again."""
        kind = error if isinstance(error, type) else type(error)
        return issubclass(kind, self.retry_on) and not issubclass(kind, self.never)


def rules(retry_on: object = None, never: object = None) -> Rules:
    """Return the rules of a decorator; TypeError for what is no exception class or tuple of them."""
    return Rules(_errors("retry_on", retry_on, (BaseException,)), _errors("never", never, ()))


def next_attempt(job: Job, error: BaseException) -> float | None:
    """Return the seconds after which a job that failed by *error* is tried again, None when it is dead."""
    task: AnyTask | None = getattr(job, "task", None)
    if not job.should_retry or (task is not None and not task.options.rules.again(error)):
        return None
    return float(job.get_retry_interval())


def check_backoff(backoff: Backoff) -> None:
    """Raise ValueError for a backoff that `delays` would not understand."""
    delays(1, backoff)


def delays(retry: int, backoff: Backoff) -> list[int]:
    """Return the whole seconds to wait before each of *retry* further attempts."""
    if backoff == "exponential":
        return [_jitter(BASE * 2 ** min(attempt, 20)) for attempt in range(retry)]
    if backoff == "linear":
        return [_jitter(BASE * (attempt + 1)) for attempt in range(retry)]

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


def _jitter(ceiling: float) -> int:
    return round(random.uniform(SHORTEST, min(ceiling, LONGEST)))  # noqa: S311  # no secret


def _errors(name: str, given: object, default: Errors) -> Errors:
    if given is None:
        return default
    kinds = given if isinstance(given, tuple | list) else (given,)
    for kind in kinds:
        if not (isinstance(kind, type) and issubclass(kind, BaseException)):
            raise TypeError(f"{name} takes exception classes, not {kind!r}")
    return tuple(kinds)
