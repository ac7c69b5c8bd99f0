"""What is left for a client: from code and on the command line."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from .engine import Verdict, remaining


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
                max(0, -((verdict.now - row.blocked) // 1000)) if row.blocked else 0,
            )
            for policy, row in zip(verdict.policies, verdict.rows, strict=True)
        },
    )
