from __future__ import annotations

from typing import Any

import pytest

from flask_prod.components.jobs.retries import delays


def test_exponential() -> None:
    """Each delay is about twice the one before, spread by a fifth, and never much more than an hour."""
    found = delays(20, "exponential")
    assert 4 <= found[0] <= 6
    assert 8 <= found[1] <= 12
    assert 2880 <= found[-1] <= 4320


def test_linear() -> None:
    """Each delay is about five seconds longer."""
    assert 12 <= delays(3, "linear")[2] <= 18


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
