"""A little load on a deployed service: enough to see that it answers in time, too little to be noticed."""

from __future__ import annotations

import http.client
import math
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import cycle, islice

from .caller import Caller
from .checked import Failed

TOO_MANY = 429


@dataclass(frozen=True)
class Limits:
    """How much load, and what must come of it: seconds, and the part of all requests that may fail."""

    requests: int = 40
    clients: int = 4
    p95: float = 1.0
    errors: float = 0.0


@dataclass
class Outcome:
    """What came of it; `seconds` are those of answers, `errors` what had none or one of 500 and more."""

    seconds: list[float] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)
    limited: int = 0

    @property
    def requests(self) -> int:
        """How many were sent."""
        return len(self.seconds) + len(self.errors)

    @property
    def p95(self) -> float:
        """The time within which 95 of 100 were answered."""
        ordered = sorted(self.seconds)
        return ordered[math.ceil(len(ordered) * 0.95) - 1] if ordered else math.inf


def burst(caller: Caller, paths: Sequence[str], limits: Limits) -> Outcome:
    """Send the requests of *limits* and return what came of them."""
    outcome, lock = Outcome(), threading.Lock()
    waiting = islice(cycle(paths), limits.requests)
    threads = [
        threading.Thread(target=_come, args=(caller, waiting, outcome, lock), name=f"verify-{number}", daemon=True)
        for number in range(limits.clients)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return outcome


def told(outcome: Outcome, limits: Limits) -> str:
    """Say in a line what came of it; Failed where that is beyond the limits."""
    rate = len(outcome.errors) / outcome.requests
    words = f"{outcome.requests} requests, {rate:.0%} errors, p95 {outcome.p95 * 1000:.0f} ms"
    if outcome.limited:
        words += f", {outcome.limited} limited"
    if rate > limits.errors:
        raise Failed(f"{words}; {limits.errors:.0%} may fail: {outcome.errors[0]}")
    if outcome.p95 > limits.p95:
        raise Failed(f"{words}; {limits.p95 * 1000:.0f} ms are allowed")
    return words


def _come(caller: Caller, waiting: Iterator[str], outcome: Outcome, lock: threading.Lock) -> None:
    while True:
        with lock:
            path = next(waiting, None)
        if path is None:
            return
        seconds, error, status = _ask(caller, path)
        with lock:
            outcome.limited += status == TOO_MANY
            if error:
                outcome.errors.append(error)
            else:
                outcome.seconds.append(seconds)


def _ask(caller: Caller, path: str) -> tuple[float, str, int]:
    began = time.monotonic()
    try:
        answer = caller.get(path)
    except (OSError, http.client.HTTPException) as error:
        return 0.0, f"{path} {type(error).__name__}: {error}", 0
    wrong = f"{path} {answer.status}" if answer.status >= 500 else ""
    return time.monotonic() - began, wrong, answer.status
