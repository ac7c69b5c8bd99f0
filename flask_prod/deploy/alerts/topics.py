"""The topics that rules are grouped by: a group is a file of Prometheus, and has a file of tests."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import ModuleType

from ..plan import Plan
from . import database, instances, jobs, requests, stores
from .rule import Alert, Recording, Scope

_MODULES: Mapping[str, ModuleType] = {
    "instances": instances,
    "requests": requests,
    "database": database,
    "redis": stores,
    "jobs": jobs,
}


@dataclass(frozen=True)
class Topic:
    """Rules about one thing."""

    name: str
    recordings: tuple[Recording, ...]
    alerts: tuple[Alert, ...]


def topics(plan: Plan) -> tuple[Topic, ...]:
    """Return the rules for what the application has; a room that is left out has none."""
    if "metrics" not in plan.rooms:
        return ()
    scope = Scope(plan.name, plan.uses_jobs)
    found = (
        Topic(name, tuple(module.recordings(plan, scope)), tuple(module.alerts(plan, scope)))
        for name, module in _MODULES.items()
    )
    return tuple(topic for topic in found if topic.alerts)


def alerts(plan: Plan) -> tuple[Alert, ...]:
    """Return all alerts."""
    return tuple(alert for topic in topics(plan) for alert in topic.alerts)


def recordings(plan: Plan) -> tuple[Recording, ...]:
    """Return the recording rules that alerts and dashboards build on."""
    return tuple(rule for topic in topics(plan) for rule in topic.recordings)
