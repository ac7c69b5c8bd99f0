"""What limits hold back: jobs that wait until others with the same key have ended."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..redis_store.source import LIMITS

if TYPE_CHECKING:
    from ..engine import Engine


@dataclass(frozen=True, slots=True)
class LimitState:
    """One limit: `taken` of `most` slots belong to jobs that run or come next, and `held` jobs wait for one."""

    key: str
    most: int
    taken: int
    held: int


def limits(engine: Engine) -> list[LimitState]:
    """Return the limits of this service that any job is under now; Unavailable without Redis."""
    prefix = engine.redis.key("limit", "")
    found = engine.redis.attempt(lambda client: client.smembers(f"{LIMITS}-keys"), "SMEMBERS")
    names = sorted(
        name for name in (member.decode(errors="replace") for member in found) if name.startswith(prefix)
    )
    if not names:
        return []
    asked = [
        command
        for name in names
        for command in (
            ("HGET", f"{LIMITS}:{name}", "concurrency"),
            ("ZCARD", f"{LIMITS}:{name}:allowed"),
            ("ZCARD", f"{LIMITS}:{name}:rate_limited"),
        )
    ]
    answers = iter(engine.redis.pipeline(asked))
    return [
        LimitState(name.removeprefix(prefix), *(int(answer or 0) for answer in row))
        for name, *row in zip(names, answers, answers, answers, strict=True)
    ]
