"""One computation per key and process."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from flask_prod.components.cache.absent import MISSING
from flask_prod.components.cache.flights import Flights


def run(flights: Flights, compute: Callable[[], tuple[Any, bytes | None]], key: str = "key") -> tuple[Any, bool]:
    return flights.run(key, compute, bytes.decode)


class Slow:
    """A computation that counts how often it ran."""

    def __init__(self, data: bytes | None = b"value", seconds: float = 0.2) -> None:
        self.runs = 0
        self.data = data
        self.seconds = seconds

    def __call__(self) -> tuple[Any, bytes | None]:
        self.runs += 1
        own = f"own {threading.get_ident()}"
        time.sleep(self.seconds)
        return own, self.data


def at_once(count: int, call: Callable[[], Any]) -> list[Any]:
    with ThreadPoolExecutor(count) as pool:
        futures = [pool.submit(call) for _ in range(count)]
        return [future.result(20) for future in futures]


def test_callers_at_once_compute_once() -> None:
    """Sixteen callers of a slow computation get one result."""
    flights, slow = Flights(5), Slow()

    results = at_once(16, lambda: run(flights, slow))

    assert slow.runs == 1
    assert sorted(shared for _, shared in results) == [False] + [True] * 15


@pytest.mark.alone
def test_result_that_may_not_be_shared_is_shared_with_nobody() -> None:
    """When a result could not be stored, each caller computes one of its own, and later ones do not wait."""
    flights, slow = Flights(5), Slow(data=None)

    results = at_once(4, lambda: run(flights, slow))
    began = time.perf_counter()
    at_once(4, lambda: run(flights, slow))

    assert slow.runs == 8
    assert len({value for value, _ in results}) == 4
    assert time.perf_counter() - began < 0.35


def test_failure_of_the_first_is_not_that_of_the_others() -> None:
    """An exception belongs to the caller whose computation raised it."""
    flights, calls = Flights(5), []

    def compute() -> tuple[Any, bytes | None]:
        calls.append(1)
        if len(calls) == 1:
            time.sleep(0.1)
            raise RuntimeError("only once")
        return "fine", b"fine"

    def ask() -> str:
        try:
            return str(run(flights, compute)[0])
        except RuntimeError:
            return "raised"

    assert sorted(at_once(4, ask)) == ["fine", "fine", "fine", "raised"]


def test_wait_is_bounded() -> None:
    """Who has waited long enough computes for itself."""
    flights, slow = Flights(0.05), Slow(seconds=0.4)

    at_once(2, lambda: run(flights, slow))

    assert slow.runs == 2


def test_function_that_calls_itself_does_not_wait_for_itself() -> None:
    """The same key within its own computation is computed at once."""
    flights = Flights(5)
    began = time.perf_counter()

    result = run(flights, lambda: (run(flights, lambda: ("inner", b"inner"))[0] + "!", b"outer"))

    assert result == ("inner!", False)
    assert time.perf_counter() - began < 1


def test_crossed_waits_end() -> None:
    """Two computations that need each other end after the time limit, not never."""
    flights, barrier = Flights(0.2), threading.Barrier(2)

    def nested(first: str, second: str) -> str:
        def outer() -> tuple[Any, bytes | None]:
            barrier.wait(5)
            return run(flights, lambda: ("inner", b"inner"), second)[0], b"outer"

        return str(run(flights, outer, first)[0])

    with ThreadPoolExecutor(2) as pool:
        futures = [pool.submit(nested, *pair) for pair in (("a", "b"), ("b", "a"))]
        assert {future.result(5) for future in futures} <= {"inner", "outer"}


def test_forgotten_key_is_computed_anew() -> None:
    """Who comes after an invalidation does not get what was computed before it."""
    flights, slow = Flights(5), Slow()

    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(run, flights, slow)
        time.sleep(0.05)
        flights.forget("key")
        second = pool.submit(run, flights, slow)
        first.result(5)
        second.result(5)

    assert slow.runs == 2


def test_forgetting_reaches_every_ticket() -> None:
    """A key is forgotten under whatever stamps its computations began, and no key that begins like it."""
    flights, slow = Flights(5), Slow()

    with ThreadPoolExecutor(4) as pool:
        for name in ("key\0a", "key\0b", "keys"):
            pool.submit(run, flights, slow, name)
        time.sleep(0.05)
        flights.forget("key")

        assert list(flights._flights) == ["keys"]


@pytest.mark.alone
def test_refreshing_alone() -> None:
    """Of callers at once one computes; the others are told at once that somebody does."""
    flights, slow = Flights(5), Slow()
    began = time.perf_counter()

    results = at_once(4, lambda: (flights.only("key", slow), time.perf_counter() - began))

    assert slow.runs == 1
    assert sum(seconds < 0.15 for _, seconds in results) == 3
    assert sum(result is MISSING for result, _ in results) == 3
