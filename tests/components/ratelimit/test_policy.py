"""Policies as settings spell them."""

from __future__ import annotations

import pytest

from flask_prod.components.ratelimit.policy import Policy, describe, parse_policy, read_policies
from flask_prod.core.errors import ConfigError
from tests.apps import MakeApp


@pytest.mark.parametrize(
    ("rule", "policy"),
    [
        ("10/10m", Policy("p", 10, 600_000)),
        ("5/15m block 1h", Policy("p", 5, 900_000, 3_600_000)),
        ("100/minute", Policy("p", 100, 60_000)),
        (" 3 / 2 hours ", Policy("p", 3, 7_200_000)),
        ("7/30", Policy("p", 7, 30_000)),
        ("1/1.5s closed", Policy("p", 1, 1500, 0, "closed")),
        ("1/DAY Block 2d Open", Policy("p", 1, 86_400_000, 172_800_000, "open")),
        ("1000/1m by key", Policy("p", 1000, 60_000, by="key")),
        ("9/30 shadow by address cost 3", Policy("p", 9, 30_000, cost=3, by="address", shadow=True)),
        ("9/m prefix login block 1h open", Policy("p", 9, 60_000, 3_600_000, "open", prefix="login")),
        ("", None),
    ],
)
def test_rules_read_as_they_are_spoken(rule: str, policy: Policy | None) -> None:
    """Points, window, block and what holds in an outage, in one line."""
    assert parse_policy("p", rule) == policy


@pytest.mark.parametrize(
    "rule",
    [
        *("ten/1m", "10", "10/", "0/1m", "5/1m block", "5/1x", "9/40d", "1/10ms", "5/1m shut", "5/1m open closed"),
        *("5/1m by", "5/1m by moon", "5/1m cost", "5/1m cost 6", "5/1m cost 0", "5/1m prefix", "5/1m prefix a:b"),
    ],
)
def test_a_bad_rule_names_itself(rule: str) -> None:
    """The message holds the name and the rule as typed."""
    with pytest.raises(ValueError, match=f"login={rule}"):
        parse_policy("login", rule)


def test_bad_policies_are_reported_together(make_app: MakeApp, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each entry is a problem of its own, at start, under the key as typed."""
    monkeypatch.setenv("RATE_LIMIT_POLICIES", "login=5/15m block 1h; search=many; 1x=2/1m")
    with pytest.raises(ConfigError) as caught:
        make_app(only=("ratelimit",))

    assert len(caught.value.problems) == 2
    assert all(problem.startswith("RATE_LIMIT_POLICIES: ") for problem in caught.value.problems)


def test_the_policies_of_the_box() -> None:
    """Six names exist without any setting, with the numbers that the documentation gives."""
    policies = read_policies(100, 500, 60.0, {})
    assert policies == {
        "public": Policy("public", 100, 60_000),
        "authenticated": Policy("authenticated", 500, 60_000),
        "api": Policy("api", 100, 60_000, 300_000),
        "auth": Policy("auth", 5, 900_000, 3_600_000),
        "checkout": Policy("checkout", 10, 600_000, 1_800_000),
        "admin": Policy("admin", 1000, 60_000),
    }


def test_settings_win_over_the_box() -> None:
    """A rule of the same name replaces ours; an empty one switches it off."""
    policies = read_policies(None, 500, 60.0, {"checkout": "3/1m", "api": ""})
    assert policies["checkout"] == Policy("checkout", 3, 60_000)
    assert policies["api"] is None
    assert policies["public"] is None


def test_all_may_be_in_shadow_mode() -> None:
    """RATE_LIMIT_SHADOW holds for every policy that is on."""
    policies = read_policies(100, None, 60.0, {"api": ""}, shadow=True)
    assert policies["public"] == Policy("public", 100, 60_000, shadow=True)
    assert {name for name, policy in policies.items() if policy and not policy.shadow} == set()


def test_words_for_people() -> None:
    """A policy is described in the units people use."""
    assert describe(Policy("p", 10, 5_400_000)) == "10 requests in 1h30m"


def test_the_share_of_one_process() -> None:
    """Processes that cannot count together give the quota between them, at least one request each."""
    assert Policy("p", 100, 60_000).shared_by(4).points == 25
    assert Policy("p", 5, 60_000).shared_by(4).points == 2
    assert Policy("p", 10, 60_000, cost=5).shared_by(8).points == 5
