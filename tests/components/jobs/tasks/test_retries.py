from __future__ import annotations

from statistics import mean
from typing import Any

import pytest

from flask_prod.components.jobs.tasks.retries import delays, rules


def test_exponential() -> None:
    """The ceiling doubles from 5 s to an hour; each delay lies anywhere below it, and never under a second."""
    for _ in range(200):
        found = delays(20, "exponential")
        ceilings = [min(5 * 2**attempt, 3600) for attempt in range(20)]
        assert all(1 <= delay <= ceiling for delay, ceiling in zip(found, ceilings, strict=True))


def test_full_jitter() -> None:
    """Jobs that failed together come back spread over the whole time, not around one moment."""
    last = sorted(delays(6, "exponential")[-1] for _ in range(2000))
    assert last[0] < 10
    assert last[-1] > 150
    assert 70 < mean(last) < 90


def test_linear() -> None:
    """The ceiling grows by five seconds with each attempt."""
    found = [delays(3, "linear") for _ in range(200)]
    assert max(one[2] for one in found) <= 15
    assert max(one[2] for one in found) > 10


@pytest.mark.parametrize(
    ("backoff", "expected"),
    [("30s", [30, 30, 30]), (2, [2, 2, 2]), (["1s", 10], [1, 10, 10]), (0, [0, 0, 0])],
)
def test_given(backoff: Any, expected: list[int]) -> None:
    """Delays that are given are taken as they are; the last one repeats."""
    assert delays(3, backoff) == expected


@pytest.mark.parametrize("backoff", ["soon", [], -1])
def test_nonsense(backoff: Any) -> None:
    """Anything else is refused with what would be right."""
    with pytest.raises(ValueError, match="backoff"):
        delays(1, backoff)


@pytest.mark.parametrize(
    ("retry_on", "never", "error", "again"),
    [
        (None, None, ValueError("x"), True),
        (None, ValueError, ValueError("x"), False),
        (None, (LookupError,), KeyError("x"), False),
        (OSError, None, ConnectionError("x"), True),
        (OSError, None, ValueError("x"), False),
        ((OSError, ValueError), (TimeoutError,), TimeoutError("x"), False),
        ((OSError,), None, TimeoutError, True),
    ],
)
def test_rules(retry_on: Any, never: Any, error: Any, again: bool) -> None:
    """retry_on chooses, never excludes; subclasses count, and never has the last word."""
    assert rules(retry_on, never).again(error) is again


@pytest.mark.parametrize("given", ["OSError", (OSError, 5), int])
def test_rules_of_what_is_no_exception(given: Any) -> None:
    """What is no exception class is refused where it is written, by the option's name."""
    with pytest.raises(TypeError, match="never takes exception classes"):
        rules(never=given)
