"""Install the backups room."""

from __future__ import annotations

from typing import Any, ClassVar

from flask import Flask

from flask_prod.core.component import Check, Component, Contribution, Installed
from flask_prod.core.later import Later
from flask_prod.core.settings import Section

from .cli import db_group
from .freshness import Freshness
from .settings import BackupSettings

_MADE = "When the last known backup was made, in seconds since 1970."


class BackupsRoom(Component[BackupSettings, Any]):
    """Back up, restore and prove; serving processes only look how old the last backup is."""

    name: ClassVar[str] = "backups"
    requires: ClassVar[tuple[str, ...]] = ("database",)
    leaves: ClassVar[bool] = True
    settings: ClassVar[type[Section]] = BackupSettings

    def install(self, app: Flask, settings: BackupSettings, kit: Installed) -> Contribution[Any]:
        """Add the commands, and with a BACKUP_URL the check."""
        gauge = kit.meter.gauge("flask_prod_backup_timestamp_seconds", _MADE)

        def engine() -> Any:
            theirs = app.extensions.get("sqlalchemy")
            with app.app_context():
                return (theirs or kit.handle("database")).engine

        def build() -> Any:
            from .engine import Backups

            return Backups(settings, kit, engine, gauge)

        def newest() -> float | None:
            found = later.newest()
            if found is None:
                return None
            made: float = found.made_at.timestamp()
            gauge.set(made)
            return made

        later = Later(build)
        watched = settings.url and settings.max_age
        check = Check("backups", Freshness(newest, settings.max_age).probe, critical=False)
        return Contribution(
            handle=later,
            checks=(check,) if watched else (),
            commands=(db_group(later),),  # type: ignore[arg-type]  # stands for it
        )
