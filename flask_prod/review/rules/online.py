"""What the service's own servers say, asked only with --online and with short time limits."""

from __future__ import annotations

from typing import Any

from flask_prod.core.component import Check
from flask_prod.review.rule import ERROR, WARNING, Evidence, Evidences, rule
from flask_prod.review.subject import Subject

from .asking import within


def _told(subject: Subject, name: str) -> tuple[str, str]:
    """Return status and sentence of the health check *name*; ok where there is none."""
    contributions: Any = subject.state.contributions if subject.state is not None else {}
    checks: list[Check] = [check for one in contributions.values() for check in one.checks if check.name == name]
    for check in checks:
        try:
            found = within(check.probe, subject, check.timeout or 0.0)
        except Exception as error:
            first = next(iter(str(error).splitlines()), "")  # SQLAlchemy adds a line about its documentation
            return "fail", f"{type(error).__name__}: {first}"
        if found is not None:
            return found.status, found.detail
    return "ok", ""


def _answers(subject: Subject) -> bool:
    """Tell whether the database answers: where it does not, that is the finding, and the only one."""
    if "answers" not in subject.answers:
        subject.answers["answers"] = _told(subject, "database")[0] != "fail"
    return bool(subject.answers["answers"])


@rule(
    "P421", ERROR, "The database does not answer",
    remedy="Look at DATABASE_URL, the network and the server: flask prod health.", online=True,
)  # fmt: skip
def database(subject: Subject) -> Evidences:
    """Asked by the health check `database`, with its own time limit."""
    status, detail = _told(subject, "database")
    subject.answers["answers"] = status != "fail"
    if status == "fail":
        yield Evidence(detail, "DATABASE_URL")


@rule(
    "P422", ERROR, "Redis does not answer",
    remedy="Look at REDIS_URL, the network and the server: flask prod health.", online=True,
)  # fmt: skip
def redis(subject: Subject) -> Evidences:
    """Asked by the health check `redis`, by a write."""
    status, detail = _told(subject, "redis")
    if status != "ok":
        yield Evidence(detail, "REDIS_URL")


@rule(
    "P423", ERROR, "Migrations are pending",
    remedy="flask prod db upgrade.", online=True,
)  # fmt: skip
def migrations(subject: Subject) -> Evidences:
    """The code needs columns that the database does not have yet."""
    status, detail = _told(subject, "migrations")
    if status != "ok" and _answers(subject):
        yield Evidence(detail)


@rule(
    "P424", WARNING, "The last backup is too old, or the store does not answer",
    remedy="flask prod db backup, and see why its timer did not run.", online=True,
)  # fmt: skip
def backups(subject: Subject) -> Evidences:
    """What was written since then would be lost."""
    status, detail = _told(subject, "backups")
    if status != "ok":
        yield Evidence(detail, "BACKUP_URL")


@rule(
    "P431", ERROR, "Jobs cannot be written to their table",
    remedy="flask prod jobs outbox create, or the migration of docs/outbox.md.", online=True,
)  # fmt: skip
def outbox(subject: Subject) -> Evidences:
    """Each dispatch raises an error, in the middle of somebody's request. Asked by the health check `outbox`."""
    status, detail = _told(subject, "outbox")
    if status == "fail" and _answers(subject):
        yield Evidence(detail, "JOBS_OUTBOX")


RULES = (database, redis, migrations, backups, outbox)
