"""Whether data outlives a bad day: backups, jobs, and what lies in a public folder."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

from flask_prod.review.rule import ERROR, INFO, WARNING, Evidence, Evidences, rule
from flask_prod.review.subject import Subject


@rule(
    "P801", INFO, "There are no backups",
    remedy="BACKUP_URL=s3://bucket/prefix and BACKUP_KEY, or a silence that says who makes them.",
)  # fmt: skip
def none(subject: Subject) -> Evidences:
    """A deleted table is gone. Where the database's provider makes backups, say so in a silence."""
    if subject.has("BACKUP_URL") and not subject.get("BACKUP_URL") and subject.uses_database:
        yield Evidence("BACKUP_URL is empty", "BACKUP_URL")


@rule(
    "P802", WARNING, "The last backup is too old",
    remedy="flask prod db backup, and see why its timer did not run.",
)  # fmt: skip
def stale(subject: Subject) -> Evidences:
    """What was written since then would be lost. Read from the manifests of a directory; not of a bucket."""
    folder = Path(subject.text("BACKUP_URL").removeprefix("file://"))
    limit = float(subject.get("BACKUP_MAX_AGE") or 0)
    if "://" in subject.text("BACKUP_URL").removeprefix("file://") or not subject.text("BACKUP_URL") or not limit:
        return
    if folder.is_dir():
        newest = max(_made(folder, str(subject.get("SERVICE_NAME") or "")), default=None)
        if newest is not None and subject.now - newest > limit:
            yield Evidence(f"the newest is {(subject.now - newest) / 3600:.0f} hours old", "BACKUP_URL", folder)


@rule(
    "P803", WARNING, "Backups are not encrypted",
    remedy="flask prod secret generate BACKUP_KEY; keep a copy of it where the backups are not.",
)  # fmt: skip
def open_backups(subject: Subject) -> Evidences:
    """Whoever reads the bucket or the disk has all rows of all customers."""
    if subject.get("BACKUP_URL") and not subject.get("BACKUP_KEY"):
        yield Evidence("BACKUP_URL is set, and BACKUP_KEY is empty", "BACKUP_KEY")


@rule(
    "P804", ERROR, "Private files lie in the public folder",
    remedy="Move them out of the static folder.",
)  # fmt: skip
def public(subject: Subject) -> Evidences:
    """Everything below the static folder is sent to whoever asks for it."""
    static = subject.app.static_folder if subject.app is not None else None
    if not static:
        return
    for key, path in _folders(subject):
        if path.resolve().is_relative_to(Path(static).resolve()):
            yield Evidence(f"{key} lies below the static folder", key, path)


@rule(
    "P805", ERROR, "Jobs are lost with their process",
    remedy="Leave JOBS_BACKEND at auto, with REDIS_URL or JOBS_OUTBOX=always.",
)  # fmt: skip
def memory_jobs(subject: Subject) -> Evidences:
    """With memory a deploy loses what waits; with eager the visitor waits for it, and nothing is tried again."""
    if subject.get("JOBS_BACKEND") in ("memory", "eager"):
        yield Evidence(subject.said("JOBS_BACKEND"), "JOBS_BACKEND")


@rule(
    "P806", INFO, "Nobody is told of pending migrations",
    remedy="MIGRATIONS_PENDING=warn, or fail to keep such an instance out of the balancer.",
)  # fmt: skip
def silent_migrations(subject: Subject) -> Evidences:
    """New code on an old schema then fails view by view."""
    if subject.get("MIGRATIONS_PENDING") == "ignore":
        yield Evidence(subject.said("MIGRATIONS_PENDING"), "MIGRATIONS_PENDING")


@rule(
    "P807", ERROR, "Jobs have nowhere to wait",
    remedy="REDIS_URL=rediss://:password@host:6379/0, or JOBS_OUTBOX=always for a table of the database.",
)  # fmt: skip
def homeless_jobs(subject: Subject) -> Evidences:
    """Each dispatch raises an error, in the middle of somebody's request."""
    if subject.get("JOBS_BACKEND") != "auto" or subject.get("JOBS_OUTBOX") != "off" or subject.get("REDIS_URL"):
        return
    state = subject.state
    jobs = state.contributions.get("jobs") if state is not None else None
    names = sorted(jobs.handle.tasks.by_name) if jobs is not None else []
    if names:
        some = ", ".join(names[:3]) + (" ..." if len(names) > 3 else "")
        yield Evidence(f"there are jobs ({some}), REDIS_URL is empty and JOBS_OUTBOX is off", "REDIS_URL")


def _made(folder: Path, service: str) -> Iterator[float]:
    """Yield when the backups of a directory were made, in seconds since 1970."""
    for path in folder.glob("*.json"):
        try:
            manifest = json.loads(path.read_bytes())
            if not service or manifest["service"] == service:
                yield datetime.fromisoformat(manifest["made_at"]).timestamp()
        except (OSError, ValueError, KeyError, TypeError):
            continue  # `flask prod db backups` tells of damaged ones


def _folders(subject: Subject) -> Iterator[tuple[str, Path]]:
    url = subject.text("BACKUP_URL")
    places = {"BACKUP_URL": url if "://" not in url else "", "LOG_OUTPUT": subject.text("LOG_OUTPUT")}
    places |= {key: subject.text(key) for key in ("CACHE_DIR", "RUN_DIR", "TLS_KEY_FILE")}
    places["UPLOAD_FOLDER"] = str(subject.config("UPLOAD_FOLDER") or "")
    if places["LOG_OUTPUT"] in ("stdout", "stderr"):
        del places["LOG_OUTPUT"]
    key, address = subject.database
    if address.startswith("sqlite:///"):
        places[key] = address.removeprefix("sqlite:///").partition("?")[0]
    yield from ((key, subject.folder / place) for key, place in places.items() if place)


RULES = (none, stale, open_backups, public, memory_jobs, silent_migrations, homeless_jobs)
