"""What one of gunicorn's workers shares with its master."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from .master import Master


@dataclass(slots=True)
class Post:
    """The place of a worker: whether the service drains, after how many requests it is worn, and how to say so."""

    draining: Callable[[], bool]
    limit: float
    tell: Callable[[bytes], None]


def take(master: Master | None, worker: Any) -> Post:
    """Return the place of a worker that was just forked; one that stands alone when the master knows of none."""
    if master is None:
        return Post(_never, math.inf, _nobody)
    post = Post(master.drain.flag, master.limit_of(worker), master.wire.tell)
    worker.max_requests = sys.maxsize  # the master decides when: one worker at a time
    return post


def _never() -> bool:
    return False


def _nobody(_what: bytes) -> None:
    return
