"""Install the migrations room."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from flask import Flask

from flask_prod.core.component import Check, Component, Contribution, Installed
from flask_prod.core.later import Later
from flask_prod.core.settings import Section

from .cli import db_group
from .folder import Folder, Revisions, find_folder, revisions_of
from .pending import Pending, revisions_in
from .settings import MigrationsSettings

if TYPE_CHECKING:
    from .engine import Migrations


class MigrationsRoom(Component[MigrationsSettings, Any]):
    """Bring the database to the revision that the code needs, by commands; serving processes only look."""

    name: ClassVar[str] = "migrations"
    requires: ClassVar[tuple[str, ...]] = ("database",)
    leaves: ClassVar[bool] = True
    settings: ClassVar[type[Section]] = MigrationsSettings

    def install(
        self, app: Flask, settings: MigrationsSettings, kit: Installed
    ) -> Contribution[Migrations | Later]:
        """Find the folder; Alembic and SQLAlchemy are imported by the first command that needs them."""

        def build() -> Migrations:
            from .engine import Migrations

            return Migrations(app, settings, kit)

        later = Later(build)
        folder = find_folder(settings.dir, Path(app.root_path))
        return Contribution(
            handle=later,
            checks=() if folder is None or settings.pending == "ignore" else (_check(folder, settings, kit),),
            commands=(db_group(later),),
        )


def _check(folder: Folder, settings: MigrationsSettings, kit: Installed) -> Check:
    failing = settings.pending == "fail"

    def scripts() -> Revisions:
        if folder.plain:
            return revisions_of(folder.versions)
        from .alembic_run import revisions_by_alembic

        return revisions_by_alembic(folder)

    def ask() -> frozenset[str] | None:
        engine = engine_in_use(kit)
        return None if engine is None else revisions_in(engine, settings.version_table)

    pending = Pending(scripts, ask, settings.pending)
    return Check("migrations", pending.probe, critical=failing, ready=failing)


def engine_in_use(kit: Installed) -> Any:
    """Return the engine of the application, None as long as nothing has used the default SQLite file."""
    database = kit.handle("database")
    if isinstance(database, Later) and database.built is None:
        return None
    url = database.engine.url
    memory = not url.database or url.database == ":memory:" or "mode=memory" in url.database
    if url.get_backend_name() == "sqlite" and (memory or not Path(url.database).exists()):
        return None if not memory else database.engine
    return database.engine
