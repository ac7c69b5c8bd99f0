"""What answers say about limits, read by a parser of structured fields."""

from __future__ import annotations

import http_sfv.list
from hypothesis import given
from hypothesis import strategies as st

from flask_prod.components.ratelimit.engine import Verdict, wait
from flask_prod.components.ratelimit.headers import (
    Shown,
    add_library_headers,
    add_limit_headers,
    add_retry_after,
    standing_of,
)
from flask_prod.components.ratelimit.plan import Limits
from flask_prod.components.ratelimit.policy import Policy
from flask_prod.core.component import HeaderList

NOW = 1_763_000_000_000


def items(headers: HeaderList, name: str) -> list[tuple[str, dict[str, int]]]:
    parsed = http_sfv.list.List()
    parsed.parse(dict(headers)[name].encode())
    return [(item.value, dict(item.params)) for item in parsed]


@given(
    st.lists(st.tuples(st.integers(1, 1000), st.integers(0, 1000), st.integers(0, 1000)), min_size=1, max_size=4)
)
def test_headers_parse_as_structured_fields(numbers: list[tuple[int, int, int]]) -> None:
    """RateLimit and RateLimit-Policy are lists of strings with the parameters of draft 10."""
    policies = [Policy(f"p{i}", points, 60_000) for i, (points, _, _) in enumerate(numbers)]
    rows = [(NOW - NOW % 60_000, min(c, p), min(o, p), 0) for p, c, o in numbers]
    headers: HeaderList = []
    limits = Limits.of(policies, "local", 1)
    standing = standing_of(Verdict(policies, NOW, 0, rows), limits)
    assert standing is not None
    add_limit_headers(headers, limits, standing)

    assert items(headers, "RateLimit-Policy") == [(p.name, {"q": p.points, "w": 60}) for p in policies]
    state = items(headers, "RateLimit")
    assert [name for name, _ in state] == [p.name for p in policies]
    for policy, row, (_, params) in zip(policies, rows, state, strict=True):
        assert 0 <= params["r"] <= policy.points
        if params["r"] == 0:
            assert params["t"] == -(-wait(policy, row, NOW) // 1000)
    assert int(dict(headers)["X-RateLimit-Remaining"]) == min(params["r"] for _, params in state)


def test_a_limit_of_the_library_joins_ours() -> None:
    """Both appear in the lists; the older headers show the one with less left."""
    headers: HeaderList = [
        ("RateLimit-Policy", '"public";q=100;w=60'),
        ("RateLimit", '"public";r=50;t=30'),
        ("X-RateLimit-Limit", "100"),
        ("X-RateLimit-Remaining", "50"),
        ("X-RateLimit-Reset", "1763000030"),
    ]
    add_library_headers(headers, Shown("5 per 1 minute", 5, 4, 60, 60), NOW // 1000)

    assert items(headers, "RateLimit") == [("public", {"r": 50, "t": 30}), ("5 per 1 minute", {"r": 4, "t": 60})]
    assert items(headers, "RateLimit-Policy")[1] == ("5 per 1 minute", {"q": 5, "w": 60})
    assert dict(headers)["X-RateLimit-Limit"] == "5"
    assert len(headers) == 5

    add_library_headers(headers, Shown("9 per 1 day", 9, 8, 60, 86400), NOW // 1000)
    assert dict(headers)["X-RateLimit-Limit"] == "5"


def test_an_answer_that_says_when_is_left_alone() -> None:
    """Retry-After appears once, whoever set it first."""
    headers: HeaderList = [("retry-after", "7")]
    add_retry_after(headers, 60)

    assert headers == [("retry-after", "7")]
