"""Whether the application starts at all, and as what."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator

from flask_prod.review.engine import FAILED, UNREASONED
from flask_prod.review.rule import ERROR, INFO, WARNING, Evidence, Evidences, NewSecret, Rule, rule
from flask_prod.review.subject import HOMELY, Subject

_OURS = re.compile(r"[PBA]\d{2,3}")
_OF_A_ROOM = re.compile(r"[A-Z]{2,8}\d{2,3}")
"""Ids of components' rules; those with one letter are ours: P, B of the sums, A of the audit."""


@rule(
    "P001", ERROR, "The application cannot start as configured",
    remedy="Do what the sentence says; `flask prod config --explain NAME` tells all about one setting.",
)  # fmt: skip
def starts(subject: Subject) -> Evidences:
    """Settings are checked before the first request: with one that is missing or wrong, no worker comes up."""
    for problem in subject.problems:
        key = problem.partition(" ")[0]
        missing = "is not set" in problem and key.isupper() and ("SECRET" in key or key.endswith("TOKEN"))
        yield Evidence(problem, key if key.isupper() else "", fix=NewSecret(key) if missing else None)


@rule(
    "P002", ERROR, "ENVIRONMENT is not production",
    remedy="Leave ENVIRONMENT out where the service runs; elsewhere: flask prod check --environment production.",
)  # fmt: skip
def production(subject: Subject) -> Evidences:
    """The profiles development and test speak plain HTTP and wait for nobody: what is checked here is not what
    will run."""
    if subject.environment in HOMELY:
        yield Evidence(f"ENVIRONMENT is {subject.environment}", "ENVIRONMENT")


@rule(
    UNREASONED, WARNING, "A silence has no reason",
    remedy='Say why: P204="the reason" in CHECK_SILENCE or --silence.',
)  # fmt: skip
def unreasoned(_subject: Subject) -> Evidences:
    """Whoever reads the settings next year must be able to tell a decision from a shortcut."""
    yield from ()  # the engine finds these: it knows the silences


@rule(
    FAILED, INFO, "A rule could not be judged",
    remedy="Look at what the rule is about yourself, and report this.",
)  # fmt: skip
def failed(_subject: Subject) -> Evidences:
    """A rule met something that it was not made for; all others were asked all the same."""
    yield from ()  # the engine finds these


@rule(
    "P005", WARNING, "The check's own settings cannot be read",
    remedy='In a profile: CHECK_SILENCE = { P204 = "the reason" }; in the environment: P204=the reason; P801=...',
)  # fmt: skip
def own_settings(subject: Subject) -> Evidences:
    """What CHECK_SILENCE was meant to silence is reported."""
    for id in subject.get("CHECK_SILENCE") or {}:
        if not (_OURS.fullmatch(id) or is_of_a_room(id)):
            yield Evidence(f"CHECK_SILENCE names {id!r}, which is no finding's id", "CHECK_SILENCE")


@rule(
    "P006", WARNING, "A component's rule is not asked",
    remedy="Its author gives each rule an id of its own, a word of capitals and a number: GEO01.",
)  # fmt: skip
def misnamed(subject: Subject) -> Evidences:
    """What it would have found is not found: a silence and a report must know which rule they are about."""
    rules = list(contributed(subject))
    times = Counter(one.id for _, one in rules)
    for room, one in rules:
        if not is_of_a_room(one.id):
            yield f"the component {room} has a rule {one.id!r}, which is no id of a component's rule"
        elif times[one.id] > 1:
            yield f"the component {room} has a rule {one.id}, and it is not the only one of this id"


def contributed(subject: Subject) -> Iterator[tuple[str, Rule]]:
    """Yield the rules of the application's components, each with the component's name."""
    rooms = subject.state.contributions if subject.state is not None else {}
    yield from ((name, one) for name, room in rooms.items() for one in room.rules)


def is_of_a_room(id: str) -> bool:
    """Tell whether an id may be one of a component's rule."""
    return _OF_A_ROOM.fullmatch(id) is not None


RULES = (starts, production, unreasoned, failed, own_settings, misnamed)
