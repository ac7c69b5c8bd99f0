"""What is left for a client: from code and on the command line."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from .engine import Verdict, remaining
from .policy import Policy
from .refusals import CLOSED_SECONDS


@dataclass(frozen=True, slots=True)
class PolicyStatus:
    """One policy as it stands for one client; `blocked` is in seconds, 0 when it is not."""

    points: int
    remaining: int
    window: float
    blocked: int


@dataclass(frozen=True, slots=True)
class ClientStatus:
    """Every policy as it stands for one client; `shared` tells counters in Redis from those of this process."""

    client: str
    shared: bool
    policies: Mapping[str, PolicyStatus]


@dataclass(frozen=True, slots=True)
class Decision:
    """What `consume` came to: whether to go on, the points left, and else the seconds to wait.

    `shared` tells counters in Redis from those of this process.
    """

    policy: str
    allowed: bool
    remaining: int
    retry_after: int
    shared: bool


def decision_of(policy: Policy, verdict: Verdict, shared: bool) -> Decision:
    """Turn the verdict of one policy into words and numbers; one in shadow mode allows everything."""
    left = remaining(policy, verdict.rows[0], verdict.now)
    return Decision(policy.name, not verdict.refused, left, verdict.retry_after, shared)


def status_of(client: str, shared: bool, verdict: Verdict) -> ClientStatus:
    """Turn a verdict that only looked into words and numbers."""
    return ClientStatus(
        client,
        shared,
        {
            policy.name: PolicyStatus(
                policy.points,
                remaining(policy, row, verdict.now),
                policy.window / 1000,
                max(0, -((verdict.now - row[3]) // 1000)) if row[3] else 0,
            )
            for policy, row in zip(verdict.policies, verdict.rows, strict=True)
        },
    )


def uncounted(policy: Policy, holds: str) -> Decision:
    """Return what holds while nobody counts: all is refused where *holds* is closed, else all passes."""
    if holds == "closed" and not policy.shadow:
        return Decision(policy.name, False, 0, CLOSED_SECONDS, False)
    return Decision(policy.name, True, policy.points, 0, False)
