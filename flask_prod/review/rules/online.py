"""What the service's own servers say, asked only with --online and with short time limits."""

from __future__ import annotations

from contextlib import nullcontext
from threading import Thread
from typing import Any

from flask_prod.core.component import Check, Finding
from flask_prod.review.rule import ERROR, WARNING, Evidence, Evidences, rule
from flask_prod.review.subject import Subject


def _told(subject: Subject, name: str) -> tuple[str, str]:
    """Return status and sentence of the health check *name*; ok where there is none."""
    contributions: Any = subject.state.contributions if subject.state is not None else {}
    checks: list[Check] = [check for one in contributions.values() for check in one.checks if check.name == name]
    for check in checks:
        try:
            found = _within(check, subject)
        except Exception as error:
            first = next(iter(str(error).splitlines()), "")  # SQLAlchemy adds a line about its documentation
            return "fail", f"{type(error).__name__}: {first}"
        if found is not None:
            return found.status, found.detail
    return "ok", ""


def _within(check: Check, subject: Subject) -> Finding | None:
    """Return what a check says; TimeoutError after its own time limit, or HEALTH_TIMEOUT."""
    limit = check.timeout or float(subject.get("HEALTH_TIMEOUT") or 2.0)
    results: list[Finding | None] = []
    errors: list[Exception] = []

    def ask() -> None:
        try:
            with subject.app.app_context() if subject.app is not None else nullcontext():
                results.append(check.probe())
        except Exception as error:
            errors.append(error)

    thread = Thread(target=ask, name="flask-prod-check", daemon=True)  # a hung one must not hold up the end
    thread.start()
    thread.join(limit)
    if errors:
        raise errors[0]
    if not results:
        raise TimeoutError(f"no answer within {limit:g} s")
    return results[0]


@rule(
    "P421", ERROR, "The database does not answer",
    remedy="Look at DATABASE_URL, the network and the server: flask prod health.", online=True,
)  # fmt: skip
def database(subject: Subject) -> Evidences:
    """Asked by the health check `database`, with its own time limit."""
    status, detail = _told(subject, "database")
    if status == "fail":
        yield Evidence(detail, "DATABASE_URL")


@rule(
    "P422", ERROR, "Redis does not answer, or would lose jobs",
    remedy="Look at REDIS_URL and the server; jobs need maxmemory-policy noeviction and appendonly yes.",
    online=True,
)  # fmt: skip
def redis(subject: Subject) -> Evidences:
    """A server that drops keys when memory is full, or keeps nothing over a restart, loses jobs."""
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
    if status != "ok":
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


RULES = (database, redis, migrations, backups)
