"""How a job is queued: what its decorator says, and what one dispatch changes of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, Literal, TypeAlias

from flask_prod.core.values import parse_duration

from ..settings import QUEUE_NAME
from .retries import Backoff, Rules, check_backoff, rules

Span: TypeAlias = str | float | timedelta
Until: TypeAlias = Literal["finished", "started"]
Priority: TypeAlias = Literal["normal", "high"]

_GRACE = timedelta(minutes=1)
"""A moment that passed so recently is meant as now: clocks differ, and getting here takes time."""

_UNIQUE_FOR = 86400.0
"""Seconds that a duplicate is turned away at most, unless `unique_for` says otherwise."""


@dataclass(frozen=True, slots=True)
class Unique:
    """One job at a time for each key: a function of the arguments, None for all of them."""

    key: Callable[..., object] | None = None
    until: Until = "finished"
    seconds: float = _UNIQUE_FOR


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """How a job is queued; `timeout` is in seconds, None for JOBS_DEFAULT_TIMEOUT."""

    queue: str = "default"
    retry: int = 0
    timeout: float | None = None
    backoff: Backoff = "exponential"
    rules: Rules = field(default_factory=Rules)
    idempotent: bool = False
    unique: Unique | None = None
    priority: Priority = "normal"
    tags: tuple[str, ...] = ()
    limit: tuple[str, int] | None = None
    """How many with the same key run at a time; an empty key means the job's name."""
    due: datetime | None = None
    after: tuple[str, ...] = ()
    group: str = ""
    session: Any = field(default=None, compare=False)

    def __post_init__(self) -> None:
        if not isinstance(self.queue, str) or not QUEUE_NAME.fullmatch(self.queue):
            raise ValueError(f"a queue name has letters, digits, and the signs . _ - only, not {self.queue!r}")
        if not isinstance(self.retry, int) or self.retry < 0:
            raise ValueError(f"retry must be zero or more attempts, not {self.retry!r}")
        if self.timeout is not None and self.timeout < 1:
            raise ValueError("timeout must be at least one second")
        if self.priority not in ("normal", "high"):
            raise ValueError(f"priority is normal or high, not {self.priority!r}; for more levels use queues")
        if not all(isinstance(tag, str) and QUEUE_NAME.fullmatch(tag) for tag in self.tags):
            raise ValueError(f"tags are names of letters, digits, and the signs . _ -, not {self.tags!r}")
        if self.limit is not None:
            check_limit(*self.limit)
        check_backoff(self.backoff)


def check_limit(key: object, most: object) -> None:
    """Refuse a limit that could not be kept; ValueError says what is wrong."""
    if not isinstance(key, str) or (key and not QUEUE_NAME.fullmatch(key)):
        raise ValueError(f"the key of a limit has letters, digits, and the signs . _ - only, not {key!r}")
    if not isinstance(most, int) or most < 1:
        raise ValueError(f"a limit lets one or more jobs run at a time, not {most!r}")


def read_options(given: Mapping[str, Any]) -> Options:
    """Return the options of a decorator as its keywords spell them; an error names the wrong one."""
    chosen = dict(given)
    chosen["rules"] = rules(chosen.pop("retry_on", None), chosen.pop("never", None))
    chosen["unique"] = _unique(*(chosen.pop(name, None) for name in ("unique", "unique_until", "unique_for")))
    if chosen.get("timeout") is not None:
        chosen["timeout"] = seconds_of("timeout", chosen["timeout"])
    if isinstance(chosen.get("limit"), int):
        chosen["limit"] = ("", chosen["limit"])
    if "tags" in chosen:
        tags = chosen["tags"]
        chosen["tags"] = (tags,) if isinstance(tags, str) else tuple(tags)
    unknown = chosen.keys() - Options.__dataclass_fields__.keys()
    if unknown:
        raise TypeError(f"@prod.job has no option {', '.join(sorted(unknown))}")
    return Options(**chosen)


def seconds_of(name: str, span: object) -> float:
    """Return the seconds of a span that is not negative; ValueError names the option."""
    try:
        seconds = parse_duration(span)
    except ValueError:
        seconds = -1.0
    if not 0 <= seconds < float("inf"):
        raise ValueError(f"{name} is a duration such as 30s or 5m, zero or more, not {span!r}")
    return seconds


def later(span: Span) -> datetime:
    """Return the moment after *span*; ValueError when that is negative or none."""
    return datetime.now(UTC) + timedelta(seconds=seconds_of("delay", span))


def moment(when: datetime) -> datetime:
    """Return *when* if it has a time zone and is not in the past."""
    if when.tzinfo is None:
        raise ValueError(f"at() needs a time zone: {when.isoformat()} means another moment on each machine")
    if when < datetime.now(UTC) - _GRACE:
        raise ValueError(f"at() takes a moment that is to come; {when.isoformat()} is in the past")
    return when


def _unique(unique: Any, until: Any, span: Any) -> Unique | None:
    """Return what `unique`, `unique_until` and `unique_for` ask for."""
    if not unique:
        if until is not None or span is not None:
            raise ValueError("unique_until and unique_for need unique=True or a function of the arguments")
        return None
    if unique is not True and not callable(unique):
        raise TypeError(f"unique is True or a function of the job's arguments, not {unique!r}")
    if until not in (None, "finished", "started"):
        raise ValueError(f"unique_until is finished or started, not {until!r}")
    seconds = _UNIQUE_FOR if span is None else seconds_of("unique_for", span)
    if seconds < 1:
        raise ValueError(f"unique_for must be at least one second, not {span!r}")
    return Unique(None if unique is True else unique, until or "finished", seconds)
