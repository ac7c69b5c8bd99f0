"""All rules in the order of their ids, and the findings that others make."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from flask_prod.review.rule import INFO, WARNING, Finding, Rule
from flask_prod.review.subject import Subject
from flask_prod.server import budget

from . import browser, data, host, limits, online, process, secrets, servers, start, stores, telemetry, transport

AREAS: Mapping[str, tuple[Rule, ...]] = {
    "Start": start.RULES,
    "Secrets": secrets.RULES,
    "Transport": transport.RULES,
    "Browsers": browser.RULES,
    "Data stores": (*stores.RULES, *online.RULES, *servers.RULES),
    "Limits": limits.RULES,
    "Process": process.RULES,
    "Observability": telemetry.RULES,
    "Data safety": data.RULES,
    "Host": host.RULES,
}
"""Rules by area; an id's first digit is its area's."""

RULES: tuple[Rule, ...] = tuple(rule for rules in AREAS.values() for rule in rules)

SUMS: Mapping[str, str] = {
    "B01": "A stop takes longer than the orchestrator waits",
    "B02": "A stop refuses connections before the balancer hears of it",
    "B03": "Redis may be waited for longer than there is time for an answer",
    "B04": "The database may be waited for longer than there is time for an answer",
    "B05": "A job may run longer than its process",
    "B06": "Idle connections are closed before the balancer closes them",
    "B07": "Health results grow too old before the next ones come",
    "B08": "A worker has more threads than database connections",
    "B09": "A worker has more threads than Redis connections",
    "B10": "All processes together want more connections than the database gives",
}
"""The arithmetic of time limits and pools, whose ids begin with B: docs/shutdown.md has each sum."""


def rules_for(subject: Subject) -> tuple[Rule, ...]:
    """Return our rules and those of the application's components; P006 tells of one that cannot be asked."""
    found = {one.id: one for one in RULES}
    for _room, one in start.contributed(subject):
        if start.is_of_a_room(one.id):
            found.setdefault(one.id, one)
    return tuple(found.values())


def sums(subject: Subject, online: bool = False) -> Iterator[Finding]:
    """Yield what does not add up between time limits and pools; *online* asks the database for its own limit."""
    if subject.state is None:
        return
    max_connections = servers.max_connections(subject) if online else None
    for one in budget.findings(subject.values, subject.serving, max_connections):
        title = SUMS.get(one.id, "Time limits or pools do not add up")
        severity = WARNING if one.severity == "warning" else INFO
        yield Finding(one.id, severity, title, one.arithmetic, one.remedy)
