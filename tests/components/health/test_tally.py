"""What a check is taken for after each answer, held against a plain model for any sequence of answers."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from flask_prod.components.health.tally import FAIL, OK, UNKNOWN, WARN, Result, Rule, Seen, follow, unknown
from flask_prod.core.component import Finding

answers = st.lists(st.sampled_from([OK, WARN, FAIL]), min_size=1, max_size=40)
rules = st.builds(Rule, st.integers(1, 5), st.integers(1, 5))


def run(statuses: Sequence[str], rule: Rule) -> list[Result]:
    """Return the result after each answer, one second apart."""
    found: list[Result] = []
    for second, status in enumerate(statuses):
        seen = Seen(Finding(status, status), 0.1, float(second), 1000.0 + second)
        found.append(follow(found[-1] if found else None, seen, rule))
    return found


@given(answers, rules)
def test_streaks(statuses: list[str], rule: Rule) -> None:
    """Down is the first answer or so many failures in a row; up again only so many successes in a row."""
    shown = run(statuses, rule)
    assert shown[0].finding.status == statuses[0]
    for at in range(1, len(statuses)):
        before, now = shown[at - 1].finding.status, shown[at].finding.status
        if before != FAIL and now == FAIL:
            assert set(statuses[at - rule.failures + 1 : at + 1]) == {FAIL}
            assert at + 1 >= rule.failures
        if before == FAIL and now != FAIL:
            assert FAIL not in statuses[max(0, at - rule.successes + 1) : at + 1]
        if FAIL not in (before, statuses[at]):
            assert now == statuses[at]  # what is well may say how well, at once


@given(answers, rules)
def test_never_for_long(statuses: list[str], rule: Rule) -> None:
    """After so many answers of one kind in a row that kind is shown: nothing holds on for ever."""
    shown = run(statuses, rule)
    for at, result in enumerate(shown):
        failing = [status == FAIL for status in statuses[: at + 1]]
        if all(failing[-rule.failures :]) and len(failing) >= rule.failures:
            assert result.finding.status == FAIL
        if not any(failing[-rule.successes :]) and len(failing) >= rule.successes:
            assert result.finding.status == statuses[at]


@given(answers, rules)
def test_since(statuses: list[str], rule: Rule) -> None:
    """`since` is when the status that is shown began; the counts are those of the latest streak."""
    shown = run(statuses, rule)
    for before, now in pairwise(shown):
        same = before.finding.status == now.finding.status
        assert now.since == (before.since if same else now.checked)
        assert min(now.failures, now.successes) == 0
    assert (shown[-1].error == "") == (shown[-1].finding.status != FAIL and statuses[-1] != FAIL)


@given(answers, rules)
def test_sure(statuses: list[str], rule: Rule) -> None:
    """A failure that is sure needs no others."""
    last = run(statuses, rule)[-1]
    seen = Seen(Finding(FAIL, "open"), 0.0, 99.0, 99.0, sure=True)

    assert follow(last, seen, rule).finding.status == FAIL


def test_unknown() -> None:
    """A result that is too old says how old it is, and keeps its data."""
    result = Result(Finding(OK, "", {"queue": 7}), 0.1, 10.0, 1010.0, 1000.0)
    old = unknown(result, 52.0)

    assert (old.finding.status, old.finding.detail) == (UNKNOWN, "last asked 42 s ago")
    assert old.finding.data == {"queue": 7}
