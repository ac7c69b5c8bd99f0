"""What must hold before a deployment: asked of the new release, with the settings that it will have."""

from __future__ import annotations

import json
import shlex
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import msgspec

from flask_prod.core.errors import ProdKitError
from flask_prod.core.kit import KitState
from flask_prod.review import Subject, review
from flask_prod.review.rules import rules_for, sums

from .checked import Check, Doubtful, Failed, Result, Skipped, run
from .migrated import migrations_of

_SHOWN = 5
_LOOKERS = {
    "docker": ("manifest", "inspect"),
    "podman": ("manifest", "inspect"),
    "skopeo": ("inspect", "--raw"),
    "crane": ("manifest",),
}
"""Programs that ask a registry for an image, and the words for it; the first that is there is used."""

_SKOPEO = "docker://"
_PATIENCE = 60.0
"""Seconds that a registry has to answer."""


@dataclass(frozen=True, kw_only=True)
class Readiness:
    """All checks before a deployment of one application."""

    state: KitState
    image: str = ""
    cosign: str = ""
    """The words for `cosign verify`: who must have signed the image."""

    before: Path | None = None
    """What `flask prod config --json` said of the release that serves now."""

    disk: float = 10.0
    """Percent of each file system that must be free."""

    def results(self) -> Iterator[Result]:
        """Yield what each check found."""
        health = self._health()
        checks: list[Check] = [("settings", self.settings), ("disk", self.space)]
        checks += [(name, partial(_check, health, name)) for name in ("database", "redis")]
        checks += [("migrations", self.migrations), ("backup", self.backup)]
        checks += [("image", self.present), ("signature", self.signed), ("config", self.changes)]
        yield from run(checks)

    def settings(self) -> str:
        """`flask prod check` has nothing to say."""
        subject = Subject(self.state)
        report = review(subject, rules_for(subject), more=sums, silences=subject.get("CHECK_SILENCE") or {})
        if report.fails("warning"):
            ids = [one.id for one in report.findings if one.severity != "info"]
            raise Failed(f"{', '.join(ids[:_SHOWN])}: see `flask prod check`")
        return f"{report.asked} rules have nothing to say of the profile {subject.environment}"

    def space(self) -> str:
        """There is room where this process and its backups write."""
        places = [Path.cwd(), Path(tempfile.gettempdir()), *self._backup_folder()]
        found = {str(place): shutil.disk_usage(place) for place in places if place.is_dir()}
        free = {place: 100 * usage.free / usage.total for place, usage in found.items()}
        full = [f"{place} has {percent:.0f} % left" for place, percent in free.items() if percent < self.disk]
        if full:
            raise Failed("; ".join(full))
        return f"{min(free.values()):.0f} % free at the least"

    def migrations(self) -> str:
        """What is pending is known, and destroys nothing."""
        migrations = migrations_of(self.state)
        try:
            plan = migrations.plan()
        except ProdKitError as error:
            raise _ahead(migrations, error) from error
        if plan.dangers:
            raise Doubtful(f"{len(plan.steps)} pending, and data is lost: {'; '.join(plan.dangers[:_SHOWN])}")
        return f"{len(plan.steps)} pending: {', '.join(plan.steps[:_SHOWN])}" if plan.steps else "none is pending"

    def backup(self) -> str:
        """There is a backup to go back to, and not too old a one."""
        room = self.state.contributions.get("backups")
        if room is None:
            raise Skipped("the application leaves the backups room out")
        if not room.handle.settings.url:
            raise Doubtful("BACKUP_URL is not set: there is nothing to go back to")
        newest = room.handle.newest()
        if newest is None:
            raise Failed("there is none: run `flask prod db backup`")
        hours = (datetime.now(UTC) - newest.made_at).total_seconds() / 3600
        if 0 < room.handle.settings.max_age < hours * 3600:
            raise Failed(f"{newest.name} is {hours:.0f} hours old: run `flask prod db backup`")
        return f"{newest.name}, {hours:.1f} hours old"

    def present(self) -> str:
        """The registry has the image."""
        if not self.image:
            raise Skipped("--image names none")
        name = next(filter(shutil.which, _LOOKERS), None)
        if name is None:
            raise Skipped(f"there is none of {', '.join(_LOOKERS)} here to ask a registry with")
        image = _SKOPEO + self.image if name == "skopeo" else self.image
        _call([name, *_LOOKERS[name], image])
        return f"{self.image} is there, says {name}"

    def signed(self) -> str:
        """The image is signed by whom it should be."""
        if not self.image or not self.cosign:
            raise Skipped("--image and --cosign say whose signature it should have")
        if shutil.which("cosign") is None:
            raise Skipped("there is no cosign here")
        _call(["cosign", "verify", *shlex.split(self.cosign), self.image])
        return "the signature is good"

    def changes(self) -> str:
        """What will be set otherwise than now is told."""
        if self.before is None:
            raise Skipped("--config-before names no file of `flask prod config --json`")
        old = {row["key"]: row["value"] for row in json.loads(self.before.read_text(encoding="utf-8"))}
        settings = self.state.settings
        new = {row.key: settings.shown(row) for row in settings.rows}
        lines = list(_changed(old, new))
        if not lines:
            return "nothing changes"
        more = f" and {len(lines) - _SHOWN} more" if len(lines) > _SHOWN else ""
        return f"{len(lines)} changed: {'; '.join(lines[:_SHOWN])}{more}"

    def _health(self) -> Mapping[str, Any] | None:
        room = self.state.contributions.get("health")
        if room is None:
            return None
        checks: Mapping[str, Any] = msgspec.to_builtins(room.handle.summary(), enc_hook=str)["checks"]
        return checks

    def _backup_folder(self) -> list[Path]:
        room = self.state.contributions.get("backups")
        url = "" if room is None else str(room.handle.settings.url)
        return [] if not url or url.startswith("s3://") else [Path(url.removeprefix("file://"))]


def _ahead(migrations: Any, error: ProdKitError) -> Failed | Doubtful:
    """Return what it means that this code cannot tell what is pending: after a rollback the database is ahead."""
    from flask_prod.components.migrations.older import obstacles

    try:
        found = obstacles(migrations)
    except ProdKitError:
        found = [str(error)]
    if found:
        return Failed(f"this code does not know the database as it is: {found[0]}")
    return Doubtful("a later release has migrated the database; this one can serve with it")


def _check(health: Mapping[str, Any] | None, name: str) -> str:
    """Return what the application's own check of that name says."""
    if health is None or name not in health:
        raise Skipped(f"the application has no check of {name}")
    found = health[name]
    detail = str(found.get("detail") or "answers")
    if found["status"] == "fail":
        raise Failed(detail)
    if found["status"] != "ok":
        raise Doubtful(detail)
    return detail


def _changed(old: Mapping[str, Any], new: Mapping[str, Any]) -> Iterator[str]:
    for key in sorted({*old, *new}):
        if old.get(key) != new.get(key):
            yield f"{key} {old.get(key, 'was not there')!s} -> {new.get(key, 'is gone')!s}"


def _call(command: list[str]) -> None:
    done = subprocess.run(  # noqa: S603  # the words are ours, and there is no shell
        command, capture_output=True, text=True, timeout=_PATIENCE, check=False
    )
    if done.returncode:
        words = (done.stderr or done.stdout).strip().splitlines()
        raise Failed(f"{command[0]}: {words[-1] if words else f'exit code {done.returncode}'}")
